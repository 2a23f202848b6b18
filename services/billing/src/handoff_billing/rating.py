"""Usage, prices and terms → invoice lines. Pure; the only code that computes money.

The same function serves month-to-date, estimates, previews, finalization and replay. Its result is
a function of its arguments: rows may come in any order, split over any slices.

Lines, in order: connection time per region; delivery bandwidth per region (WebSocket bytes joined
with other delivery bytes *before* tiers are applied); connections that our own outage ended, at no
charge; then discount, coupon, commitment, minimum. Each line is rounded once; what follows is
computed from the rounded lines above it, so that a reader can check every step with the figures
shown.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final, Literal, NamedTuple, Protocol

from handoff_billing.money import ZERO, exact, percent_of, rounded, scaled, text
from handoff_billing.pricebook import (
    BANDWIDTH,
    MINUTES,
    MODELS,
    Package,
    PerUnit,
    Price,
    PriceBook,
    Product,
    Tier,
    Volume,
)
from handoff_billing.terms import Terms
from handoff_billing.usage import Delivered, Usage

RATER_VERSION: Final = 1
"""Rises when the same arguments would give other lines. Old raters stay in RATERS."""

LineKind = Literal[
    "usage",
    "outage",
    "discount",
    "coupon",
    "commitment_true_up",
    "commitment_overage",
    "minimum",
    "correction",
    "carried_over",
    "carried_forward",
]
"""The last three are not rated: `corrections` adds them."""


@dataclass(frozen=True, slots=True)
class Charge:
    """A part of a line at one price: `quantity` units (packages, where `per_package`) between
    `above` and `up_to` (None: no end)."""

    above: Decimal
    up_to: Decimal | None
    quantity: Decimal
    unit_price: Decimal
    exact: Decimal


class Corrects(NamedTuple):
    """What a line is about that belongs to another invoice: its number, its month, and the kind of
    its line."""

    number: str
    month_ms: int
    kind: str


@dataclass(frozen=True, slots=True)
class Line:
    """One line. `exact` is what the prices give, `amount` that rounded to the currency.

    quantity: in `unit`s, exact. raw_quantity: minutes, bytes or connections as counted.
    websocket_raw_quantity: the WebSocket share of a bandwidth line's bytes.
    unit_price: where one price applies to the whole line; `charges` has them all.
    product, region: "" where the line is about the whole invoice.
    corrects: set where the line is about another invoice.
    """

    number: int
    kind: LineKind
    description: str
    exact: Decimal
    amount: Decimal
    product: str = ""
    region: str = ""
    unit: str = ""
    raw_unit: str = ""
    quantity: Decimal = ZERO
    raw_quantity: int = 0
    websocket_raw_quantity: int | None = None
    unit_price: Decimal | None = None
    model: str = ""
    charges: tuple[Charge, ...] = ()
    coupon_code: str | None = None
    corrects: Corrects | None = None


class Rater(Protocol):
    def __call__(
        self, usage: Usage, delivery: Iterable[Delivered], price_book: PriceBook, terms: Terms
    ) -> tuple[Line, ...]: ...


def rate(
    usage: Usage, delivery: Iterable[Delivered], price_book: PriceBook, terms: Terms
) -> tuple[Line, ...]:
    """The lines of one customer's month.

    usage: of that month only, slices summed or not. delivery: one row per region, hour and source.
    """
    with exact():
        lines = [*_usage_lines(usage, delivery, price_book)]
        lines += _adjustments(total(lines), price_book, terms)
        return tuple(replace(line, number=n) for n, line in enumerate(lines, 1))


RATERS: Final[Mapping[int, Rater]] = {1: rate}


def total(lines: Iterable[Line]) -> Decimal:
    """The sum of the rounded lines."""
    with exact():
        return sum((line.amount for line in lines), ZERO)


def charges(price: Price, quantity: Decimal) -> tuple[Charge, ...]:
    """What `quantity` units cost, part by part. Nothing is rounded here, but a begun package is
    owed whole."""
    with exact():
        match price:
            case PerUnit(unit_price):
                return (Charge(ZERO, None, quantity, unit_price, quantity * unit_price),)
            case Package(size, package_price):
                whole, begun = divmod(quantity, size)
                packages = whole + 1 if begun else whole
                return (Charge(ZERO, None, packages, package_price, packages * package_price),)
            case Volume(tiers):
                return (_tier_reached(tiers, quantity),)
        return _graduated(price.tiers, quantity)


def _tier_reached(tiers: Sequence[Tier], quantity: Decimal) -> Charge:
    ends = _ends(tiers)
    at = bisect_left(ends, quantity)
    above = ends[at - 1] if at else ZERO
    unit_price = tiers[at].unit_price
    return Charge(above, tiers[at].up_to, quantity, unit_price, quantity * unit_price)


def _graduated(tiers: Sequence[Tier], quantity: Decimal) -> tuple[Charge, ...]:
    ends = _ends(tiers)
    at = bisect_left(ends, quantity)
    parts = []
    for index, tier in enumerate(tiers[: at + 1]):
        above = ends[index - 1] if index else ZERO
        inside = (ends[index] if index < at else quantity) - above
        parts.append(Charge(above, tier.up_to, inside, tier.unit_price, inside * tier.unit_price))
    return tuple(parts)


def _ends(tiers: Sequence[Tier]) -> list[Decimal]:
    """Where the tiers end; the last does not. A quantity at an end belongs to the tier below."""
    return [tier.up_to for tier in tiers if tier.up_to is not None]


def _usage_lines(usage: Usage, delivery: Iterable[Delivered], book: PriceBook) -> Iterable[Line]:
    minutes: dict[str, int] = {}
    websocket: dict[str, int] = {}
    other: dict[str, int] = {}
    lost: dict[str, int] = {}
    for key, totals in usage.items():
        minutes[key.region] = minutes.get(key.region, 0) + totals.minutes
        websocket[key.region] = websocket.get(key.region, 0) + totals.priced_bytes
        lost[key.region] = lost.get(key.region, 0) + totals.lost
    for row in delivery:
        other[row.region] = other.get(row.region, 0) + row.bytes
    for region, count in sorted(minutes.items()):
        if count:
            yield _usage_line(MINUTES, region, count, book)
    for region in sorted(websocket.keys() | other.keys()):
        share = websocket.get(region, 0)
        count = share + other.get(region, 0)
        if count:
            yield replace(_usage_line(BANDWIDTH, region, count, book), websocket_raw_quantity=share)
    for region, count in sorted(lost.items()):
        if count:
            yield Line(
                0,
                "outage",
                f"Connections ended by our own outage, {region}: billed to their last proof of "
                "life, nothing after it",
                exact=ZERO,
                amount=ZERO,
                product=MINUTES.name,
                region=region,
                unit="connections",
                raw_unit="connections",
                quantity=Decimal(count),
                raw_quantity=count,
            )


def _usage_line(product: Product, region: str, count: int, book: PriceBook) -> Line:
    quantity = scaled(count, product.power)
    price = book.price(product, region)
    parts = charges(price, quantity)
    cost = sum((part.exact for part in parts), ZERO)
    return Line(
        0,
        "usage",
        f"{product.title}, {region}",
        exact=cost,
        amount=rounded(cost, book.currency.exponent),
        product=product.name,
        region=region,
        unit=product.unit,
        raw_unit=product.raw_unit,
        quantity=quantity,
        raw_quantity=count,
        unit_price=parts[0].unit_price if len(parts) == 1 else None,
        model=MODELS[type(price)],
        charges=parts,
    )


def _adjustments(usage_total: Decimal, book: PriceBook, terms: Terms) -> Sequence[Line]:
    exponent = book.currency.exponent
    lines: list[Line] = []
    subtotal = usage_total

    def add(kind: LineKind, description: str, cost: Decimal, coupon: str | None = None) -> None:
        nonlocal subtotal
        amount = rounded(cost, exponent)
        if amount:
            lines.append(Line(0, kind, description, cost, amount, coupon_code=coupon))
            subtotal += amount

    if terms.discount_percent is not None:
        percent = terms.discount_percent
        add("discount", f"Discount {text(percent)} %", -percent_of(subtotal, percent))
    if terms.coupon is not None:
        code, share = terms.coupon.code, terms.coupon.percent
        if share is not None:
            cost = percent_of(subtotal, share)
            add("coupon", f"Coupon {code}, {text(share)} %", -cost, code)
        else:
            cost = min(terms.coupon.amount or ZERO, subtotal)
            add("coupon", f"Coupon {code}", -cost, code)
    if terms.commitment is not None:
        agreed, overage = terms.commitment.amount, terms.commitment.overage_rate
        if subtotal < agreed:
            short = agreed - subtotal
            add("commitment_true_up", f"Up to the commitment of {text(agreed)}", short)
        else:
            cost = (subtotal - agreed) * (overage - 1)
            add("commitment_overage", f"Beyond the commitment, at {text(overage)} times", cost)
    if terms.monthly_minimum is not None and subtotal < terms.monthly_minimum:
        least = terms.monthly_minimum
        add("minimum", f"Up to the monthly minimum of {text(least)}", least - subtotal)
    return lines
