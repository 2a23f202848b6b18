"""What came late for a month that is final, as lines of a later invoice. Pure.

The whole month is rated again, with the prices, terms and rater version of its own invoice. A line
of it costs what it comes to now minus all that was billed for it before: by the month's invoice and
by every correction of it since. Both are rounded amounts, so whatever comes, in however many parts,
all that was billed for a line adds up to what rating the final usage once gives.

An invoice whose corrections are more than all else on it comes to zero: what is left over is
carried forward, and stands on the next invoice as a line of its own.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Final, NamedTuple

from handoff_billing.instants import month_text
from handoff_billing.money import ZERO, exact, read, scaled
from handoff_billing.pricebook import BANDWIDTH, PRODUCTS, PriceBook
from handoff_billing.rating import RATERS, Corrects, Line, total
from handoff_billing.terms import Terms
from handoff_billing.usage import Delivered, Usage

NOT_RATED: Final = ("correction", "carried_over", "carried_forward")
"""Kinds of lines that stand on an invoice for the sake of another one."""

_TITLES: Final[Mapping[str, str]] = {
    "outage": "connections ended by our own outage",
    "discount": "discount",
    "coupon": "coupon",
    "commitment_true_up": "up to the commitment",
    "commitment_overage": "beyond the commitment",
    "minimum": "up to the monthly minimum",
}
_KINDS: Final = ("usage", *_TITLES)
_PRODUCTS: Final = (*PRODUCTS, "")


class LineKey(NamedTuple):
    """Which line of a month: there is at most one of each."""

    kind: str
    product: str
    region: str


class Figures(NamedTuple):
    """What a line counts and costs, or by how much that has changed."""

    raw_quantity: int = 0
    websocket_raw_quantity: int = 0
    amount: Decimal = ZERO

    def plus(self, other: "Figures", sign: int = 1) -> "Figures":
        with exact():
            return Figures(
                self.raw_quantity + sign * other.raw_quantity,
                self.websocket_raw_quantity + sign * other.websocket_raw_quantity,
                self.amount + sign * other.amount,
            )


NOTHING: Final = Figures()


@dataclass(frozen=True, slots=True)
class Billed:
    """What one invoice has billed for a month, line by line."""

    number: str
    lines: Mapping[LineKey, Figures] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Correction:
    """A final month with the rows of now. billed: its own invoice, then each that corrected it."""

    month_ms: int
    price_book: PriceBook
    terms: Terms
    rater_version: int
    usage: Usage
    delivery: Sequence[Delivered]
    billed: Sequence[Billed]

    @property
    def number(self) -> str:
        """Of the invoice that is corrected."""
        return self.billed[0].number

    def rated(self) -> tuple[Line, ...]:
        """The lines that the month has now."""
        rater = RATERS[self.rater_version]
        return rater(self.usage, self.delivery, self.price_book, self.terms)


@dataclass(frozen=True, slots=True)
class Carried:
    """What an invoice has carried forward, more than zero."""

    number: str
    month_ms: int
    amount: Decimal


def billed_by(document: Mapping[str, Any], number: str, about: str) -> Billed:
    """What the invoice `number` with this content has billed for the month of the invoice `about`.

    Raises KeyError, TypeError or ValueError for what is no content document.
    """
    found: dict[LineKey, Figures] = {}
    for line in document["lines"]:
        corrects = line.get("corrects")
        if line["kind"] == "correction" and corrects["invoice"] == about:
            kind = corrects["kind"]
        elif number == about and line["kind"] not in NOT_RATED:
            kind = line["kind"]
        else:
            continue
        key = LineKey(kind, line["product"], line["region"])
        found[key] = found.get(key, NOTHING).plus(figures_of(line))
    return Billed(number, found)


def figures_of(line: Mapping[str, Any]) -> Figures:
    """The figures of a line document; raises as `billed_by` does."""
    return Figures(
        int(line["raw_quantity"]),
        int(line["websocket_raw_quantity"] or 0),
        read(line["amount"]),
    )


def changes(correction: Correction) -> dict[LineKey, Figures]:
    """What each line of the month comes to now minus all that was billed for it, in the order of
    lines; only where there is a difference."""
    found: dict[LineKey, Figures] = {}
    for line in correction.rated():
        key = LineKey(line.kind, line.product, line.region)
        now = Figures(line.raw_quantity, line.websocket_raw_quantity or 0, line.amount)
        found[key] = found.get(key, NOTHING).plus(now)
    for one in correction.billed:
        for key, figures in one.lines.items():
            found[key] = found.get(key, NOTHING).plus(figures, -1)
    return {key: found[key] for key in sorted(found, key=in_order) if found[key] != NOTHING}


def in_order(key: LineKey) -> tuple[int, int, str]:
    """Sorts keys as the lines of an invoice are sorted."""
    return _KINDS.index(key.kind), _PRODUCTS.index(key.product), key.region


def correction_lines(correction: Correction) -> tuple[Line, ...]:
    """The lines that bill what has changed; none where nothing has."""
    return tuple(_line(correction, key, change) for key, change in changes(correction).items())


def complete(
    rated: Iterable[Line],
    corrections: Iterable[Correction],
    carried: Iterable[Carried],
    *,
    alone: bool = False,
) -> tuple[Line, ...]:
    """All lines of an invoice, numbered: rated ones, corrections by month, what was carried over;
    and where they come to less than zero, what is carried forward.

    alone: the invoice is issued only to correct another one. It may be less than zero, as there is
    no next one that it could be carried to.
    """
    lines = [*rated]
    for correction in sorted(corrections, key=lambda one: one.month_ms):
        lines += correction_lines(correction)
    for one in sorted(carried, key=lambda one: (one.month_ms, one.number)):
        lines.append(_carried_over(one))
    left = total(lines)
    if left < 0 and not alone:
        with exact():
            cost = -left
        text = "Carried forward to the next invoice"
        lines.append(Line(0, "carried_forward", text, exact=cost, amount=cost))
    return tuple(replace(line, number=n) for n, line in enumerate(lines, 1))


def carried_forward(lines: Iterable[Mapping[str, Any]]) -> Decimal:
    """What the line documents of an invoice carry forward; zero where there is nothing."""
    with exact():
        return sum((read(one["amount"]) for one in lines if one["kind"] == "carried_forward"), ZERO)


def _line(correction: Correction, key: LineKey, change: Figures) -> Line:
    product = PRODUCTS[key.product] if key.kind == "usage" else None
    if product is not None:
        title, unit, raw_unit = product.title, product.unit, product.raw_unit
        quantity = scaled(change.raw_quantity, product.power)
    else:
        title = _TITLES[key.kind]
        unit = raw_unit = "connections" if key.kind == "outage" else ""
        quantity = Decimal(change.raw_quantity)
    where = f", {key.region}" if key.region else ""
    month = month_text(correction.month_ms)
    return Line(
        0,
        "correction",
        f"Correction of {correction.number}, {month}: {title}{where}",
        # A difference of rounded amounts: there is nothing left to round.
        exact=change.amount,
        amount=change.amount,
        product=key.product,
        region=key.region,
        unit=unit,
        raw_unit=raw_unit,
        quantity=quantity,
        raw_quantity=change.raw_quantity,
        websocket_raw_quantity=change.websocket_raw_quantity if product is BANDWIDTH else None,
        corrects=Corrects(correction.number, correction.month_ms, key.kind),
    )


def _carried_over(one: Carried) -> Line:
    with exact():
        cost = -one.amount
    return Line(
        0,
        "carried_over",
        f"Carried over from {one.number}, {month_text(one.month_ms)}",
        exact=cost,
        amount=cost,
        corrects=Corrects(one.number, one.month_ms, "carried_forward"),
    )
