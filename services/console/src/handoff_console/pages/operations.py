"""The operator's view: how far edges and metering have come, whether what was accepted was found,
what waits for a decision, and what holds the invoices of the months that have ended."""

import asyncio
import base64
import binascii
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from starlette.responses import Response
from starlette.routing import Route

from handoff_client import Conflict, Invalid, NotFound, invoices, metering
from handoff_client.invoices import Invoice, InvoiceSummary
from handoff_client.metering import Edge, ParkedRecord, Reconciliation, Slice, Watermarks
from handoff_common.access import Permission
from handoff_console.attempts import FRESH, Attempt, attempt
from handoff_console.context import Refused, Visit, is_htmx, page
from handoff_console.holds import advice

INVOICES = 20
PARKED = 25
COUNTED = 1_000
"""Parked records that are counted by kind; there are never that many in a healthy system."""
SILENT_MS = 30_000
SILENT_TICKS = 3
"""A tick or two fall between two watermarks of an edge that is well."""
_AT_ONCE = 8
_SHOWN_BYTES = 2_000

KINDS = {
    "malformed": "Cannot be read as an event",
    "unknown_type": "Of a type that this release does not know",
    "skewed": "Its instant is far from the log's: a clock is wrong",
    "retired": "Its connection was closed and put away long ago",
}
RETRIABLE = frozenset({"skewed", "unknown_type", "malformed"})
"""`retired` can only be discarded; of the others the API decides."""


class EdgeRow(NamedTuple):
    """behind_ms: how long ago its watermark was. state: in a word; kind: of its badge."""

    edge: Edge
    behind_ms: int
    state: str
    kind: str


class Parked(NamedTuple):
    """by_kind: how many there are of each. more: there are others that were not counted."""

    by_kind: Sequence[tuple[str, int]]
    more: bool


class Held(NamedTuple):
    """An invoice of a month that has ended; detail: None for a final one."""

    summary: InvoiceSummary
    detail: Invoice | None


async def overview(visit: Visit) -> Response:
    query = visit.request.query_params
    now = _now(visit)
    ended = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
    month = f"{ended:%Y-%m}"
    live, found, left = await asyncio.gather(
        _live(visit),
        visit.api.page(invoices.listing(month=month, limit=INVOICES), query.get("at")),
        visit.api.page(
            invoices.listing(before=month, status="draft", limit=INVOICES), query.get("left")
        ),
    )
    return visit.render(
        "operations.html",
        **live,
        ended=ended,
        invoices=await _held(visit, found.items),
        following=found.next,
        left=await _held(visit, left.items),
        following_left=left.next,
        advice=advice,
    )


async def live(visit: Visit) -> Response:
    """The part of the page that is asked for again and again."""
    if not is_htmx(visit.request):
        return visit.go("/operations")
    return visit.render("operations_live.html", **await _live(visit))


async def _live(visit: Visit) -> dict[str, Any]:
    marks, balance, parked = await asyncio.gather(
        visit.api.run(metering.watermarks()),
        visit.api.run(metering.reconciliation()),
        visit.api.page(metering.parked(limit=COUNTED)),
    )
    now_ms = visit.console.clock.now_ms()
    return {
        "edges": [edge_row(edge, now_ms) for edge in marks.data],
        "slices": marks.slices,
        "held_slices": held_slices(marks),
        "closed_month": marks.month,
        "balance": balance,
        "unbalanced": unbalanced(balance),
        "parked": Parked(_by_kind(parked.items), parked.next is not None),
        "kinds": KINDS,
        "at": _now(visit),
    }


def edge_row(edge: Edge, now_ms: int) -> EdgeRow:
    behind = max(0, now_ms - int(edge.through.timestamp() * 1_000))
    if edge.ended:
        return EdgeRow(edge, behind, "ended", "")
    if edge.lost:
        return EdgeRow(edge, behind, "lost", "bad")
    if edge.silent_ticks >= SILENT_TICKS or behind > SILENT_MS:
        return EdgeRow(edge, behind, "silent", "warn")
    return EdgeRow(edge, behind, "up", "ok")


def held_slices(marks: Watermarks) -> list[Slice]:
    """Those behind, or held by something else than an edge's latest watermark."""
    return [
        one
        for one in marks.slices
        if one.lag or any(hold.cause != "its latest watermark" for hold in one.held_by)
    ]


def unbalanced(balance: Reconciliation) -> bool:
    return not balance.balanced or balance.accepted != balance.open + balance.closed


def _by_kind(records: Sequence[ParkedRecord]) -> list[tuple[str, int]]:
    return Counter(record.kind for record in records).most_common()


async def _held(visit: Visit, found: Sequence[InvoiceSummary]) -> list[Held]:
    turn = asyncio.Semaphore(_AT_ONCE)

    async def one(summary: InvoiceSummary) -> Held:
        if summary.status == "final":
            return Held(summary, None)
        async with turn:
            detail = await visit.api.run(invoices.get(summary.invoice_id))
        return Held(summary, detail)

    return list(await asyncio.gather(*(one(summary) for summary in found)))


async def parked(visit: Visit) -> Response:
    return await _parked(visit)


async def _parked(visit: Visit, tried: Attempt = FRESH) -> Response:
    at = visit.request.query_params.get("at")
    found = await visit.api.page(metering.parked(value=True, limit=PARKED), at)
    return visit.render(
        "parked.html",
        status=tried.status,
        records=[(record, _content(record)) for record in found.items],
        following=found.next,
        kinds=KINDS,
        retriable=RETRIABLE,
        tried=tried,
    )


def _content(record: ParkedRecord) -> str:
    """What it holds as text, cut where it is long; what is no UTF-8 is shown as marks."""
    try:
        raw = base64.b64decode(record.value or "", validate=True)
    except binascii.Error:
        return ""
    text = raw[:_SHOWN_BYTES].decode("utf-8", "replace")
    return text + ("…" if len(raw) > _SHOWN_BYTES else "")


async def decide(visit: Visit) -> Response:
    partition, offset = (visit.request.path_params[name] for name in ("partition", "offset"))
    decision = visit.field("decision")
    form = f"{partition}-{offset}"
    if decision not in ("retry", "discard"):
        raise Refused(422, "No decision", "A record is retried or discarded.")
    try:
        made = await visit.api.run(
            metering.decide(
                partition,
                offset,
                "retry" if decision == "retry" else "discard",
                reason=visit.field("reason"),
            )
        )
    except (Conflict, Invalid, NotFound) as error:
        return await _parked(visit, attempt(visit, form, ("reason",), error))
    done = {"retry": "Retried", "discard": "Discarded"}[decision]
    later = " It takes effect as soon as it is read." if made.status == "pending" else ""
    return visit.go("/operations/parked", flash=f"{done}: record {partition}/{offset}.{later}")


def _now(visit: Visit) -> datetime:
    return datetime.fromtimestamp(visit.console.clock.now_ms() // 1_000, UTC)


ROUTES = (
    Route("/operations", page(Permission.OPERATE, overview)),
    Route("/operations/live", page(Permission.OPERATE, live)),
    Route("/operations/parked", page(Permission.OPERATE, parked)),
    Route(
        "/operations/parked/{partition:count}/{offset:count}",
        page(Permission.OPERATE, decide),
        methods=["POST"],
    ),
)
