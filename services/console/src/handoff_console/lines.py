"""How a line of an invoice comes to its amount, so that a person can add it up. Pure."""

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

from handoff_client.invoices import Line, LineTier
from handoff_console.formats import exact_money, number

DERIVED = frozenset({"correction", "carried_over", "carried_forward"})
"""Kinds of lines that are about other invoices."""


class Step(NamedTuple):
    """quantity × unit_price = exact. which: the units that have this price."""

    which: str
    quantity: Decimal
    unit_price: Decimal
    exact: Decimal


class Explained(NamedTuple):
    """sentence: the whole line in words, "" where it has no prices. steps: with their exact amounts
    they add up to the line's. rounded: whether its amount differs from that."""

    sentence: str
    steps: tuple[Step, ...]
    rounded: bool


def explain(line: Line, currency: str) -> Explained:
    """Of any line. A line of a correction has steps only where it has tiers of its own."""
    steps = tuple(
        Step(_which(line, tier), tier.quantity, tier.unit_price, tier.exact) for tier in line.tiers
    )
    sentence = _sentence(line, currency) if line.tiers else ""
    return Explained(sentence, steps, line.exact != line.amount)


def _which(line: Line, tier: LineTier) -> str:
    if line.model == "package":
        return "packages"
    if line.model == "volume":
        return _volume(tier)
    if tier.above:
        return f"next, above {number(tier.above)}"
    return "all" if len(line.tiers) == 1 else "first"


def _volume(tier: LineTier) -> str:
    if tier.up_to is None:
        return f"all, since more than {number(tier.above)}" if tier.above else "all"
    if tier.above:
        return f"all, since between {number(tier.above)} and {number(tier.up_to)}"
    return f"all, since not more than {number(tier.up_to)}"


def _sentence(line: Line, currency: str) -> str:
    first = line.tiers[0]
    price = exact_money(first.unit_price, currency)
    quantity = f"{number(line.quantity)} {line.unit}"
    if line.model == "package":
        many = "package" if first.quantity == 1 else "packages"
        packages = f"{number(first.quantity)} {many} at {price}"
        return f"{quantity}: {packages}; one that is begun counts whole"
    if line.model == "volume":
        return f"{quantity}, {_volume(first)}: at {price} each"
    if len(line.tiers) == 1:
        return f"{quantity} at {price}"
    return f"{quantity}: {_parts(line.tiers, currency)}"


def _parts(tiers: Sequence[LineTier], currency: str) -> str:
    parts = [
        f"{'next' if tier.above else 'first'} {number(tier.quantity)} at "
        f"{exact_money(tier.unit_price, currency)}"
        for tier in tiers
    ]
    return ", ".join(parts)
