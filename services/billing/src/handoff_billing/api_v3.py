"""The `/billing/v3` paths, in the shapes that clients of Fastly's API know.

Their money is JSON numbers: the digits of the decimals are written as they are, never through a
float. Month-to-date has its total as text, as there.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query
from fastapi.responses import Response

from handoff_billing import schemas_v3 as s
from handoff_billing.callers import Reader, known, month_given, visible
from handoff_billing.directory import Directory
from handoff_billing.instants import instant_ms, month_text
from handoff_billing.ledger import Ledger, Statement, final_statement
from handoff_billing.money import scaled, shown, text
from handoff_billing.pricebook import BANDWIDTH, MINUTES, PRODUCTS, Product
from handoff_billing.usage import Delivered, Totals, UsageKey
from handoff_common.access import Principal, owner_of
from handoff_common.errors import FieldError, invalid, not_found
from handoff_common.http import decode_cursor, encode_cursor
from handoff_common.instants import rfc3339
from handoff_common.minutes import month_of, next_month

PRODUCT_LINE = "Network Services"
GROUPS: Mapping[str, str] = {
    MINUTES.name: "WebSockets",
    BANDWIDTH.name: "Delivery",
    "": "Adjustments",
}
MAX_MONTHS = 24
_LAST_SECOND_MS = 1000

CustomerQuery = Annotated[str | None, Query(description="operators name the customer")]
LimitText = Annotated[str | None, Query(pattern=r"^[0-9]{1,5}$", description="1 to 10000")]


def routes(ledger: Ledger, directory: Directory) -> APIRouter:
    router = APIRouter(prefix="/billing/v3", tags=["billing v3"])
    _invoices(router, ledger, directory)
    _metrics(router, ledger, directory)
    return router


def _invoices(router: APIRouter, ledger: Ledger, directory: Directory) -> None:
    @router.get("/invoices", **_answers(s.Invoices))
    async def list_invoices(
        principal: Reader,
        customer_id: CustomerQuery = None,
        billing_start_date: str | None = None,
        billing_end_date: str | None = None,
        limit: LimitText = None,
        cursor: str | None = None,
    ) -> Response:
        """Final invoices, newest first, of months within the dates."""
        owner = await _owner(principal, customer_id, directory)
        size = _limit(limit, default=100)
        from_ms = _date("billing_start_date", billing_start_date)
        to_ms = _date("billing_end_date", billing_end_date)
        finals, total = await ledger.finals(
            owner,
            from_ms=None if from_ms is None else month_of(from_ms),
            to_ms=None if to_ms is None else to_ms + 1,
            after=decode_cursor(cursor, [int])[0] if cursor else None,
            limit=size + 1,
        )
        more = len(finals) > size
        meta: dict[str, Any] = {"limit": size, "total": total, "sort": "-billing_start_date"}
        if more:
            meta["next_cursor"] = encode_cursor(finals[size - 1].place_ms)
        return _json(
            {"data": [_final(final_statement(one)) for one in finals[:size]], "meta": meta}
        )

    @router.get("/invoices/month-to-date", **_answers(s.MonthToDate))
    async def month_to_date(principal: Reader, customer_id: CustomerQuery = None) -> Response:
        """The current month's draft, rated from the usage of now."""
        owner = await _owner(principal, customer_id, directory)
        month = await ledger.month_for(owner, ledger.current_month())
        statement = await ledger.statement(month)
        return _json(
            {
                **_head(statement),
                "currency_code": statement.currency,
                "monthly_transaction_amount": shown(
                    Decimal(statement.totals["total"]), statement.exponent
                ),
                "transaction_line_items": [_line(line) for line in statement.lines],
            }
        )

    @router.get("/invoices/{invoice_id}", **_answers(s.Invoice))
    async def get_invoice(principal: Reader, invoice_id: str) -> Response:
        """One final invoice; a draft is not found here."""
        statement = await ledger.statement(await visible(ledger, principal, invoice_id))
        if statement.final is None:
            raise not_found("final invoice", invoice_id)
        return _json(_final(statement))


def _metrics(router: APIRouter, ledger: Ledger, directory: Directory) -> None:
    @router.get("/usage-metrics", **_answers(s.UsageMetrics))
    async def usage_metrics(
        principal: Reader,
        customer_id: CustomerQuery = None,
        start_month: str | None = None,
        end_month: str | None = None,
    ) -> Response:
        """Priced units and raw counts per month, product and region."""
        owner = await _owner(principal, customer_id, directory)
        months = _months(ledger, start_month, end_month)
        through_ms = await ledger.complete_through()
        data = []
        for month_ms in months:
            usage, delivery = await ledger.used(owner, month_ms)
            for product in PRODUCTS.values():
                for region, count in sorted(_by_region(product, usage, delivery).items()):
                    metric: dict[str, Any] = {
                        "month": month_text(month_ms),
                        "usage_type": product.name,
                        "name": product.title,
                        "region": region,
                        "unit": product.unit,
                        "quantity": _number(scaled(count, product.power)),
                        "raw_quantity": count,
                        "product_id": product.name,
                    }
                    if through_ms is not None:
                        metric["last_updated_at"] = rfc3339(through_ms)
                    data.append(metric)
        meta = {"limit": MAX_MONTHS, "total": len(data)}
        return _json({"customer_id": owner, "data": data, "meta": meta})

    @router.get("/service-usage-metrics", **_answers(s.ServiceUsageMetrics))
    async def service_usage_metrics(
        principal: Reader,
        customer_id: CustomerQuery = None,
        product_id: str | None = None,
        service: str | None = None,
        usage_type_name: str | None = None,
        start_month: str | None = None,
        end_month: str | None = None,
        limit: LimitText = None,
        cursor: str | None = None,
    ) -> Response:
        """One product's WebSocket usage per service, over the months given."""
        owner = await _owner(principal, customer_id, directory)
        product = _product(product_id, usage_type_name)
        months = _months(ledger, start_month, end_month)
        counts: dict[str, int] = {}
        for month_ms in months:
            usage, _ = await ledger.used(owner, month_ms)
            for key, totals in usage.items():
                if service in (None, key.service_id):
                    count = _count(product, totals)
                    counts[key.service_id] = counts.get(key.service_id, 0) + count
        size = _limit(limit, default=1000)
        last = decode_cursor(cursor, [str])[0] if cursor else ""
        left = [(key, count) for key, count in sorted(counts.items()) if count and key > last]
        meta: dict[str, Any] = {
            "limit": size,
            "total": sum(1 for count in counts.values() if count),
        }
        if len(left) > size:
            meta["next_cursor"] = encode_cursor(left[size - 1][0])
        return _json(
            {
                "data": {
                    "customer_id": owner,
                    "start_time": rfc3339(months[0]),
                    "end_time": rfc3339(next_month(months[-1])),
                    "usage_type": product.title,
                    "unit": product.unit,
                    "details": [
                        {
                            "customer_id": owner,
                            "service_id": service_id,
                            "service_name": directory.service_name(service_id),
                            "usage_units": _number(scaled(count, product.power)),
                            "raw_quantity": count,
                        }
                        for service_id, count in left[:size]
                    ],
                    "meta": meta,
                }
            }
        )

    @router.get("/service-usage-types", **_answers(s.ServiceUsageTypes))
    async def service_usage_types(principal: Reader) -> Response:
        """What `product_id` and `usage_type_name` may be."""
        types = [{"product_id": p.name, "name": p.title} for p in PRODUCTS.values()]
        return _json({"data": types})


def _final(statement: Statement) -> dict[str, Any]:
    final = statement.final
    if final is None:
        raise AssertionError("a draft has no number")
    return {
        **_head(statement),
        "invoice_posted_on": rfc3339(final.issued_ms),
        "statement_number": final.number,
        "currency_code": statement.currency,
        "monthly_transaction_amount": _number(Decimal(statement.totals["total"])),
        "transaction_line_items": [
            {**_line(line), "credit_coupon_code": line["coupon_code"] or ""}
            for line in statement.lines
        ],
    }


def _head(statement: Statement) -> dict[str, Any]:
    month_ms = statement.month.month_ms
    return {
        "customer_id": statement.month.customer_id,
        "invoice_id": str(statement.month.invoice_id),
        "billing_start_date": rfc3339(month_ms),
        "billing_end_date": rfc3339(next_month(month_ms) - _LAST_SECOND_MS),
    }


def _line(line: Mapping[str, Any]) -> dict[str, Any]:
    """A line item. `rate` is left out where a line has several prices, as null is not allowed."""
    item = {
        "description": line["description"],
        "amount": _number(Decimal(line["amount"])),
        "units": _number(Decimal(line["quantity"])),
        "product_name": PRODUCTS[line["product"]].title if line["product"] else line["kind"],
        "product_group": GROUPS[line["product"]],
        "product_line": PRODUCT_LINE,
        "region": line["region"],
        "usage_type": line["unit"],
    }
    if line["unit_price"] is not None:
        item["rate"] = _number(Decimal(line["unit_price"]))
    return item


def _by_region(
    product: Product, usage: Mapping[UsageKey, Totals], delivery: list[Delivered]
) -> dict[str, int]:
    counts: dict[str, int] = {}
    for key, totals in usage.items():
        counts[key.region] = counts.get(key.region, 0) + _count(product, totals)
    if product is BANDWIDTH:
        for row in delivery:
            counts[row.region] = counts.get(row.region, 0) + row.bytes
    return {region: count for region, count in counts.items() if count}


def _count(product: Product, totals: Totals) -> int:
    return totals.minutes if product is MINUTES else totals.priced_bytes


async def _owner(principal: Principal, customer_id: str | None, directory: Directory) -> str:
    owner = owner_of(principal, customer_id)
    if owner is None:
        raise invalid([FieldError("customer_id", "is missing; operators name the customer")])
    if principal.customer_id is None:
        await known(directory, owner)
    return owner


def _product(product_id: str | None, usage_type_name: str | None) -> Product:
    for product in PRODUCTS.values():
        if product_id in (None, "", product.name) and usage_type_name in (None, "", product.title):
            return product
    allowed = ", ".join(f"{p.name} ({p.title})" for p in PRODUCTS.values())
    given = f"{product_id!r} with {usage_type_name!r}"
    raise invalid([FieldError("product_id", f"{given} is not one of {allowed}")])


def _months(ledger: Ledger, start_month: str | None, end_month: str | None) -> list[int]:
    """The months from start to end; the current one where a bound is left out."""
    current = ledger.current_month()
    end = month_given(end_month, ledger, "end_month")
    last = current if end is None else end
    start = month_given(start_month, ledger, "start_month")
    at = min(last, current) if start is None else start
    months: list[int] = []
    while at <= last and len(months) <= MAX_MONTHS:
        months.append(at)
        at = next_month(at)
    if not 1 <= len(months) <= MAX_MONTHS:
        raise invalid(
            [
                FieldError(
                    "start_month",
                    f"{start_month!r} to {end_month!r} is not a span of 1 to {MAX_MONTHS} months",
                )
            ]
        )
    return months


def _limit(given: str | None, *, default: int) -> int:
    limit = default if given is None else int(given)
    if not 1 <= limit <= 10_000:
        raise invalid([FieldError("limit", f"{given!r} is not from 1 to 10000")])
    return limit


def _date(name: str, given: str | None) -> int | None:
    """A date or an instant; a date is its first moment in UTC."""
    if not given:
        return None
    try:
        return instant_ms(given if "T" in given else f"{given}T00:00:00Z")
    except ValueError:
        raise invalid([FieldError(name, f"{given!r} is not a date such as '2026-11-01'")]) from None


def _number(value: Decimal) -> msgspec.Raw:
    """The decimal's digits as a JSON number."""
    return msgspec.Raw(text(value).encode())


def _json(body: Mapping[str, Any]) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json")


def _answers(model: type) -> dict[str, Any]:
    return {"response_class": Response, "responses": {200: {"model": model}}}
