"""Months of connections: by their ids, and when they are over for good."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handoff_common.instants import to_ms
from handoff_common.minutes import HOUR_MS, month_of, next_month
from handoff_metering import retention
from handoff_metering.usage import fold
from support.metering_edge import Script

NOW = to_ms(datetime(2026, 11, 24, tzinfo=UTC))


def month(year: int, number: int) -> int:
    return to_ms(datetime(year, number, 1, tzinfo=UTC))


def identifier(ms: int, tail: str = "7000-8000-000000000000") -> str:
    return f"{retention.first_id(ms)}-{tail}"


@given(st.integers(0, 2**47), st.integers(0, 2**47))
def test_ids_sort_by_their_time_and_a_month_is_a_range_of_them(first: int, second: int) -> None:
    assert (first < second) == (identifier(first) < identifier(second))
    assert retention.began_ms(identifier(first)) == first
    if first < 253_000_000_000_000:
        start = month_of(first)
        inside = (
            retention.first_id(start) <= identifier(first) < retention.first_id(next_month(start))
        )
        assert inside


@pytest.mark.parametrize(
    "other",
    [
        "c-1",
        "",
        "x" * 64,
        identifier(NOW, "4000-8000-000000000000"),
        "0190A1B2" + identifier(NOW)[8:],
    ],
)
def test_an_id_of_another_form_is_of_no_month(other: str) -> None:
    assert retention.began_ms(other) is None
    event = Script(NOW, connection_id=other).accepted()
    assert retention.retired(None, event, NOW * 2, 13) is None


def test_a_month_is_over_after_as_many_months_as_are_kept() -> None:
    end = month(2026, 11)
    assert not retention.is_over(month(2025, 9), end - 1, 13)
    assert retention.is_over(month(2025, 9), end, 13)
    assert not retention.may_go(month(2025, 9), end, 13)
    assert retention.may_go(month(2025, 8), end, 13)
    assert retention.first_kept(end - 1, 13) == month(2025, 8)
    assert retention.first_kept(end, 13) == month(2025, 9)


def test_only_what_is_open_is_still_folded_then() -> None:
    began = month(2025, 9) + HOUR_MS
    script = Script(began, connection_id=identifier(began))
    accepted, closed = script.accepted(), script.closed(90_000)
    late = month(2026, 11)
    still_open, _ = fold(None, accepted)
    ended, _ = fold(still_open, closed)
    assert retention.retired(still_open, closed, late, 13) is None
    for state in (None, ended):
        assert retention.retired(state, closed, late - 1, 13) is None
        cause = retention.retired(state, closed, late, 13)
        assert cause is not None
        assert (cause.kind, cause.customer_id) == ("retired", closed.data.customer_id)


@given(st.integers(0, 2**44), st.integers(2, 120), st.integers(0, 2**45))
def test_the_quick_look_passes_over_nothing(began: int, keep: int, later: int) -> None:
    event = Script(began, connection_id=identifier(began)).accepted()
    appended = began + later
    if retention.retired(None, event, appended, keep) is not None:
        assert event.data.connection_id < retention.first_recent(appended, keep)


def test_room_is_made_for_the_months_that_are_kept_and_ahead() -> None:
    months = list(retention.wanted(NOW, 2))
    assert months == [
        month(2026, 9),
        month(2026, 10),
        month(2026, 11),
        month(2026, 12),
        month(2027, 1),
    ]
