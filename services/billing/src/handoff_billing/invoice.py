"""The invoice as a document: its content, its hashes, and what holds it open. Pure.

The content holds by value all that the amount depends on, so that it can be computed again from the
document and the log alone. What is decided at issue (ids, number, issue time, status, who
finalized, log positions) stays outside. Counts and money are strings, so no reader's numbers can
bend them; the only JSON numbers are small integers (exponent, line numbers, versions).
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import rfc8785

from handoff_billing import pricebook, terms
from handoff_billing.corrections import NOT_RATED, Billed, Carried, Correction, in_order
from handoff_billing.money import text
from handoff_billing.pricebook import PriceBook
from handoff_billing.rating import RATER_VERSION, Charge, Line, total
from handoff_billing.terms import Terms
from handoff_billing.usage import Delivered, Usage
from handoff_common.events import COUNTER_NAMES
from handoff_common.instants import rfc3339
from handoff_common.minutes import next_month

DOCUMENT_TYPE: Final = "handoff.invoice.v1"
CORRECTION_TYPE: Final = "handoff.correction.v1"
"""The content of an invoice that is issued only to correct another: it rates no month of its own.
Its period, prices and terms are those of the invoice that it corrects."""
DOCUMENT_TYPES: Final = (DOCUMENT_TYPE, CORRECTION_TYPE)
NO_CHAIN: Final = "0" * 64
"""The previous chain hash of the first invoice of a series."""

USAGE_COLUMNS: Final = (
    "service_id",
    "region",
    "hour",
    "minutes",
    *COUNTER_NAMES,
    "opened",
    "closed",
    "lost",
)
DELIVERY_COLUMNS: Final = ("region", "hour", "source", "bytes")


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose month: what an invoice is about, apart from usage and prices."""

    customer_id: str
    customer_name: str
    month_ms: int


def content_document(
    subject: Subject,
    price_book: PriceBook,
    agreed: Terms,
    usage: Usage,
    delivery: Iterable[Delivered],
    lines: Sequence[Line],
    *,
    rater_version: int = RATER_VERSION,
    corrections: Iterable[Correction] = (),
    carried: Iterable[Carried] = (),
    alone: bool = False,
) -> dict[str, Any]:
    """The content as JSON values, the same for equal arguments in any order.

    usage: slices summed (`usage.summed`). corrections, carried: what `corrections.complete` made
    the lines from; they have no place in a document without any, so that such a document is to the
    byte what it was before there were corrections. alone: as there.
    """
    amended: dict[str, Any] = {}
    corrected = sorted(corrections, key=lambda one: one.month_ms)
    if corrected:
        amended["corrections"] = [_correction_document(one) for one in corrected]
    over = sorted(carried, key=lambda one: (one.month_ms, one.number))
    if over:
        amended["carried"] = [_carried_document(one) for one in over]
    return {
        "document": CORRECTION_TYPE if alone else DOCUMENT_TYPE,
        "rater_version": rater_version,
        "customer": {"id": subject.customer_id, "name": subject.customer_name},
        "period": _period(subject.month_ms),
        "currency": {
            "code": price_book.currency.code,
            "exponent": price_book.currency.exponent,
        },
        "price_book": pricebook.document(price_book),
        "terms": terms.document(agreed),
        "usage": _usage_document(usage),
        "delivery": _delivery_document(delivery),
        **amended,
        "credits": [],
        "lines": [line_document(line) for line in lines],
        "totals": totals_document(lines),
    }


def _period(month_ms: int) -> dict[str, str]:
    return {"start": rfc3339(month_ms), "end": rfc3339(next_month(month_ms))}


def _usage_document(usage: Usage) -> dict[str, Any]:
    return {
        "columns": list(USAGE_COLUMNS),
        "rows": [
            [
                key.service_id,
                key.region,
                rfc3339(key.hour_ms),
                *map(str, (t.minutes, *t.counters, t.opened, t.closed, t.lost)),
            ]
            for key, t in sorted(usage.items())
        ],
    }


def _delivery_document(delivery: Iterable[Delivered]) -> dict[str, Any]:
    return {
        "columns": list(DELIVERY_COLUMNS),
        "rows": [
            [row.region, rfc3339(row.hour_ms), row.source, str(row.bytes)]
            for row in sorted(delivery)
            if row.bytes
        ],
    }


def _correction_document(correction: Correction) -> dict[str, Any]:
    """All that a correction's lines depend on, by value."""
    return {
        "invoice": correction.number,
        "period": _period(correction.month_ms),
        "rater_version": correction.rater_version,
        "price_book": pricebook.document(correction.price_book),
        "terms": terms.document(correction.terms),
        "usage": _usage_document(correction.usage),
        "delivery": _delivery_document(correction.delivery),
        "lines": [line_document(line) for line in correction.rated()],
        "billed": [billed_document(one) for one in correction.billed],
    }


def billed_document(billed: Billed) -> dict[str, Any]:
    """What one invoice has billed for a month, as JSON values."""
    return {
        "invoice": billed.number,
        "lines": [
            {
                "kind": key.kind,
                "product": key.product,
                "region": key.region,
                "raw_quantity": str(figures.raw_quantity),
                "websocket_raw_quantity": str(figures.websocket_raw_quantity),
                "amount": text(figures.amount),
            }
            for key, figures in sorted(billed.lines.items(), key=lambda item: in_order(item[0]))
        ],
    }


def _carried_document(carried: Carried) -> dict[str, str]:
    return {
        "invoice": carried.number,
        "period_start": rfc3339(carried.month_ms),
        "amount": text(carried.amount),
    }


def line_document(line: Line) -> dict[str, Any]:
    """A line as JSON values; `corrects` is there only where it is about another invoice."""
    corrects = line.corrects
    about = (
        {}
        if corrects is None
        else {
            "corrects": {
                "invoice": corrects.number,
                "period_start": rfc3339(corrects.month_ms),
                "kind": corrects.kind,
            }
        }
    )
    return {
        "number": line.number,
        "kind": line.kind,
        "description": line.description,
        "product": line.product,
        "region": line.region,
        "unit": line.unit,
        "quantity": text(line.quantity),
        "raw_unit": line.raw_unit,
        "raw_quantity": str(line.raw_quantity),
        "websocket_raw_quantity": None
        if line.websocket_raw_quantity is None
        else str(line.websocket_raw_quantity),
        "model": line.model,
        "unit_price": _or_none(line.unit_price),
        "tiers": [_charge_document(charge) for charge in line.charges],
        "exact": text(line.exact),
        "amount": text(line.amount),
        "coupon_code": line.coupon_code,
        **about,
    }


def totals_document(lines: Sequence[Line]) -> dict[str, str]:
    """`usage`, `adjustments` and, where there are any, `corrections` (with what is carried) add up
    to `total`, all sums of rounded lines."""
    used = [line for line in lines if line.kind in ("usage", "outage")]
    other = [line for line in lines if line.kind in NOT_RATED]
    adjusted = [x for x in lines if x.kind not in ("usage", "outage", *NOT_RATED)]
    return {
        "usage": text(total(used)),
        "adjustments": text(total(adjusted)),
        **({"corrections": text(total(other))} if other else {}),
        "total": text(total(lines)),
    }


def _charge_document(charge: Charge) -> dict[str, Any]:
    return {
        "above": text(charge.above),
        "up_to": _or_none(charge.up_to),
        "quantity": text(charge.quantity),
        "unit_price": text(charge.unit_price),
        "exact": text(charge.exact),
    }


def canonical(document: Mapping[str, Any]) -> str:
    """RFC 8785: the one text of these values. Raises ValueError for a float."""
    _refuse_floats(document)
    return rfc8785.dumps(dict(document)).decode()


def content_hash(content: str) -> str:
    """SHA-256 of the canonical text, hex."""
    return hashlib.sha256(content.encode()).hexdigest()


def link_document(
    *,
    previous: str,
    number: str,
    issued_at_ms: int,
    positions: Mapping[str, int],
    content_hash: str,
) -> dict[str, Any]:
    """What binds an invoice to the one before it, as JSON values.

    previous: chain hash of the invoice before in the series, NO_CHAIN for the first.
    positions: slice → next offset of the connections partition, as decimal strings in the object.
    """
    return {
        "previous_chain_hash": previous,
        "number": number,
        "issued_at": rfc3339(issued_at_ms),
        "positions": {slice_: str(offset) for slice_, offset in positions.items()},
        "content_hash": content_hash,
    }


def chain_hash(link: Mapping[str, Any]) -> str:
    """SHA-256, hex, of a link's canonical text: no invoice can be taken out, put in, renumbered or
    re-dated without changing all that follow."""
    return hashlib.sha256(canonical(link).encode()).hexdigest()


def number_of(series: str, year: int, counter: int) -> str:
    """`INV-2026-000001`: gapless per series and year of issue."""
    return f"{series}-{year:04d}-{counter:06d}"


def _refuse_floats(value: Any) -> None:
    if isinstance(value, float):
        raise ValueError(f"a float in a canonical document: {value!r}")
    if isinstance(value, Mapping):
        for inner in value.values():
            _refuse_floats(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _refuse_floats(inner)


def _or_none(value: Decimal | None) -> str | None:
    return None if value is None else text(value)
