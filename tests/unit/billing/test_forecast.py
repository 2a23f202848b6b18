"""What a month is expected to come to: worked examples, and what holds whatever was used."""

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from handoff_billing.forecast import Forecast, complete_through, expect, reach
from handoff_billing.money import ZERO
from handoff_billing.pricebook import Graduated, Package, PerUnit, PriceBook, Tier
from handoff_billing.rating import rate, total
from handoff_billing.terms import Terms
from handoff_billing.usage import Delivered, Totals, Usage, UsageKey, summed
from handoff_common.events import Counters
from handoff_common.minutes import DAY_MS, HOUR_MS
from support.billing_values import NOVEMBER, OCTOBER, agreed_terms, book, terms

DAYS = 31
REGIONS = ("europe", "usa")


class Used(NamedTuple):
    """One hour's usage in one region."""

    hour_ms: int
    region: str
    minutes: int
    sent: int
    delivered: int


def rows(every: Sequence[Used]) -> tuple[Usage, list[Delivered]]:
    usage = summed(
        (
            UsageKey("", one.region, one.hour_ms),
            Totals(one.minutes, Counters(bereq_body_bytes=one.sent)),
        )
        for one in every
    )
    delivery = [
        Delivered(one.region, one.hour_ms, f"source {at}", one.delivered)
        for at, one in enumerate(every)
        if one.delivered
    ]
    return usage, delivery


def forecast(every: Sequence[Used], through_ms: int) -> Forecast:
    usage, delivery = rows(every)
    return expect(usage, delivery, month_ms=OCTOBER, through_ms=through_ms)


def figures(usage: Usage, delivery: Sequence[Delivered]) -> dict[tuple[str, str], int]:
    """What is rated of October, by region and what it is."""
    found: dict[tuple[str, str], int] = {}
    for key, totals in usage.items():
        if OCTOBER <= key.hour_ms < NOVEMBER:
            for what, n in (("minutes", totals.minutes), ("sent", totals.priced_bytes)):
                found[key.region, what] = found.get((key.region, what), 0) + n
    for row in delivery:
        if OCTOBER <= row.hour_ms < NOVEMBER:
            found[row.region, "other"] = found.get((row.region, "other"), 0) + row.bytes
    return {key: n for key, n in found.items() if n}


def so_far(every: Sequence[Used]) -> dict[tuple[str, str], int]:
    return figures(*rows(every))


def expected(made: Forecast) -> dict[tuple[str, str], int]:
    return figures(made.usage, made.delivery)


def steady(from_ms: int, to_ms: int, minutes: int = 60) -> list[Used]:
    hours = range(from_ms, to_ms, HOUR_MS)
    return [Used(hour, "europe", minutes, 10, 7) for hour in hours]


hours_known = st.integers(0, DAYS * 24).map(lambda n: OCTOBER + n * HOUR_MS)
counts = st.integers(0, 10**9)


@st.composite
def used(draw: st.DrawFn, through_ms: int, most: int = 30) -> list[Used]:
    """Usage of hours that a forecast looks at, also of hours that are not complete."""
    first = reach(OCTOBER, through_ms)
    hour = st.integers(0, (NOVEMBER - first) // HOUR_MS - 1).map(lambda n: first + n * HOUR_MS)
    one = st.builds(Used, hour, st.sampled_from(REGIONS), counts, counts, counts)
    return draw(st.lists(one, max_size=most))


def test_the_hours_left_are_like_those_of_the_last_week() -> None:
    """A hundred minutes at noon of each Sunday; as Friday the 16th begins, Sundays the 18th and
    25th are left. (Of Fridays and Saturdays there are three.)"""
    sundays = [OCTOBER + day * DAY_MS + 12 * HOUR_MS for day in (3, 10)]
    made = forecast([Used(at, "usa", 100, 0, 0) for at in sundays], OCTOBER + 15 * DAY_MS)
    assert made.method == "weekly"
    assert expected(made) == {("usa", "minutes"): 400}


def test_a_new_customer_is_expected_to_go_on_as_on_average() -> None:
    """Two complete hours of 30 and 61 minutes, 742 left of 45.5 each."""
    used = [Used(OCTOBER, "usa", 30, 0, 0), Used(OCTOBER + HOUR_MS, "usa", 61, 0, 0)]
    made = forecast(used, OCTOBER + 2 * HOUR_MS)
    assert made.method == "mean"
    assert expected(made) == {("usa", "minutes"): 91 + 91 * 371}


def test_before_the_first_complete_hour_there_is_nothing_to_go_by() -> None:
    made = forecast([Used(OCTOBER, "usa", 30, 0, 0)], OCTOBER)
    assert (made.method, expected(made)) == ("no_history", {("usa", "minutes"): 30})


def test_an_early_month_goes_by_the_week_before_it() -> None:
    used = steady(OCTOBER - 10 * DAY_MS, OCTOBER + DAY_MS)
    made = forecast(used, OCTOBER + DAY_MS)
    assert made.method == "weekly"
    assert expected(made)["europe", "minutes"] == 60 * 24 * DAYS


def test_what_is_used_in_a_begun_hour_counts_where_it_is_more_than_was_expected() -> None:
    through = NOVEMBER - HOUR_MS
    calm = steady(OCTOBER, through)
    assert expected(forecast(calm, through))["europe", "minutes"] == 60 * 24 * DAYS
    rush = [*calm, Used(through, "europe", 1_000, 0, 0)]
    assert expected(forecast(rush, through))["europe", "minutes"] == 60 * (24 * DAYS - 1) + 1_000


def test_nothing_used_is_nothing_expected() -> None:
    assert expected(forecast([], OCTOBER + 9 * DAY_MS)) == {}


def test_connections_lost_are_those_lost_so_far() -> None:
    usage = {UsageKey("", "usa", OCTOBER): Totals(1, lost=2)}
    made = expect(usage, [], month_ms=OCTOBER, through_ms=OCTOBER + HOUR_MS)
    assert [totals.lost for totals in made.usage.values()] == [2]


@pytest.mark.parametrize(
    ("now", "vouched", "through"),
    [
        (5 * HOUR_MS + 1, None, 5 * HOUR_MS),
        (5 * HOUR_MS, None, 5 * HOUR_MS),
        (5 * HOUR_MS, 3 * HOUR_MS - 1, 2 * HOUR_MS),
        (5 * HOUR_MS, 9 * HOUR_MS, 5 * HOUR_MS),
        (5 * HOUR_MS, -9 * HOUR_MS, 0),
        (NOVEMBER - OCTOBER + 1, NOVEMBER - OCTOBER + 1, NOVEMBER - OCTOBER),
    ],
)
def test_an_hour_is_complete_when_it_is_over_and_vouched_for(
    now: int, vouched: int | None, through: int
) -> None:
    said = None if vouched is None else OCTOBER + vouched
    assert complete_through(OCTOBER, OCTOBER + now, said) == OCTOBER + through


@given(st.data(), hours_known)
def test_no_less_is_expected_than_was_used(data: st.DataObject, through_ms: int) -> None:
    given_ = data.draw(used(through_ms))
    later = expected(forecast(given_, through_ms))
    assert all(later[key] >= n for key, n in so_far(given_).items())


@given(st.data())
def test_at_the_months_end_it_is_what_was_used(data: st.DataObject) -> None:
    given_ = data.draw(used(NOVEMBER))
    made = forecast(given_, NOVEMBER)
    assert (made.method, expected(made)) == ("complete", so_far(given_))


@given(
    st.integers(-20 * 24, DAYS * 24 - 1),
    st.integers(1, DAYS * 24),
    st.integers(1, 10**6),
    st.booleans(),
)
def test_steady_usage_is_forecast_exactly(
    first: int, known: int, minutes: int, begun: bool
) -> None:
    """Whenever it began, and whether or not a part of the hour after is in already."""
    assume(first < known)
    first_ms, through_ms = OCTOBER + first * HOUR_MS, OCTOBER + known * HOUR_MS
    seen = steady(max(first_ms, reach(OCTOBER, through_ms)), through_ms, minutes)
    if begun and through_ms < NOVEMBER:
        seen.append(Used(through_ms, "europe", minutes // 2, 3, 1))
    whole = steady(max(first_ms, OCTOBER), NOVEMBER, minutes)
    assert expected(forecast(seen, through_ms)) == so_far(whole)


@given(st.data(), hours_known)
def test_using_more_never_lowers_what_is_expected(data: st.DataObject, through_ms: int) -> None:
    """From the first use on: an earlier one makes the mean one over more hours."""
    given_ = data.draw(used(through_ms))
    first_ms = min((one.hour_ms for one in given_ if any(one[2:])), default=0)
    more = [one for one in data.draw(used(through_ms, 5)) if one.hour_ms >= first_ms]
    before = expected(forecast(given_, through_ms))
    after = expected(forecast([*given_, *more], through_ms))
    assert all(after.get(key, 0) >= n for key, n in before.items())


unit_prices = st.decimals(0, 1000, places=4)
cheaper_later = st.lists(unit_prices, min_size=2, max_size=2).map(
    lambda two: Graduated(
        (Tier(Decimal(1), max(two)), Tier(None, min(two))),
    )
)
rising = st.builds(PerUnit, unit_prices) | cheaper_later
packages = st.builds(Package, st.just(Decimal(3)), unit_prices)
books = st.builds(book, rising | packages, rising)


@given(st.data(), hours_known, books, agreed_terms)
def test_no_less_money_is_expected_than_so_far(
    data: st.DataObject, through_ms: int, prices: PriceBook, agreed: Terms
) -> None:
    """But by volume tiers, where more usage can cost less."""
    given_ = data.draw(used(through_ms))
    usage, delivery = rows(given_)
    month = {key: t for key, t in usage.items() if key.hour_ms >= OCTOBER}
    delivered = [row for row in delivery if row.hour_ms >= OCTOBER]
    now = total(rate(month, delivered, prices, agreed))
    made = forecast(given_, through_ms)
    assert total(rate(made.usage, made.delivery, prices, agreed)) >= now


def test_tiers_apply_to_the_whole_month() -> None:
    """14,880 minutes so far and as many left: the first 20,000 at 1,000 a million, the rest at
    100."""
    tiers = (Tier(Decimal("0.02"), Decimal(1000)), Tier(None, Decimal(100)))
    through = OCTOBER + (DAYS * 24 // 2) * HOUR_MS
    made = forecast(steady(OCTOBER, through, 40), through)
    prices = book(Graduated(tiers), PerUnit(ZERO))
    assert total(rate(made.usage, made.delivery, prices, terms())) == Decimal("20.98")
