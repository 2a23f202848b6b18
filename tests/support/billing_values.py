"""Price books, terms and usage for billing's tests: plain ones, and Hypothesis strategies."""

from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from handoff_billing.pricebook import (
    REGIONS,
    Currency,
    Graduated,
    Package,
    PerUnit,
    Price,
    PriceBook,
    Tier,
    Volume,
)
from handoff_billing.terms import Commitment, Coupon, Terms
from handoff_billing.usage import Delivered, Totals, UsageKey
from handoff_common.events import Counters
from handoff_common.minutes import HOUR_MS, month_bounds

OCTOBER, NOVEMBER = month_bounds(2026, 10)


def book(
    minutes: Price | None = None,
    bandwidth: Price | None = None,
    *,
    exponent: int = 2,
    regions: dict[str, Price] | None = None,
) -> PriceBook:
    """0.25 per million minutes and 0.10 per GB unless given; `regions`: prices of minutes."""
    return PriceBook(
        "test",
        1,
        "Test",
        Currency("USD", exponent),
        0,
        {
            "connection_minutes": {
                "*": minutes or PerUnit(Decimal("0.25")),
                **(regions or {}),
            },
            "delivery_bandwidth": {"*": bandwidth or PerUnit(Decimal("0.1"))},
        },
    )


def terms(**agreed: Any) -> Terms:
    return Terms("test", 0, **agreed)


def used(
    minutes: int = 0,
    *,
    region: str = "europe",
    service: str = "service",
    sent: int = 0,
    lost: int = 0,
    hour: int = 0,
) -> dict[UsageKey, Totals]:
    """One row, `hour` hours into October 2026; `sent` bytes to clients."""
    counters = Counters(resp_body_bytes=sent)
    key = UsageKey(service, region, OCTOBER + hour * HOUR_MS)
    return {key: Totals(minutes, counters, opened=1, closed=1, lost=lost)}


def delivered(count: int, *, region: str = "europe", hour: int = 0) -> Delivered:
    return Delivered(region, OCTOBER + hour * HOUR_MS, "cdn", count)


unit_prices = st.decimals(0, 1000, places=4)
quantities = st.decimals(0, 10**7, places=6)
regions = st.sampled_from(REGIONS)
months_hours = st.integers(0, 31 * 24 - 1).map(lambda n: OCTOBER + n * HOUR_MS)
counts = st.integers(0, 10**13)


@st.composite
def tiers(draw: st.DrawFn) -> tuple[Tier, ...]:
    ends = draw(st.lists(st.decimals("0.01", 10**6, places=2), max_size=4, unique=True))
    bounds: list[Decimal | None] = [*sorted(ends), None]
    return tuple(Tier(up_to, draw(unit_prices)) for up_to in bounds)


prices: st.SearchStrategy[Price] = st.one_of(
    st.builds(PerUnit, unit_prices),
    st.builds(Graduated, tiers()),
    st.builds(Volume, tiers()),
    st.builds(Package, st.decimals("0.001", 1000, places=3), unit_prices),
)


def _by_region() -> st.SearchStrategy[dict[str, Price]]:
    return st.builds(
        lambda default, some: {"*": default, **some},
        prices,
        st.dictionaries(regions, prices, max_size=3),
    )


price_books = st.builds(
    PriceBook,
    st.just("test"),
    st.integers(1, 9),
    st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=20),
    st.builds(Currency, st.sampled_from(["USD", "EUR", "JPY", "KWD"]), st.integers(0, 4)),
    st.just(OCTOBER),
    st.fixed_dictionaries({"connection_minutes": _by_region(), "delivery_bandwidth": _by_region()}),
)

_amounts = st.decimals("0.01", 10**6, places=2)
_percents = st.decimals("0.01", 100, places=2)
agreed_terms = st.builds(
    Terms,
    st.just("test"),
    st.just(OCTOBER),
    st.none() | _percents,
    st.none() | _amounts,
    st.none() | st.builds(Commitment, _amounts, st.decimals(0, 3, places=2)),
    st.none()
    | st.builds(Coupon, st.just("WELCOME"), percent=_percents)
    | st.builds(Coupon, st.just("WELCOME"), amount=_amounts),
)

totals = st.builds(
    Totals,
    counts,
    st.builds(Counters, *([st.integers(0, 10**14)] * 8)),
    st.integers(0, 1000),
    st.integers(0, 1000),
    st.integers(0, 3),
)
keys = st.builds(UsageKey, st.sampled_from(["one", "two", "three"]), regions, months_hours)
usages = st.dictionaries(keys, totals, max_size=12)
deliveries = st.lists(
    st.builds(Delivered, regions, months_hours, st.sampled_from(["cdn", "video"]), counts),
    max_size=8,
    unique_by=lambda row: row[:3],
)
