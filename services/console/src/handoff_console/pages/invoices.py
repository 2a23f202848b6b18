"""Invoices: the month so far and what it will come to, past ones, one with its lines and tiers, the
rows behind a line, and whether an invoice is what it says."""

import asyncio
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple
from urllib.parse import urlencode

from starlette.responses import Response
from starlette.routing import Route

from handoff_client import Conflict, HandoffApiError, Invalid, costs, invoices
from handoff_client.costs import Costs, Forecast
from handoff_client.invoices import Invoice, InvoiceSummary, Line, LineUsage, UsageRow
from handoff_common.access import Permission
from handoff_console.attempts import FRESH, Attempt, attempt
from handoff_console.context import Refused, Visit, is_htmx, page
from handoff_console.holds import advice
from handoff_console.lines import explain
from handoff_console.proofs import verify
from handoff_console.service_names import names_of

PER_PAGE = 12
ROWS = 200
SERVICES = 20
"""How many services are shown by name; the rest is one sum."""

METHODS = {
    "weekly": "Each hour that is left is taken to be like the same hour of the last seven days, "
    "and all of it is rated like an invoice: with tiers, discounts and minimums.",
    "mean": "Each hour that is left is taken to be like the mean hour since the first use, and all "
    "of it is rated like an invoice: with tiers, discounts and minimums.",
    "no_history": "Nothing has been used in a complete hour yet, so no more is expected.",
    "complete": "The month is over: this is what it came to.",
}
PARTS = {
    "delivery": "Delivery of other systems",
    "discount": "Discount",
    "coupon": "Coupon",
    "commitment_true_up": "Up to the commitment",
    "commitment_overage": "Beyond the commitment",
    "minimum": "Up to the monthly minimum",
    "correction": "Corrections of earlier months",
    "carried_over": "Carried over from earlier months",
    "carried_forward": "Carried forward to the next month",
}
HELD = "Not final: it is held. What holds it stands here; a reason that is kept passes over it."
_FILE_NAME = re.compile(r'attachment; filename="[A-Za-z0-9._-]+"')


class Share(NamedTuple):
    """A service's part of the month. name: None for one that is deleted."""

    service_id: str
    name: str | None
    minutes: int
    bytes: int
    amount: Decimal | None


class Shares(NamedTuple):
    """The services that cost most, and the sum of the others. amount: of all of them."""

    amount: Decimal
    top: tuple[Share, ...]
    others: Share | None
    others_count: int


async def listed(visit: Visit) -> Response:
    customer_id = visit.customer_id
    now = datetime.fromtimestamp(visit.console.clock.now_ms() // 1_000, UTC)
    at = visit.request.query_params.get("at")
    found, forecast, bill = await asyncio.gather(
        visit.api.page(invoices.listing(customer_id=customer_id, limit=PER_PAGE), at),
        _forecast(visit, customer_id),
        _costs(visit, customer_id),
    )
    running = next((one for one in found.items if _runs(one, now)), None)
    return visit.render(
        "invoices.html",
        running=running,
        past=[one for one in found.items if one is not running],
        first=at is None,
        following=found.next,
        forecast=forecast,
        method=_method(forecast),
        costs=bill,
        shares=None if bill is None else await _shares(visit, bill),
        parts=PARTS,
        month=now.replace(day=1),
        today=now,
    )


def _runs(one: InvoiceSummary, now: datetime) -> bool:
    return one.kind == "month" and one.period_start <= now < one.period_end


def _method(forecast: Forecast | None) -> str:
    return "" if forecast is None else METHODS.get(forecast.method or "", "")


async def _forecast(visit: Visit, customer_id: str) -> Forecast | None:
    """None where it cannot be told: the list of invoices is shown all the same."""
    try:
        return await visit.api.run(costs.forecast(customer_id))
    except HandoffApiError:
        return None


async def _costs(visit: Visit, customer_id: str) -> Costs | None:
    try:
        return await visit.api.run(costs.of_customer(customer_id))
    except HandoffApiError:
        return None


async def _shares(visit: Visit, bill: Costs) -> Shares:
    rows = sorted(
        bill.data, key=lambda one: (-(one.amount or Decimal(0)), -one.minutes, one.service_id)
    )
    names = await names_of(visit, (one.service_id for one in rows[:SERVICES]))
    top = tuple(
        Share(
            one.service_id,
            names.get(one.service_id),
            one.minutes,
            one.websocket_bytes,
            one.amount,
        )
        for one in rows[:SERVICES]
    )
    amount = sum((one.amount or Decimal(0) for one in rows), Decimal(0))
    rest = rows[SERVICES:]
    if not rest:
        return Shares(amount, top, None, 0)
    others = Share(
        "",
        "",
        sum(one.minutes for one in rest),
        sum(one.websocket_bytes for one in rest),
        sum((one.amount or Decimal(0) for one in rest), Decimal(0)),
    )
    return Shares(amount, top, others, len(rest))


async def one(visit: Visit) -> Response:
    return await _shown(visit, _invoice_id(visit))


async def _shown(visit: Visit, invoice_id: str, tried: Attempt = FRESH) -> Response:
    invoice = await visit.api.run(invoices.get(invoice_id))
    return visit.render(
        "invoice.html",
        status=tried.status,
        invoice=invoice,
        lines=[(line, explain(line, invoice.currency)) for line in invoice.lines],
        holds=[(hold, advice(hold.code)) for hold in invoice.holds],
        over=all(hold.code != "month_open" for hold in invoice.holds),
        may_finalize=_may_finalize(visit, invoice),
        may_correct=_may_correct(visit, invoice),
        tried=tried,
    )


def _may_finalize(visit: Visit, invoice: Invoice) -> bool:
    """Whether it is worth trying: no hold stands that no force passes over."""
    return (
        visit.viewer.can(Permission.OPERATE)
        and invoice.status == "draft"
        and all(hold.forceable for hold in invoice.holds)
    )


def _may_correct(visit: Visit, invoice: Invoice) -> bool:
    late = invoice.late_usage
    return (
        visit.viewer.can(Permission.OPERATE)
        and late is not None
        and bool(late.lines)
        and late.next_month is None
    )


def _invoice_id(visit: Visit) -> str:
    invoice_id = str(visit.request.path_params["invoice_id"])
    if not (invoice_id.isascii() and invoice_id.isdigit() and len(invoice_id) < 20):
        raise Refused(
            404, "No such invoice", "An invoice's address ends with its number of digits."
        )
    return invoice_id


async def finalize(visit: Visit) -> Response:
    invoice_id = _invoice_id(visit)
    try:
        made = await visit.api.run(
            invoices.finalize(invoice_id, forced_because=visit.field("reason") or None)
        )
    except (Conflict, Invalid) as error:
        tried = _tried(visit, "finalize", error)
        return await _shown(visit, invoice_id, tried)
    return visit.go(f"/invoices/{made.invoice_id}", flash=f"The invoice is final: {made.number}.")


async def correct(visit: Visit) -> Response:
    invoice_id = _invoice_id(visit)
    try:
        made = await visit.api.run(
            invoices.correct(invoice_id, forced_because=visit.field("reason") or None)
        )
    except (Conflict, Invalid) as error:
        tried = _tried(visit, "correct", error)
        return await _shown(visit, invoice_id, tried)
    return visit.go(
        f"/invoices/{made.invoice_id}", flash=f"What came late is billed by {made.number}."
    )


def _tried(visit: Visit, form: str, error: Conflict | Invalid) -> Attempt:
    tried = attempt(visit, form, ("reason",), error)
    # The holds stand on the page with what to do about each.
    return tried._replace(errors={"": HELD}) if error.code == "invoice_held" else tried


async def csv(visit: Visit) -> Response:
    """The API's file under the name that the API gives it."""
    received = await visit.api.run(invoices.csv(_invoice_id(visit)).with_headers())
    said = received.headers.get("content-disposition", "")
    name = said if _FILE_NAME.fullmatch(said) else 'attachment; filename="invoice.csv"'
    return Response(received.value, media_type="text/csv", headers={"Content-Disposition": name})


async def verification(visit: Visit) -> Response:
    """Computed anew each time: an answer that was kept would prove nothing."""
    invoice_id = _invoice_id(visit)
    invoice = await visit.api.run(invoices.get(invoice_id))
    if invoice.final is None:
        raise Refused(409, "A draft has no proof", "It can be verified as soon as it is final.")
    proof = await visit.api.run(invoices.proof(invoice_id))
    checks = await asyncio.to_thread(verify, invoice, proof)
    return visit.render(
        "verification_part.html" if is_htmx(visit.request) else "verification.html",
        invoice=invoice,
        final=invoice.final,
        checks=checks,
        ok=all(check.ok for check in checks),
        corrects=any(line.corrects is not None for line in invoice.lines),
        at=datetime.fromtimestamp(visit.console.clock.now_ms() // 1_000, UTC),
        rows=sum(len(line.usage) + len(line.delivery) for line in proof.lines),
    )


async def line_rows(visit: Visit) -> Response:
    invoice_id = _invoice_id(visit)
    number = visit.request.path_params["number"]
    at = visit.request.query_params.get("at")
    invoice, found = await asyncio.gather(
        visit.api.run(invoices.get(invoice_id)),
        visit.api.page(invoices.line_usage(invoice_id, number, limit=ROWS), at),
    )
    line = next((one for one in invoice.lines if one.number == number), None)
    if line is None:
        raise Refused(404, "No such line", f"The invoice has no line {number} any more.")
    names = await names_of(
        visit, (row.usage.service_id for row in found.items if row.usage is not None)
    )
    return visit.render(
        "invoice_line.html",
        invoice=invoice,
        line=line,
        explained=explain(line, invoice.currency),
        rows=[row.usage for row in found.items if row.usage is not None],
        deliveries=[row.delivery for row in found.items if row.delivery is not None],
        names=names,
        links=_links(found.items),
        counted=sum(_counted(line, row) for row in found.items),
        whole=at is None and found.next is None,
        following=found.next,
        foreign=visit.viewer.is_operator and visit.viewer.customer_id != invoice.customer_id,
    )


def _links(rows: tuple[LineUsage, ...]) -> Mapping[UsageRow, str]:
    return {row.usage: connections_of(row.usage) for row in rows if row.usage is not None}


def connections_of(row: UsageRow) -> str:
    """Where the connections of a usage row are listed."""
    past = row.hour + timedelta(hours=1)
    query = {
        "service_id": row.service_id,
        "region": row.region,
        "from": f"{row.hour:%Y-%m-%dT%H:%M:%SZ}",
        "to": f"{past:%Y-%m-%dT%H:%M:%SZ}",
    }
    return f"/connections?{urlencode(query)}"


def _counted(line: Line, row: LineUsage) -> int:
    """What a row adds to a line's raw quantity."""
    if row.delivery is not None:
        return row.delivery.bytes
    if row.usage is None:
        return 0
    if line.raw_unit == "connections":
        return row.usage.lost
    return row.usage.minutes if line.raw_unit == "minutes" else sent(row.usage)


def sent(row: UsageRow) -> int:
    """Bytes as they are billed: those that the edge sends, to clients and to origins."""
    return (
        row.resp_header_bytes + row.resp_body_bytes + row.bereq_header_bytes + row.bereq_body_bytes
    )


ROUTES = (
    Route("/invoices", page(Permission.READ_BILLING, listed)),
    Route("/invoices/{invoice_id}.csv", page(Permission.READ_BILLING, csv)),
    Route("/invoices/{invoice_id}", page(Permission.READ_BILLING, one)),
    Route("/invoices/{invoice_id}/verification", page(Permission.READ_BILLING, verification)),
    Route("/invoices/{invoice_id}/lines/{number:count}", page(Permission.READ_BILLING, line_rows)),
    Route("/invoices/{invoice_id}/finalize", page(Permission.OPERATE, finalize), methods=["POST"]),
    Route("/invoices/{invoice_id}/correct", page(Permission.OPERATE, correct), methods=["POST"]),
)
