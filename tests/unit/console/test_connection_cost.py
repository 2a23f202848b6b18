"""What a connection costs, at the rate that the month has reached."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handoff_client.prices import Currency, Price, PriceBook, Tier
from handoff_console.connection_cost import rates_of, unit_price

GRADUATED = Price(
    model="graduated",
    tiers=(
        Tier(up_to=Decimal(1), unit_price=Decimal("0.30")),
        Tier(up_to=Decimal(5), unit_price=Decimal("0.20")),
        Tier(up_to=None, unit_price=Decimal("0.10")),
    ),
)


def book(**prices: Price) -> PriceBook:
    entries = {name.replace("every", "*"): price for name, price in prices.items()}
    return PriceBook(
        price_book_id="b",
        version=1,
        name="b",
        effective_from="2026-01",
        currency=Currency(code="USD", exponent=2),
        prices={"connection_minutes": entries, "delivery_bandwidth": {}},
    )


@pytest.mark.parametrize(
    ("minutes", "expected"),
    [
        (0, "0.30"),
        (999_999, "0.30"),
        (1_000_000, "0.30"),
        (1_000_001, "0.20"),
        (5_000_000, "0.20"),
        (5_000_001, "0.10"),
        (10**12, "0.10"),
    ],
)
def test_the_tier_that_the_month_has_reached(minutes: int, expected: str) -> None:
    assert unit_price(GRADUATED, minutes) == Decimal(expected)


def test_a_share_of_a_package_and_a_model_of_a_later_release() -> None:
    package = Price(model="package", package_size=Decimal(4), package_price=Decimal(1))
    assert unit_price(package, 7) == Decimal("0.25")
    assert unit_price(Price(model="by moon phase"), 7) is None


def test_each_region_has_its_own_price_and_its_own_minutes() -> None:
    rates = rates_of(
        book(every=GRADUATED, anzac=Price(model="per_unit", unit_price=Decimal("0.4"))),
        {"europe": 1_000_001, "usa": 5},
    )
    assert rates.currency == "USD" and rates.tiered
    assert rates.cost("europe", 3) == Decimal("0.0000006")
    assert rates.cost("usa", 3) == Decimal("0.0000009")
    assert rates.cost("asia", 1) == Decimal("0.0000003"), "no minutes yet: the first tier"
    assert rates.cost("anzac", 10) == Decimal("0.000004")


def test_without_a_price_there_is_no_cost() -> None:
    assert rates_of(book(), {"usa": 1}).cost("usa", 1) is None


@given(
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.decimals("0", "1000", places=10, allow_nan=False),
)
def test_costs_are_exact_and_add_up(one: int, other: int, price: Decimal) -> None:
    rates = rates_of(book(every=Price(model="per_unit", unit_price=price)), {})
    both = rates.cost("usa", one + other)
    first, second = rates.cost("usa", one), rates.cost("usa", other)
    assert first is not None and second is not None and both == first + second
    assert both == price * (one + other) / 1_000_000
