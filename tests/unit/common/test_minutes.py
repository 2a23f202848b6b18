"""Usage minutes: the rule that every bill rests on."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handoff_common import minutes
from handoff_common.instants import to_ms

INSTANTS = st.integers(min_value=0, max_value=4_102_444_800_000)
FORTY_DAYS_MS = 40 * minutes.DAY_MS


@pytest.mark.parametrize(
    ("elapsed_ms", "owed"),
    [(0, 1), (1, 1), (59_999, 1), (60_000, 1), (60_001, 2), (120_000, 2), (FORTY_DAYS_MS, 57_600)],
)
def test_minutes_are_rounded_up_and_never_none(elapsed_ms: int, owed: int) -> None:
    assert minutes.owed(elapsed_ms) == owed


@given(INSTANTS, st.integers(0, FORTY_DAYS_MS))
def test_the_hours_of_a_connection_add_up_to_its_total(accepted: int, elapsed: int) -> None:
    total = minutes.owed(elapsed)
    parts = list(minutes.by_hour(accepted, 0, total))
    assert sum(count for _, count in parts) == total
    assert parts == sorted(parts)
    assert all(count > 0 and hour % minutes.HOUR_MS == 0 for hour, count in parts)


@given(INSTANTS, st.integers(0, 500), st.integers(0, 500))
def test_each_minute_falls_into_the_hour_in_which_it_starts(a: int, first: int, n: int) -> None:
    one_by_one: dict[int, int] = {}
    for k in range(first, first + n):
        hour = minutes.hour_of(a + k * minutes.MINUTE_MS)
        one_by_one[hour] = one_by_one.get(hour, 0) + 1
    assert dict(minutes.by_hour(a, first, first + n)) == one_by_one


@given(INSTANTS, st.integers(0, 5_000), st.integers(0, 5_000))
def test_accruing_in_two_steps_is_accruing_in_one(accepted: int, a: int, b: int) -> None:
    low, high = sorted((a, b))
    stepwise: dict[int, int] = {}
    for first, past in ((0, low), (low, high)):
        for hour, count in minutes.by_hour(accepted, first, past):
            stepwise[hour] = stepwise.get(hour, 0) + count
    assert stepwise == dict(minutes.by_hour(accepted, 0, high))


@given(INSTANTS, st.integers(0, 5_000), st.integers(-200, 400), st.integers(0, 30))
def test_the_minutes_within_an_hour_are_those_that_it_was_billed(
    accepted: int, total: int, hours_after: int, more: int
) -> None:
    """And so those within any hours that follow each other."""
    hour = minutes.hour_of(accepted) + hours_after * minutes.HOUR_MS
    end = hour + (1 + more) * minutes.HOUR_MS
    inside = minutes.within(accepted, total, hour, end)
    billed = dict(minutes.by_hour(accepted, 0, total))
    assert len(inside) == sum(n for at, n in billed.items() if hour <= at < end)
    assert all(hour <= accepted + k * minutes.MINUTE_MS < end for k in inside)


def test_a_minute_that_starts_on_the_boundary_belongs_to_the_new_month() -> None:
    midnight = to_ms(datetime(2026, 11, 1, tzinfo=UTC))
    assert list(minutes.by_hour(midnight - 60_000, 0, 2)) == [
        (midnight - minutes.HOUR_MS, 1),
        (midnight, 1),
    ]


@given(INSTANTS)
def test_months_hold_their_instants(instant: int) -> None:
    start, end = minutes.month_of(instant), minutes.next_month(instant)
    assert start <= instant < end
    assert minutes.month_of(end) == end
    assert minutes.month_of(end - 1) == start


def test_month_bounds_cross_the_year() -> None:
    start, end = minutes.month_bounds(2026, 12)
    assert end == minutes.month_bounds(2027, 1)[0]
    assert end - start == 31 * minutes.DAY_MS
