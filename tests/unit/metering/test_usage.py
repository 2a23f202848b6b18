"""What a connection owes: every order, repeat and gap of its events, and what accrues meanwhile."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from handoff_common.events import ConnectionEvent, Counters, Reason
from handoff_common.instants import to_ms
from handoff_common.minutes import HOUR_MS, MINUTE_MS, hour_of, month_of, owed
from handoff_metering.orphans import closing
from handoff_metering.usage import (
    ConnectionState,
    Totals,
    UsageKey,
    accrue,
    fold,
    usage_at,
)
from support.metering_edge import HEADS, Script, carried

MONTH_END = to_ms(datetime(2026, 11, 1, tzinfo=UTC))
NOON = to_ms(datetime(2026, 10, 15, 12, tzinfo=UTC))

Usage = dict[UsageKey, Totals]


class Ledger:
    """States and totals, as the projection keeps them; never below zero."""

    def __init__(self) -> None:
        self.state: ConnectionState | None = None
        self.totals: defaultdict[UsageKey, Totals] = defaultdict(Totals)

    def fold(self, event: ConnectionEvent) -> bool:
        """Whether it changed anything."""
        before = self.state
        self.state, deltas = fold(before, event)
        self._add(deltas)
        return bool(deltas) or self.state is not before

    def accrue(self, through_ms: int) -> None:
        if self.state is not None:
            self.state, deltas = accrue(self.state, through_ms)
            self._add(deltas)

    def _add(self, deltas: Iterable[tuple[UsageKey, Totals]]) -> None:
        for key, change in deltas:
            self.totals[key] = self.totals[key].plus(change)
            total = self.totals[key]
            assert min(total.minutes, *total.counters, total.opened, total.closed) >= 0
            assert 0 <= total.lost <= total.closed

    @property
    def usage(self) -> Usage:
        return {key: total for key, total in self.totals.items() if total != Totals()}

    @property
    def sum(self) -> Totals:
        total = Totals()
        for one in self.totals.values():
            total = total.plus(one)
        return total


def folded(events: Iterable[ConnectionEvent], *throughs: int) -> Ledger:
    ledger = Ledger()
    for event in events:
        ledger.fold(event)
    for through in throughs:
        ledger.accrue(through)
    return ledger


def minutes_by_hour(ledger: Ledger) -> dict[int, int]:
    return {key.hour_ms: total.minutes for key, total in ledger.usage.items() if total.minutes}


# --- Durations -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("elapsed_ms", "minutes"),
    [
        (0, 1),
        (1, 1),
        (59_999, 1),
        (60_000, 1),
        (60_001, 2),
        (120_000, 2),
        (40 * 86_400_000, 40 * 1440),
        (40 * 86_400_000 + 1, 40 * 1440 + 1),
    ],
)
def test_minutes_are_rounded_up(elapsed_ms: int, minutes: int) -> None:
    script = Script(NOON)
    ledger = folded([script.accepted(), script.closed(elapsed_ms)])
    assert ledger.sum.minutes == minutes
    assert ledger.state is not None
    assert ledger.state.minutes == minutes


def test_an_open_connection_of_40_days_accrues_in_one_row_per_hour() -> None:
    ledger = folded([Script(NOON).accepted()], NOON + 40 * 86_400_000)
    assert ledger.sum.minutes == 40 * 1440
    assert len(ledger.usage) == 40 * 24
    assert set(minutes_by_hour(ledger).values()) == {60}


def test_minutes_of_a_month_crossing_add_up_and_fall_where_they_start() -> None:
    accepted_ms = MONTH_END - 90_500
    script = Script(accepted_ms)
    # Minutes start at -90.5 s, -30.5 s, +29.5 s; the fourth would start at +89.5 s.
    ledger = folded([script.accepted(), script.closed(180_000)])
    assert minutes_by_hour(ledger) == {MONTH_END - HOUR_MS: 2, MONTH_END: 1}


def test_a_minute_that_would_start_at_the_very_end_is_not_owed() -> None:
    script = Script(MONTH_END - 60_000)
    ledger = folded([script.accepted(), script.closed(60_000)])
    assert minutes_by_hour(ledger) == {MONTH_END - HOUR_MS: 1}
    later = Script(MONTH_END - 60_000)
    ledger = folded([later.accepted(), later.closed(60_001)])
    assert minutes_by_hour(ledger) == {MONTH_END - HOUR_MS: 1, MONTH_END: 1}


def test_bytes_belong_to_the_hour_of_the_event_that_first_reports_them() -> None:
    script = Script(NOON + HOUR_MS - 1_000)
    ledger = folded(
        [script.accepted(), script.bytes(2_000, carried(100)), script.closed(3_000, carried(150))]
    )
    rows = {key.hour_ms: total.counters for key, total in ledger.usage.items()}
    assert rows == {NOON: HEADS, NOON + HOUR_MS: carried(150).minus(HEADS)}


def test_opened_and_closed_are_counted_in_their_own_hours() -> None:
    script = Script(NOON)
    ledger = folded([script.accepted(), script.closed(HOUR_MS)])
    rows = {key.hour_ms: (t.opened, t.closed, t.lost) for key, t in ledger.usage.items()}
    assert rows == {NOON: (1, 0, 0), NOON + HOUR_MS: (0, 1, 0)}


# --- Which event counts --------------------------------------------------------------------------


def test_any_single_event_is_enough_to_bill_by() -> None:
    for only in (
        Script(NOON).accepted(elapsed_ms=90_000),
        Script(NOON).bytes(90_000),
        Script(NOON).closed(90_000),
        Script(NOON).crashed(90_000),
    ):
        total = folded([only]).sum
        assert (total.minutes, total.counters, total.opened) == (2, HEADS, 1)


def test_a_close_wins_over_bytes_of_the_same_instant_in_either_order() -> None:
    script = Script(NOON)
    accepted, late, closed = script.accepted(), script.bytes(5_000), script.closed(5_000)
    orders: list[list[ConnectionEvent]] = [[accepted, late, closed], [accepted, closed, late]]
    for order in orders:
        state = folded(order, NOON + HOUR_MS).state
        assert state is not None
        assert state.end is not None
        assert state.minutes == 1


def test_a_close_counts_even_when_older_than_what_was_seen() -> None:
    script = Script(NOON)
    closed = script.closed(50_000)
    ledger = folded([script.accepted(), script.bytes(130_000), closed], NOON + HOUR_MS)
    assert ledger.state is not None
    assert not ledger.state.is_open
    assert ledger.sum.minutes == 1


def test_counters_never_go_down() -> None:
    script = Script(NOON)
    ledger = folded(
        [script.accepted(), script.bytes(1_000, carried(500)), script.bytes(2_000, carried(10))]
    )
    assert ledger.sum.counters == carried(500)


def test_a_late_accepted_only_adds_what_people_look_at() -> None:
    script = Script(NOON)
    accepted, later = script.accepted(), script.bytes(61_000, carried(7))
    ledger = folded([later])
    before = ledger.usage
    assert ledger.fold(accepted)
    assert ledger.usage == before
    assert ledger.state is not None
    assert ledger.state.accept is not None
    assert ledger.state.accept.domain == "chat.example.com"


def test_never_established_owes_nothing_but_is_counted() -> None:
    script = Script(NOON + HOUR_MS - 10)
    accepted, never = script.accepted(), script.never_established(20)
    assert folded([accepted, never]).sum == Totals(opened=1, closed=1)
    assert folded([never]).sum == Totals(opened=1, closed=1)


def test_never_established_takes_back_what_has_accrued() -> None:
    script = Script(NOON)
    ledger = folded([script.accepted()], NOON + 200_000)
    assert ledger.sum.minutes == 4
    ledger.fold(script.never_established(5))
    assert ledger.usage == {
        UsageKey("customer-1", "service-1", "europe", NOON): Totals(opened=1, closed=1)
    }


def test_bytes_carried_over_several_hours_stay_whatever_the_close_says() -> None:
    script = Script(NOON)
    ledger = folded(
        [script.accepted(), script.bytes(HOUR_MS, carried(9)), script.never_established(HOUR_MS)]
    )
    assert ledger.sum == Totals(0, carried(9), 1, 1, 0)


# --- Provisional closes --------------------------------------------------------------------------


def lost_at(ledger: Ledger, through_ms: int) -> ConnectionEvent:
    assert ledger.state is not None
    return closing(ledger.state, through_ms)


def test_an_edge_that_comes_back_reopens_what_was_given_up() -> None:
    script = Script(NOON)
    ledger = folded([script.accepted()], NOON + 100_000)
    ledger.fold(lost_at(ledger, NOON + 100_000))
    assert (ledger.sum.closed, ledger.sum.lost, ledger.sum.minutes) == (1, 1, 2)
    ledger.fold(script.bytes(400_000, carried(3)))
    assert ledger.state is not None
    assert ledger.state.is_open
    assert (ledger.sum.closed, ledger.sum.lost, ledger.sum.minutes) == (0, 0, 7)


@pytest.mark.parametrize("elapsed_ms", [40_000, 100_000, 500_000])
def test_the_edges_own_close_overrides_a_provisional_one(elapsed_ms: int) -> None:
    script = Script(NOON)
    ledger = folded([script.accepted()], NOON + 100_000)
    ledger.fold(lost_at(ledger, NOON + 100_000))
    ledger.fold(script.closed(elapsed_ms))
    assert (ledger.sum.closed, ledger.sum.lost) == (1, 0)
    assert ledger.sum.minutes == owed(elapsed_ms)


def test_a_repeat_does_not_reopen_what_was_given_up() -> None:
    script = Script(NOON)
    heard: list[ConnectionEvent] = [script.accepted(), script.bytes(100_000)]
    ledger = folded(heard, NOON + 100_000)
    ledger.fold(lost_at(ledger, NOON + 100_000))
    for event in heard:
        assert not ledger.fold(event)


def test_giving_up_is_ignored_when_the_edge_has_spoken_since() -> None:
    script = Script(NOON)
    ledger = folded([script.accepted()], NOON + 60_000)
    given_up = lost_at(ledger, NOON + 60_000)
    ledger.fold(script.bytes(70_000))
    assert not ledger.fold(given_up)
    assert ledger.state is not None
    assert ledger.state.is_open


def test_a_crash_ends_a_connection_at_what_its_edge_last_saw() -> None:
    script = Script(NOON)
    ledger = folded([script.accepted(), script.bytes(130_000), script.crashed(90_000)])
    assert ledger.state is not None
    assert ledger.state.end is not None
    assert ledger.state.end.elapsed_ms == 130_000
    assert (ledger.sum.minutes, ledger.sum.lost) == (3, 1)


def test_a_crash_replaces_giving_up_and_not_the_other_way_round() -> None:
    script = Script(NOON)
    ledger = folded([script.accepted()], NOON + 60_000)
    given_up = lost_at(ledger, NOON + 60_000)
    ledger.fold(given_up)
    crashed = script.crashed(90_000)
    assert ledger.fold(crashed)
    assert not ledger.fold(given_up)
    assert ledger.state is not None
    assert ledger.state.end is not None
    assert ledger.state.end.reason is Reason.EDGE_CRASHED
    assert (ledger.sum.minutes, ledger.sum.closed, ledger.sum.lost) == (2, 1, 1)


# --- Properties ----------------------------------------------------------------------------------


class Step(NamedTuple):
    kind: str
    wait_ms: int
    body: int


_waits = st.one_of(
    st.integers(0, 3),
    st.sampled_from([59_999, 60_000, 60_001, HOUR_MS]),
    st.integers(0, 3 * HOUR_MS),
)
_accepted = st.one_of(
    st.integers(MONTH_END - 2 * HOUR_MS, MONTH_END + HOUR_MS),
    st.sampled_from([MONTH_END - 1, MONTH_END, MONTH_END - MINUTE_MS]),
)
_steps = st.lists(
    st.builds(
        Step,
        st.sampled_from(["bytes", "bytes", "bytes", "lost", "crashed", "closed", "never"]),
        _waits,
        st.integers(0, 5_000),
    ),
    max_size=7,
)


def played(accepted_ms: int, steps: list[Step]) -> list[ConnectionEvent]:
    """A log as it can come about: an edge's events in order, and what others write between."""
    script = Script(accepted_ms)
    ledger = Ledger()
    events: list[ConnectionEvent] = [script.accepted()]
    ledger.fold(events[0])
    elapsed, body = 0, 0
    for step in steps:
        elapsed += step.wait_ms
        body += step.body
        event: ConnectionEvent
        if step.kind == "bytes":
            event = script.bytes(elapsed, carried(body))
        elif step.kind == "lost":
            if ledger.state is None or not ledger.state.is_open:
                continue
            event = closing(ledger.state, accepted_ms + elapsed)
        elif step.kind == "crashed":
            event = script.crashed(elapsed, carried(body))
        elif step.kind == "never":
            event = script.never_established(elapsed)
        else:
            event = script.closed(elapsed, carried(body))
        events.append(event)
        ledger.fold(event)
    return events


@settings(max_examples=150)
@given(_accepted, _steps, st.data())
def test_repeats_change_nothing(accepted_ms: int, steps: list[Step], data: st.DataObject) -> None:
    events = played(accepted_ms, steps)
    ledger = Ledger()
    for count, event in enumerate(events, 1):
        ledger.fold(event)
        for again in data.draw(st.lists(st.sampled_from(events[:count]), max_size=3)):
            assert not ledger.fold(again)
    assert ledger.usage == folded(events).usage


@settings(max_examples=150)
@given(_accepted, _steps, st.data())
def test_accruing_on_the_way_leaves_no_trace(
    accepted_ms: int, steps: list[Step], data: st.DataObject
) -> None:
    events = played(accepted_ms, steps)
    last = accepted_ms + data.draw(st.integers(-HOUR_MS, 12 * HOUR_MS))
    ledger = Ledger()
    for event in events:
        ledger.fold(event)
        ledger.accrue(data.draw(st.integers(accepted_ms - HOUR_MS, last) | st.just(last)))
    ledger.accrue(last)
    replayed = folded(events, last)
    assert ledger.usage == replayed.usage
    assert ledger.state == replayed.state


@settings(max_examples=100)
@given(_accepted, _steps, st.data())
def test_neither_order_nor_gaps_change_what_an_edge_has_said(
    accepted_ms: int, steps: list[Step], data: st.DataObject
) -> None:
    own = [s for s in steps if s.kind == "bytes"]
    events = played(accepted_ms, [*own, Step("closed", 7, 11)])
    kept = [e for e in events[:-1] if data.draw(st.booleans())] + [events[-1]]
    shuffled = data.draw(st.permutations(kept))
    one, other = folded(events), folded(shuffled)
    assert one.sum == other.sum
    assert minutes_by_hour(one) == minutes_by_hour(other)


@settings(max_examples=100)
@given(_accepted, _steps)
def test_the_months_of_a_connection_add_up_to_its_rounded_total(
    accepted_ms: int, steps: list[Step]
) -> None:
    ledger = folded(played(accepted_ms, steps))
    assert ledger.state is not None
    by_month: defaultdict[int, int] = defaultdict(int)
    for hour, minutes in minutes_by_hour(ledger).items():
        by_month[month_of(hour)] += minutes
    assert sum(by_month.values()) == ledger.state.minutes
    for k in range(min(ledger.state.minutes, 50)):
        assert hour_of(accepted_ms + k * MINUTE_MS) in minutes_by_hour(ledger)


@settings(max_examples=75)
@given(st.lists(st.tuples(_accepted, _steps), min_size=1, max_size=4), st.data())
def test_usage_at_is_what_was_projected(
    connections: list[tuple[int, list[Step]]], data: st.DataObject
) -> None:
    through = MONTH_END + data.draw(st.integers(0, 6 * HOUR_MS))
    expected: defaultdict[UsageKey, Totals] = defaultdict(Totals)
    events: list[tuple[int, ConnectionEvent]] = []
    for number, (accepted_ms, steps) in enumerate(connections):
        script_events = played(accepted_ms, steps)
        renamed = [_renamed(event, f"c-{number}") for event in script_events]
        events += [(number % 2, event) for event in renamed]
        for key, total in folded(renamed, through).usage.items():
            expected[key] = expected[key].plus(total)
    assert usage_at(events, {0: through, 1: through}) == dict(expected)


@settings(max_examples=75)
@given(_accepted, _steps, st.integers(0, 3 * HOUR_MS), st.integers(0, 3 * HOUR_MS))
def test_hours_before_the_cut_do_not_depend_on_what_accrued_behind_it(
    accepted_ms: int, steps: list[Step], cut: int, more: int
) -> None:
    events = played(accepted_ms, steps)
    through = MONTH_END + cut
    at_cut = usage_at([(0, event) for event in events], {0: through})
    live = folded(events, through + more).usage

    def closed_hours(usage: Usage) -> Usage:
        return {key: total for key, total in usage.items() if key.hour_ms + HOUR_MS <= through}

    assert closed_hours(at_cut) == closed_hours(live)


def test_a_slice_without_a_cut_accrues_nothing() -> None:
    events = [(0, Script(NOON).accepted()), (1, Script(NOON, connection_id="c-2").accepted())]
    found = usage_at(events, {1: NOON + HOUR_MS})
    assert sum(total.minutes for total in found.values()) == 1 + 60


def _renamed(event: ConnectionEvent, connection_id: str) -> ConnectionEvent:
    data = structs.replace(event.data, connection_id=connection_id)
    return structs.replace(event, data=data)


def test_totals_add_up_field_by_field() -> None:
    one = Totals(1, Counters(1, 2, 3, 4, 5, 6, 7, 8), 1, 1, 1)
    assert Totals().plus(one) == one
    assert one.plus(Totals()) == one
    assert one.plus(one) == Totals(2, Counters(2, 4, 6, 8, 10, 12, 14, 16), 2, 2, 2)
