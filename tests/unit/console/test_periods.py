"""Ranges in whole periods, and nothing left out of them."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handoff_console.filters import BadFilter
from handoff_console.periods import (
    MOST,
    By,
    Range,
    after,
    earlier,
    filled,
    label,
    range_of,
    start_of,
    years,
)

NOW = datetime(2026, 11, 24, 15, 37, 2, 5, UTC)
BYS = st.sampled_from(["hour", "day", "month"])
INSTANTS = st.datetimes(datetime(1971, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC))


@pytest.mark.parametrize(
    ("by", "begins", "ends", "count"),
    [
        (
            "hour",
            datetime(2026, 11, 23, 16, tzinfo=UTC),
            datetime(2026, 11, 24, 16, tzinfo=UTC),
            24,
        ),
        ("day", datetime(2026, 10, 26, tzinfo=UTC), datetime(2026, 11, 25, tzinfo=UTC), 30),
        ("month", datetime(2025, 12, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC), 12),
    ],
)
def test_ranges_that_nobody_named(by: By, begins: datetime, ends: datetime, count: int) -> None:
    found = range_of({"by": by}, NOW)
    assert found == Range(by, begins, ends)
    assert len(found.starts) == count


def test_a_range_holds_what_was_asked_for_in_whole_periods() -> None:
    found = range_of({"by": "day", "from": "2026-11-02T10:00Z", "to": "2026-11-04T00:00"}, NOW)
    assert found.starts == [datetime(2026, 11, day, tzinfo=UTC) for day in (2, 3)]
    found = range_of({"by": "day", "from": "2026-11-02", "to": "2026-11-04T00:01+00:00"}, NOW)
    assert len(found.starts) == 3


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"by": "week"}, "hour, day or month"),
        ({"from": "yesterday"}, "it must be a time"),
        ({"from": "2026-11-03", "to": "2026-11-02"}, "does not lie before"),
        ({"by": "hour", "from": "2026-01-01"}, "longer than 744 hours"),
        ({"by": "month", "from": "1999-01-01"}, "longer than 120 months"),
        ({"from": "1960-01-01"}, "the years 1970 to 9998"),
        ({"from": "0001-01-01T00:00+10:00"}, "the years 1970 to 9998"),
        ({"to": "9999-12-31T23:59:59"}, "the years 1970 to 9998"),
    ],
)
def test_ranges_that_cannot_be_shown_say_why(query: dict[str, str], says: str) -> None:
    with pytest.raises(BadFilter, match=says):
        range_of(query, NOW)


@pytest.mark.parametrize(
    ("from_", "to", "parts"),
    [("2026-01", "2026-12", 1), ("2024-01", "2026-12", 3), ("2026-12", "2028-12", 1)],
)
def test_a_long_range_of_months_is_asked_for_year_by_year(from_: str, to: str, parts: int) -> None:
    range_ = range_of({"by": "month", "from": f"{from_}-01", "to": f"{to}-01"}, NOW)
    found = years(range_, NOW)
    assert len(found) == parts and found[0].from_ == range_.from_
    assert all(one.to == other.from_ for one, other in itertools.pairwise(found))
    assert all(one.to - one.from_ <= timedelta(days=366) for one in found)
    assert found[-1].to == range_.to or found[-1].to > NOW


def test_a_range_of_days_is_asked_for_at_once() -> None:
    range_ = range_of({"by": "day", "from": "2025-12-01"}, NOW)
    assert years(range_, NOW) == [range_]


@given(INSTANTS, BYS, st.integers(1, 60))
def test_periods_follow_one_another_without_a_gap(at: datetime, by: By, count: int) -> None:
    start = start_of(at, by)
    assert start <= at < after(start, by)
    assert start_of(after(start, by), by) == after(start, by)
    begin = earlier(start, by, count)
    range_ = Range(by, begin, start)
    assert len(range_.starts) == count
    for one, other in zip(range_.starts, [*range_.starts[1:], start], strict=True):
        assert after(one, by) == other


@given(INSTANTS, BYS, st.lists(st.integers(0, 10**7), max_size=20))
def test_each_row_is_in_its_period_and_none_is_left_out(
    at: datetime, by: By, seconds: list[int]
) -> None:
    end = after(start_of(at, by), by)
    range_ = Range(by, earlier(end, by, 12), end)
    rows = [start_of(end - timedelta(seconds=one + 1), by) for one in seconds]
    found = filled(range_, rows, lambda row: row)
    assert list(found) == range_.starts
    assert sorted(row for group in found.values() for row in group) == sorted(
        row for row in rows if row >= range_.from_
    )


def test_the_longest_ranges_are_those_that_concurrency_is_told_for() -> None:
    assert MOST["hour"] == 31 * 24 and MOST["day"] == 366


@pytest.mark.parametrize(
    ("by", "expected"), [("hour", "2026-11-24 15:00"), ("day", "2026-11-24"), ("month", "2026-11")]
)
def test_labels(by: By, expected: str) -> None:
    start = datetime(2026, 11, 24, 15, tzinfo=UTC)
    assert label(start, by) == expected
