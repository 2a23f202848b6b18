"""`/v1/price-books`, customers' pricing, estimates and delivery usage: what billing is given."""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from handoff_billing import pricebook, views
from handoff_billing import schemas as s
from handoff_billing.callers import (
    Anyone,
    MonthQuery,
    Operator,
    Reader,
    actor,
    known,
    month_given,
    operators_only,
)
from handoff_billing.directory import Directory
from handoff_billing.instants import month_ms, month_text
from handoff_billing.ledger import Ledger
from handoff_billing.pricebook import REGIONS, PriceBook
from handoff_billing.pricing import Pricing, Supposed
from handoff_billing.store.prices import Given
from handoff_billing.tables import DEFAULT_CUSTOMER
from handoff_billing.usage import Delivered
from handoff_common.access import ALLOWED, Permission, Principal, Role, owner_of
from handoff_common.conditional import check_match, etag
from handoff_common.errors import FieldError, forbidden, invalid, not_found
from handoff_common.http import Page, parse_json_object
from handoff_common.instants import to_ms
from handoff_common.minutes import HOUR_MS, month_of

EVERYONE = "default"
"""In a path: the terms of every customer that has none of its own."""


def routes(ledger: Ledger, pricing: Pricing, directory: Directory) -> APIRouter:
    router = APIRouter(prefix="/v1")
    _prices(router, ledger, pricing, directory)
    _intake(router, ledger, pricing, directory)
    return router


def _prices(router: APIRouter, ledger: Ledger, pricing: Pricing, directory: Directory) -> None:
    def versions(books: Sequence[PriceBook]) -> list[dict[str, Any]]:
        return [pricebook.document(book) for book in books]

    @router.get("/price-books", response_model=Page[s.PriceBookOut], tags=["prices"])
    async def list_price_books(principal: Reader) -> dict[str, Any]:
        """Every version of every price book; operators only."""
        operators_only(principal)
        books = versions(await pricing.books())
        return {"data": books, "meta": {"limit": max(1, len(books)), "next_cursor": None}}

    @router.get(
        "/price-books/{price_book_id}", response_model=Page[s.PriceBookOut], tags=["prices"]
    )
    async def get_price_book(principal: Reader, price_book_id: str) -> dict[str, Any]:
        """The versions of one price book; operators only."""
        operators_only(principal)
        books = versions(await pricing.books(price_book_id))
        if not books:
            raise not_found("price book", price_book_id)
        return {"data": books, "meta": {"limit": len(books), "next_cursor": None}}

    @router.post(
        "/price-books",
        status_code=201,
        response_model=s.PriceBookOut,
        openapi_extra=s.described(s.PriceBookIn),
        tags=["prices"],
    )
    async def add_price_book(principal: Operator, request: Request) -> dict[str, Any]:
        """A new price book, or the next version of one, effective from a month that has not begun.
        The same again answers with the version that stands."""
        document = parse_json_object(await request.body())
        return pricebook.document(await pricing.add_book(document, by=actor(principal)))

    async def priced(owner: str, customer_id: str, month: int) -> dict[str, Any]:
        given, book = await pricing.terms_of(owner, month)
        return {
            "customer_id": customer_id,
            "month": month_text(month),
            "terms": views.given_terms(given),
            "price_book": pricebook.document(book),
            "history": [views.given_terms(one) for one in await pricing.history(owner)],
        }

    async def terms_owner(principal: Principal, customer_id: str) -> str:
        if customer_id == EVERYONE:
            operators_only(principal)
            return DEFAULT_CUSTOMER
        if not principal.may_see(customer_id):
            raise not_found("customer", customer_id)
        await known(directory, customer_id)
        return customer_id

    @router.get("/customers/{customer_id}/pricing", response_model=s.PricingOut, tags=["prices"])
    async def get_pricing(
        principal: Reader, customer_id: str, response: Response, month: MonthQuery = None
    ) -> dict[str, Any]:
        """What prices a customer's month, the current one unless given. The ETag stands for the
        customer's own terms (`history`), whatever month is asked for."""
        owner = await terms_owner(principal, customer_id)
        at = _any_month(month)
        found = await priced(owner, customer_id, ledger.current_month() if at is None else at)
        response.headers["etag"] = etag(found["history"])
        return found

    @router.put(
        "/customers/{customer_id}/pricing",
        response_model=s.PricingOut,
        openapi_extra=s.described(s.TermsIn),
        tags=["prices"],
    )
    async def set_pricing(
        principal: Operator, customer_id: str, request: Request, response: Response
    ) -> dict[str, Any]:
        """Give a customer terms from a month on. `default` for the customer: those of everyone who
        has none. Terms of a month that has begun stand, unless there were none and nothing is
        final."""
        owner = await terms_owner(principal, customer_id)
        document = parse_json_object(await request.body())

        def check(present: Sequence[Given]) -> None:
            check_match(request, [views.given_terms(one) for one in present])

        given = await pricing.set_terms(owner, document, by=actor(principal), check=check)
        found = await priced(owner, customer_id, given.effective_ms)
        response.headers["etag"] = etag(found["history"])
        return found

    @router.post("/estimates", response_model=s.EstimateOut, tags=["prices"])
    async def estimate(principal: Anyone, body: s.EstimateIn) -> dict[str, Any]:
        """What usage would cost: a past month's, a supposed one's, or both together. Nothing is
        stored. An engineer may price supposed usage, as a preview before enabling a product."""
        may_read = principal.can(Permission.READ_BILLING)
        may_preview = Permission.TOGGLE_PRODUCTS in ALLOWED[principal.role] and body.month is None
        if not may_read and not may_preview:
            allowed = ", ".join(r for r in Role if Permission.READ_BILLING in ALLOWED[r])
            raise forbidden(
                f"role {principal.role!r} may not do this; allowed: {allowed}; without a month "
                "also engineer"
            )
        customer_id = owner_of(principal, body.customer_id)
        if principal.customer_id is not None and body.price_book_id is not None:
            given, _ = await pricing.terms_of(principal.customer_id, ledger.current_month())
            if given.terms.price_book_id != body.price_book_id:
                raise not_found("price book", body.price_book_id)
        if principal.customer_id is None and customer_id is not None:
            await known(directory, customer_id, name="customer_id")
        _check_estimate(body, customer_id)
        month = month_given(body.month, ledger)
        made = await pricing.estimate(
            customer_id=customer_id,
            month_ms=month,
            supposed=[
                Supposed(u.region, u.minutes, u.websocket_bytes, u.delivery_bytes)
                for u in body.usage
            ],
            price_book_id=body.price_book_id,
            book_document=body.price_book,
            terms_document=body.terms,
        )
        return views.estimate(made, customer_id, month)


def _check_estimate(body: s.EstimateIn, customer_id: str | None) -> None:
    errors = []
    if body.month is None and not body.usage:
        errors.append(FieldError("usage", "is missing; give usage, a month, or both"))
    if body.month is not None and customer_id is None:
        errors.append(FieldError("customer_id", "is missing; a month is a customer's"))
    for index, supposed in enumerate(body.usage):
        if supposed.region not in REGIONS:
            errors.append(_no_region(f"usage.{index}.region", supposed.region))
    if body.price_book is not None and body.price_book_id is not None:
        errors.append(FieldError("price_book_id", "is given beside price_book; give one of them"))
    if errors:
        raise invalid(errors)


def _intake(router: APIRouter, ledger: Ledger, pricing: Pricing, directory: Directory) -> None:
    @router.post("/delivery-usage", response_model=s.AcceptedOut, tags=["delivery"])
    async def add_delivery(principal: Operator, body: s.DeliveryIn) -> dict[str, Any]:
        """Delivery bytes that another system sent: absolute per customer, region, hour and source,
        so sending again does no harm. All rows are taken or none."""
        errors: list[FieldError] = []
        rows: dict[tuple[str, str, int, str], tuple[str, Delivered]] = {}
        customers = {row.customer_id for row in body.data}
        unknown = {one for one in customers if await directory.customer(one) is None}
        latest = to_ms(ledger.now()) // HOUR_MS * HOUR_MS
        for index, row in enumerate(body.data):
            at = f"data.{index}"
            hour_ms = to_ms(row.hour)
            if row.region not in REGIONS:
                errors.append(_no_region(f"{at}.region", row.region))
            if hour_ms % HOUR_MS or not 0 <= hour_ms <= latest:
                errors.append(
                    FieldError(
                        f"{at}.hour",
                        f"{row.hour.isoformat()} is not the start of an hour that has begun",
                    )
                )
            if row.customer_id in unknown:
                errors.append(
                    FieldError(f"{at}.customer_id", f"{row.customer_id!r} is not a customer")
                )
            key = (row.customer_id, row.region, hour_ms, row.source)
            if key in rows:
                errors.append(FieldError(at, "stands twice; a row is absolute"))
            delivered = Delivered(row.region, hour_ms, row.source, row.bytes)
            rows[key] = (row.customer_id, delivered)
        if not errors:
            months = {(one, month_of(row.hour_ms)) for one, row in rows.values()}
            unpriced = await pricing.unpriced(months)
            errors += [
                FieldError(
                    f"data.{index}.hour",
                    f"{row.hour.isoformat()} lies in a month for which {row.customer_id!r} has no "
                    "price book in force",
                )
                for index, row in enumerate(body.data)
                if (row.customer_id, month_of(to_ms(row.hour))) in unpriced
            ]
        if errors:
            raise invalid(errors)
        await pricing.save_delivery(list(rows.values()))
        return {"accepted": len(rows)}


def _no_region(name: str, given: str) -> FieldError:
    return FieldError(name, f"{given[:64]!r} is not one of {', '.join(REGIONS)}")


def _any_month(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return month_ms(text)
    except ValueError:
        raise invalid(
            [FieldError("month", f"{text!r} is not a UTC month such as '2026-11'")]
        ) from None
