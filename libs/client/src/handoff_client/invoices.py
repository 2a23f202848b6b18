"""`/v1/invoices`: drafts, final invoices, what stands behind them, and making them final."""

from decimal import Decimal
from typing import Any, Literal

from handoff_client.answer import Answer, Instant, json_of, text
from handoff_client.answer import listing as _listing
from handoff_client.call import Call, Listing, Repeat, call
from handoff_client.connections import Counters

_ONE = "/v1/invoices/{invoice_id}"


class LineTier(Answer, frozen=True, kw_only=True):
    """The part of a line at one price: `quantity` units above `above`, up to `up_to`."""

    above: Decimal
    up_to: Decimal | None
    quantity: Decimal
    unit_price: Decimal
    exact: Decimal


class Corrects(Answer, frozen=True, kw_only=True):
    """The line of another invoice, of number `invoice`, that a line is about."""

    invoice: str
    period_start: Instant
    kind: str


class Line(Answer, frozen=True, kw_only=True):
    """exact: what the prices give; amount: that, rounded once. corrects: of a line of kind
    `correction` or `carried_over`. connections: the path that lists the connections behind it."""

    number: int
    kind: str
    description: str
    product: str
    region: str
    unit: str
    quantity: Decimal
    raw_unit: str
    raw_quantity: int
    websocket_raw_quantity: int | None
    model: str
    unit_price: Decimal | None
    tiers: tuple[LineTier, ...]
    exact: Decimal
    amount: Decimal
    coupon_code: str | None
    corrects: Corrects | None
    connections: str | None


class Totals(Answer, frozen=True, kw_only=True):
    """corrections: of earlier months, with what is carried from one invoice to the next."""

    usage: Decimal
    adjustments: Decimal
    corrections: Decimal
    total: Decimal


class Hold(Answer, frozen=True, kw_only=True):
    """What keeps a draft from being final."""

    code: str
    detail: str
    forceable: bool


class LateLine(Answer, frozen=True, kw_only=True):
    kind: str
    product: str
    region: str
    raw_quantity: int
    amount: Decimal


class LateUsage(Answer, frozen=True, kw_only=True):
    """What came since the invoice was final, and no later one has billed. next_month: of the
    invoice that will, None where there is none; then `correct` bills it."""

    amount: Decimal
    lines: tuple[LateLine, ...]
    next_month: str | None


class CorrectedBy(Answer, frozen=True, kw_only=True):
    """A later invoice, and what its corrections of this one come to."""

    number: str
    amount: Decimal


class InvoiceSummary(Answer, frozen=True, kw_only=True):
    """kind: `month` or `correction`. status: `draft` or `final`; a draft has no number and no
    issued_at. period_end: the first instant after the month."""

    invoice_id: str
    kind: str
    status: str
    number: str | None
    customer_id: str
    customer_name: str
    period_start: Instant
    period_end: Instant
    currency: str
    total: Decimal
    issued_at: Instant | None


class Forced(Answer, frozen=True, kw_only=True):
    """Why holds were passed over, and which."""

    reason: str
    overridden: tuple[dict[str, str], ...]


class Final(Answer, frozen=True, kw_only=True):
    """positions, through: by slice."""

    content_hash: str
    previous_chain_hash: str
    chain_hash: str
    positions: dict[str, int]
    through: dict[str, Instant]
    finalized_by: str
    forced: Forced | None


class Invoice(InvoiceSummary, frozen=True, kw_only=True):
    """price_book_id, price_book_version: None where no prices are in force for the month. holds: of
    a draft. late_usage, final: of a final invoice, else None."""

    price_book_id: str | None
    price_book_version: int | None
    minutes: int
    websocket_bytes: int
    lines: tuple[Line, ...]
    totals: Totals
    holds: tuple[Hold, ...]
    late_usage: LateUsage | None
    corrected_by: tuple[CorrectedBy, ...]
    final: Final | None


class UsageRow(Counters, frozen=True, kw_only=True):
    """An hour of a service in a region."""

    service_id: str
    region: str
    hour: Instant
    minutes: int
    opened: int
    closed: int
    lost: int


class DeliveryRow(Answer, frozen=True, kw_only=True):
    """An hour of another system's delivery."""

    region: str
    hour: Instant
    source: str
    bytes: int


class LineUsage(Answer, frozen=True, kw_only=True):
    """One row behind a line; kind says which of the two it has. connections: the path that lists
    the connections of a usage row."""

    kind: str
    usage: UsageRow | None = None
    delivery: DeliveryRow | None = None
    connections: str | None = None


class ProofLine(Answer, frozen=True, kw_only=True):
    number: int
    connections: str | None
    usage: tuple[UsageRow, ...]
    delivery: tuple[DeliveryRow, ...]


class Proof(Answer, frozen=True, kw_only=True):
    """document: the content, whose RFC 8785 form has the SHA-256 content_hash; chain_hash is the
    SHA-256 of the RFC 8785 form of link."""

    invoice_id: str
    number: str
    document: dict[str, Any]
    content_hash: str
    link: dict[str, Any]
    chain_hash: str
    lines: tuple[ProofLine, ...]


def listing(
    *,
    customer_id: str | None = None,
    month: str | None = None,
    before: str | None = None,
    status: Literal["draft", "final"] | None = None,
    limit: int | None = None,
) -> Listing[InvoiceSummary]:
    """Newest month first. month: as `2026-11`, UTC. before: only months before that one. limit: 1
    to 100, 20 where it is left out."""
    query = {
        "customer_id": customer_id,
        "month": month,
        "before": before,
        "status": status,
        "limit": limit,
    }
    return _listing("/v1/invoices", InvoiceSummary, query=query)


def get(invoice_id: str) -> Call[Invoice]:
    """A draft as of now, or a final invoice."""
    return call("GET", _ONE, json_of(Invoice), invoice_id=invoice_id)


def csv(invoice_id: str) -> Call[str]:
    """One row per line; the amounts add up to the total."""
    return call("GET", f"{_ONE}.csv", text, invoice_id=invoice_id)


def line_usage(invoice_id: str, number: int, *, limit: int | None = None) -> Listing[LineUsage]:
    """The rows that line `number` counts: per service and hour, then other delivery."""
    return _listing(
        f"{_ONE}/lines/{{number}}/usage",
        LineUsage,
        query={"limit": limit},
        invoice_id=invoice_id,
        number=number,
    )


def proof(invoice_id: str) -> Call[Proof]:
    """Conflict with code `not_final` for a draft."""
    return call("GET", f"{_ONE}/proof", json_of(Proof), invoice_id=invoice_id)


def finalize(invoice_id: str, *, forced_because: str | None = None) -> Call[Invoice]:
    """Make a draft final, or answer with the invoice that is; operators only. Conflict with code
    `invoice_held`, whose errors are what holds it; a reason that is kept passes over most."""
    return call(
        "POST",
        f"{_ONE}/finalize",
        json_of(Invoice),
        body=_forced(forced_because),
        repeat=Repeat.FREELY,
        invoice_id=invoice_id,
    )


def correct(invoice_id: str, *, forced_because: str | None = None) -> Call[Invoice]:
    """Issue an invoice alone for what came late for a final one; operators only. Conflict:
    `next_invoice`, `nothing_to_correct`, `invoice_held`. Sent once: a repeat would find nothing to
    correct."""
    return call(
        "POST",
        f"{_ONE}/correct",
        json_of(Invoice),
        body=_forced(forced_because),
        repeat=Repeat.NEVER,
        invoice_id=invoice_id,
    )


def _forced(reason: str | None) -> dict[str, Any]:
    return {} if reason is None else {"force": True, "reason": reason}
