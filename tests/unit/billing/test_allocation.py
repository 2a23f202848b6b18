"""What each service costs: worked examples, and that nothing is lost or made up."""

from collections.abc import Mapping, Sequence
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handoff_billing.allocation import Costs, allocate, shared
from handoff_billing.corrections import complete
from handoff_billing.invoice import line_document
from handoff_billing.money import exact
from handoff_billing.pricebook import PriceBook
from handoff_billing.rating import Line, rate, total
from handoff_billing.terms import Terms
from handoff_billing.usage import Delivered, Totals, Usage, UsageKey
from support.billing_values import (
    agreed_terms,
    book,
    delivered,
    deliveries,
    price_books,
    terms,
    usages,
    used,
)


def costs_of(lines: Sequence[Line], usage: Usage, exponent: int = 2) -> Costs:
    return allocate([line_document(line) for line in lines], usage, exponent)


def amounts(costs: Costs) -> dict[str, str]:
    return {one.service_id: str(one.amount) for one in costs.services}


def everything(costs: Costs) -> Decimal:
    with exact():
        return sum(
            [*(one.amount for one in costs.services), *costs.unassigned.values()], Decimal(0)
        )


@pytest.mark.parametrize(
    ("amount", "weights", "parts"),
    [
        ("1.00", [1, 1, 1], ["0.34", "0.33", "0.33"]),
        ("1.00", [1, 1, 1, 0], ["0.34", "0.33", "0.33", "0.00"]),
        ("0.01", [1, 2], ["0.00", "0.01"]),
        ("0.02", [5, 5, 6], ["0.01", "0.00", "0.01"]),
        ("-1.00", [1, 2], ["-0.33", "-0.67"]),
        ("0", [3, 4], ["0.00", "0.00"]),
    ],
)
def test_what_is_left_goes_to_the_largest_remainders(
    amount: str, weights: list[int], parts: list[str]
) -> None:
    assert [str(part) for part in shared(Decimal(amount), weights, 2)] == parts


@given(
    st.integers(-(10**15), 10**15),
    st.lists(st.integers(0, 10**13), min_size=1, max_size=20).filter(any),
    st.integers(0, 4),
)
def test_parts_add_up_and_are_less_than_a_unit_from_the_exact_share(
    units: int, weights: list[int], exponent: int
) -> None:
    amount = Decimal(units).scaleb(-exponent)
    parts = [int(part.scaleb(exponent)) for part in shared(amount, weights, exponent)]
    assert sum(parts) == units
    whole = sum(weights)
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part * whole - units * weight) < whole
        assert weight or not part


def test_connection_time_is_shared_by_minutes() -> None:
    usage = {
        **used(1_000_000, service="chat"),
        **used(2_000_000, service="chat", hour=1),
        **used(1_000_000, service="game"),
        **used(5_000_000, service="game", region="usa"),
    }
    costs = costs_of(rate(usage, [], book(), terms()), usage)
    assert amounts(costs) == {"chat": "0.75", "game": "1.50"}
    assert [(one.minutes, one.websocket_bytes) for one in costs.services] == [
        (3_000_000, 0),
        (6_000_000, 0),
    ]
    assert costs.unassigned == {}


def test_bandwidth_of_other_delivery_belongs_to_no_service() -> None:
    gigabyte = 1_000_000_000
    usage = {**used(sent=gigabyte, service="chat"), **used(sent=2 * gigabyte, service="game")}
    costs = costs_of(rate(usage, [delivered(7 * gigabyte)], book(), terms()), usage)
    assert amounts(costs) == {"chat": "0.10", "game": "0.20"}
    assert costs.unassigned == {"delivery": Decimal("0.70")}


def test_what_is_agreed_for_the_whole_belongs_to_no_service() -> None:
    agreed = terms(discount_percent=Decimal(10), monthly_minimum=Decimal(5))
    usage = used(8_000_000, service="chat")
    costs = costs_of(rate(usage, [], book(), agreed), usage)
    assert amounts(costs) == {"chat": "2.00"}
    assert costs.unassigned == {"discount": Decimal("-0.20"), "minimum": Decimal("3.20")}


def test_a_service_that_cost_nothing_is_there() -> None:
    usage = used(1, service="chat")
    costs = costs_of(rate(usage, [], book(), terms()), usage)
    assert amounts(costs) == {"chat": "0.00"}


def test_without_lines_there_is_usage_and_no_money() -> None:
    """As where no prices are in force."""
    costs = costs_of([], used(7, service="chat"))
    assert [(one.service_id, one.minutes, one.amount) for one in costs.services] == [
        ("chat", 7, Decimal(0))
    ]


@given(usages, deliveries, price_books, agreed_terms)
def test_services_and_what_is_unassigned_add_up_to_the_invoice(
    usage: Mapping[UsageKey, Totals],
    delivery: list[Delivered],
    prices: PriceBook,
    agreed: Terms,
) -> None:
    lines = complete(rate(usage, delivery, prices, agreed), [], [])
    costs = costs_of(lines, usage, prices.currency.exponent)
    assert everything(costs) == total(lines)
    with exact():
        timed = [line for line in lines if line.kind == "usage"]
        assert sum((one.amount for one in costs.services), Decimal(0)) <= total(timed)
    assert all(one.amount >= 0 for one in costs.services)
    assert {one.service_id for one in costs.services} == {key.service_id for key in usage}


@given(usages, deliveries, price_books)
def test_the_order_of_rows_does_not_matter(
    usage: Mapping[UsageKey, Totals], delivery: list[Delivered], prices: PriceBook
) -> None:
    lines = rate(usage, delivery, prices, terms())
    other = dict(sorted(usage.items(), reverse=True))
    exponent = prices.currency.exponent
    assert costs_of(lines, usage, exponent) == costs_of(lines, other, exponent)
