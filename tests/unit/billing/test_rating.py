"""What usage costs: worked examples, and what holds for every price book and usage."""

from decimal import Decimal
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handoff_billing.money import exact, rounded
from handoff_billing.pricebook import Graduated, Package, PerUnit, Price, PriceBook, Tier, Volume
from handoff_billing.rating import Line, charges, rate, total
from handoff_billing.terms import Commitment, Coupon, Terms
from handoff_billing.usage import Delivered, Totals, UsageKey
from support.billing_values import (
    agreed_terms,
    book,
    delivered,
    deliveries,
    price_books,
    prices,
    quantities,
    terms,
    tiers,
    unit_prices,
    usages,
    used,
)

TIERS = (
    Tier(Decimal(10), Decimal("0.5")),
    Tier(Decimal(100), Decimal("0.3")),
    Tier(None, Decimal("0.1")),
)


def cost(price: Price, quantity: str) -> str:
    with exact():
        return str(sum((c.exact for c in charges(price, Decimal(quantity))), Decimal(0)))


def kinds(lines: tuple[Line, ...]) -> list[tuple[str, str]]:
    return [(line.kind, str(line.amount)) for line in lines]


def test_a_quarter_per_million_minutes() -> None:
    [line] = rate(used(1_234_567), [], book(), terms())
    assert (line.kind, line.product, line.region) == ("usage", "connection_minutes", "europe")
    assert line.quantity == Decimal("1.234567")
    assert line.raw_quantity == 1_234_567
    assert line.exact == Decimal("0.30864175")
    assert str(line.amount) == "0.31"
    assert line.unit_price == Decimal("0.25")


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [
        ("0", "0"),
        ("10", "5"),
        ("10.000001", "5.0000003"),
        ("100", "32"),
        ("1000", "122"),
    ],
)
def test_graduated_tiers_price_each_part_by_itself(quantity: str, expected: str) -> None:
    assert Decimal(cost(Graduated(TIERS), quantity)) == Decimal(expected)


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [("10", "5"), ("10.000001", "3.0000003"), ("100", "30"), ("1000", "100")],
)
def test_volume_tiers_price_all_by_the_tier_reached(quantity: str, expected: str) -> None:
    assert Decimal(cost(Volume(TIERS), quantity)) == Decimal(expected)


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [("0.000001", "7"), ("5", "7"), ("5.000001", "14"), ("15", "21")],
)
def test_a_begun_package_is_owed_whole(quantity: str, expected: str) -> None:
    assert Decimal(cost(Package(Decimal(5), Decimal(7)), quantity)) == Decimal(expected)


def test_websocket_bytes_join_other_delivery_before_tiers() -> None:
    price = Graduated((Tier(Decimal(1), Decimal(1)), Tier(None, Decimal("0.1"))))
    usage = used(sent=600_000_000)
    [line] = rate(usage, [delivered(900_000_000)], book(bandwidth=price), terms())
    assert line.product == "delivery_bandwidth"
    assert line.raw_quantity == 1_500_000_000
    assert line.websocket_raw_quantity == 600_000_000
    assert line.exact == Decimal("1.05")
    assert [(str(c.quantity), str(c.unit_price)) for c in line.charges] == [
        ("1", "1"),
        ("0.500000000", "0.1"),
    ]
    assert line.unit_price is None


def test_bandwidth_is_what_the_edge_sends() -> None:
    [(key, totals)] = used().items()
    counters = totals.counters._replace(
        req_header_bytes=1,
        req_body_bytes=2,
        resp_header_bytes=10,
        resp_body_bytes=20,
        bereq_header_bytes=100,
        bereq_body_bytes=200,
        beresp_header_bytes=4,
        beresp_body_bytes=5,
    )
    [line] = rate({key: totals._replace(counters=counters)}, [], book(), terms())
    assert line.raw_quantity == 330


def test_a_region_has_its_own_price_or_the_default_one() -> None:
    prices_of = book(regions={"anzac": PerUnit(Decimal(2))})
    usage = used(1_000_000, region="anzac") | used(1_000_000, region="a new region")
    lines = rate(usage, [], prices_of, terms())
    assert [(line.region, str(line.amount)) for line in lines] == [
        ("a new region", "0.25"),
        ("anzac", "2.00"),
    ]


def test_connections_lost_to_our_own_outage_are_listed_at_no_charge() -> None:
    lines = rate(used(1_000_000, lost=3), [], book(), terms())
    assert kinds(lines) == [("usage", "0.25"), ("outage", "0")]
    assert (lines[1].raw_quantity, lines[1].raw_unit) == (3, "connections")


def test_nothing_used_and_nothing_agreed_is_no_line() -> None:
    assert rate({}, [], book(), terms()) == ()
    assert total(()) == 0


@pytest.mark.parametrize(
    ("agreed", "expected"),
    [
        ({"discount_percent": Decimal("12.5")}, [("discount", "-1.25")]),
        (
            {
                "discount_percent": Decimal(10),
                "coupon": Coupon("WELCOME", percent=Decimal(50)),
            },
            [("discount", "-1.00"), ("coupon", "-4.50")],
        ),
        ({"coupon": Coupon("WELCOME", amount=Decimal(4))}, [("coupon", "-4.00")]),
        ({"coupon": Coupon("WELCOME", amount=Decimal(40))}, [("coupon", "-10.00")]),
        ({"monthly_minimum": Decimal(25)}, [("minimum", "15.00")]),
        ({"monthly_minimum": Decimal(5)}, []),
        (
            {"commitment": Commitment(Decimal(30), Decimal(1))},
            [("commitment_true_up", "20.00")],
        ),
        (
            {"commitment": Commitment(Decimal(4), Decimal("1.5"))},
            [("commitment_overage", "3.00")],
        ),
        (
            {"commitment": Commitment(Decimal(4), Decimal("0.5"))},
            [("commitment_overage", "-3.00")],
        ),
        ({"commitment": Commitment(Decimal(10), Decimal(2))}, []),
        (
            {
                "discount_percent": Decimal(50),
                "commitment": Commitment(Decimal(8), Decimal(1)),
                "monthly_minimum": Decimal(9),
            },
            [("discount", "-5.00"), ("commitment_true_up", "3.00"), ("minimum", "1.00")],
        ),
    ],
)
def test_what_is_agreed_comes_after_usage_in_its_order(
    agreed: dict[str, object], expected: list[tuple[str, str]]
) -> None:
    lines = rate(used(40_000_000), [], book(), Terms("test", 0, **agreed))  # type: ignore[arg-type]
    assert kinds(lines) == [("usage", "10.00"), *expected]


def test_a_minimum_is_owed_without_usage() -> None:
    lines = rate({}, [], book(), terms(monthly_minimum=Decimal(5)))
    assert kinds(lines) == [("minimum", "5.00")]


def test_a_currency_without_decimals() -> None:
    [line] = rate(used(2_000_000), [], book(exponent=0), terms())
    assert (line.exact, str(line.amount)) == (Decimal("0.5"), "1")


@settings(max_examples=80)
@given(usages, deliveries, price_books, agreed_terms)
def test_lines_add_up_and_each_is_rounded_once(
    usage: dict[UsageKey, Totals], delivery: list[Delivered], prices_of: PriceBook, agreed: Terms
) -> None:
    lines = rate(usage, delivery, prices_of, agreed)
    exponent = prices_of.currency.exponent
    with exact():
        assert total(lines) == sum((line.amount for line in lines), Decimal(0))
        for line in lines:
            assert line.amount == rounded(line.exact, exponent)
            if line.kind == "usage":
                assert line.exact == sum((c.exact for c in line.charges), Decimal(0))
    assert total(lines) >= 0
    assert [line.number for line in lines] == list(range(1, len(lines) + 1))
    if agreed.monthly_minimum is not None:
        assert total(lines) >= rounded(agreed.monthly_minimum, exponent)


@settings(max_examples=60)
@given(usages, deliveries, price_books, agreed_terms, st.randoms(use_true_random=False))
def test_the_order_and_the_grain_of_rows_do_not_matter(
    usage: dict[UsageKey, Totals],
    delivery: list[Delivered],
    prices_of: PriceBook,
    agreed: Terms,
    random: Random,
) -> None:
    expected = rate(usage, delivery, prices_of, agreed)
    items, rows = list(usage.items()), list(delivery)
    random.shuffle(items)
    random.shuffle(rows)
    assert rate(dict(items), rows, prices_of, agreed) == expected
    by_region: dict[UsageKey, Totals] = {}
    for key, counted in items:
        whole = UsageKey("", key.region, 0)
        by_region[whole] = by_region.get(whole, Totals()).plus(counted)
    assert rate(by_region, rows, prices_of, agreed) == expected


@given(prices, quantities, quantities)
def test_using_more_never_costs_less_but_by_volume_tiers(
    price: Price, one: Decimal, other: Decimal
) -> None:
    low, high = sorted((one, other))
    with exact():
        costs = [
            sum((c.exact for c in charges(price, quantity)), Decimal(0)) for quantity in (low, high)
        ]
    if not isinstance(price, Volume):
        assert costs[0] <= costs[1]


@given(tiers(), st.data())
def test_graduated_tiers_have_no_jump(given_tiers: tuple[Tier, ...], data: st.DataObject) -> None:
    price, step = Graduated(given_tiers), Decimal("0.000001")
    ends = [tier.up_to for tier in given_tiers if tier.up_to is not None]
    at = data.draw(st.sampled_from(ends)) if ends else data.draw(quantities)
    highest = max(tier.unit_price for tier in given_tiers)
    with exact():
        below, above = (
            sum((c.exact for c in charges(price, q)), Decimal(0)) for q in (at, at + step)
        )
        assert Decimal(0) <= above - below <= highest * step


@given(unit_prices, quantities)
def test_one_tier_is_a_price_per_unit(unit_price: Decimal, quantity: Decimal) -> None:
    expected = Decimal(cost(PerUnit(unit_price), str(quantity)))
    one = (Tier(None, unit_price),)
    assert Decimal(cost(Graduated(one), str(quantity))) == expected
    assert Decimal(cost(Volume(one), str(quantity))) == expected
