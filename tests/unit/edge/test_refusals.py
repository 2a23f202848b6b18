"""Counts of refusals: nothing is counted twice or forgotten, and memory is bounded."""

from collections import Counter
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from handoff_common import codec
from handoff_common.instants import to_ms
from handoff_common.minutes import HOUR_MS, hour_of
from handoff_common.topics import EDGES
from handoff_edge.connection import Place
from handoff_edge.refusals import CELLS, HOURS, PART, Cell, Owner, Part, Tally, event_of, key_of

T0 = to_ms(datetime(2026, 11, 10, 12, tzinfo=UTC))
PLACE = Place("edge-1", "europe", "fra1")
OWNER = Owner("cus", "svc")


def counts(parts: list[Part]) -> dict[tuple[int, Cell], int]:
    return {(part.hour_ms, cell): count for part in parts for cell, count in part.counts}


def test_counts_are_absolute_and_told_only_when_they_change() -> None:
    tally = Tally()
    tally.add(T0, OWNER, "not_enabled")
    tally.add(T0, None, "unknown_domain")
    first = {(T0, Cell(OWNER, "not_enabled")): 1, (T0, Cell(None, "unknown_domain")): 1}
    assert counts(tally.take()) == first
    assert tally.take() == []
    tally.add(T0 + 1, OWNER, "not_enabled")
    assert counts(tally.take()) == first | {(T0, Cell(OWNER, "not_enabled")): 2}


def test_what_was_not_sent_is_told_again() -> None:
    tally = Tally()
    tally.add(T0, OWNER, "no_rule")
    taken = tally.take()
    tally.put_back(taken)
    tally.tidy(T0 + 2 * HOUR_MS)
    tally.add(T0 + 2 * HOUR_MS, OWNER, "no_rule")
    assert [part.hour_ms for part in tally.take()] == [T0, T0 + 2 * HOUR_MS]


def test_an_hour_that_is_over_and_sent_is_forgotten() -> None:
    tally = Tally()
    tally.add(T0, OWNER, "no_rule")
    tally.take()
    tally.tidy(T0 + HOUR_MS - 1)
    assert len(tally) == 1, "it may grow still"
    tally.tidy(T0 + HOUR_MS)
    assert len(tally) == 0


def test_a_flood_is_bounded_while_nothing_can_be_sent() -> None:
    tally = Tally()
    for hour in range(3 * HOURS):
        for _ in range(50):
            tally.add(T0 + hour * HOUR_MS, None, "unknown_domain")
            tally.add(T0 + hour * HOUR_MS, OWNER, "not_enabled")
    assert len(tally) == 2 * HOURS
    parts = tally.take()
    assert parts[0].hour_ms == T0 + 2 * HOURS * HOUR_MS
    # What was dropped meanwhile is not begun again.
    for hour in range(HOURS):
        tally.add(T0 + (3 * HOURS + hour) * HOUR_MS, None, "busy")
    tally.put_back(parts)
    assert len(tally) == HOURS


def test_a_flood_over_every_service_is_bounded() -> None:
    tally = Tally()
    tally.add(T0, OWNER, "no_rule")
    for n in range(CELLS + 500):
        tally.add(T0 + HOUR_MS, Owner("cus", f"svc-{n}"), "no_rule")
    assert len(tally) == CELLS + 1
    found = counts(tally.take())
    assert {hour for hour, _ in found} == {T0 + HOUR_MS}
    assert found[T0 + HOUR_MS, Cell(None, "no_rule")] == 500
    assert sum(found.values()) == CELLS + 500


def test_a_part_is_of_bounded_size_and_a_count_stays_in_its_part() -> None:
    tally = Tally()
    owners = [Owner("cus", f"svc-{n}") for n in range(2 * PART + 1)]
    for owner in owners:
        tally.add(T0, owner, "no_rule")
    assert [len(part.counts) for part in tally.take()] == [PART, PART, 1]
    tally.add(T0, owners[PART], "no_rule")
    [changed] = tally.take()
    assert (changed.number, len(changed.counts)) == (1, PART), "a part tells all that it has"
    assert counts([changed])[T0, Cell(owners[PART], "no_rule")] == 2


def test_keys_are_apart_from_watermarks_and_one_for_each_process_hour_and_part() -> None:
    parts = [Part(T0 + hour * HOUR_MS, number, ()) for hour in (0, 1) for number in (0, 1)]
    keys = {key_of("edge-1", start, part) for start in (T0, T0 + 1) for part in parts}
    assert len(keys) == 8
    assert "edge-1" not in keys
    assert f"refusals/edge-1/{T0}/20261110T13/1" in keys


def test_the_event_is_one_of_the_edges_topic() -> None:
    part = Part(T0, 0, ((Cell(OWNER, "not_enabled"), 3), (Cell(None, "unknown_domain"), 9)))
    event = codec.decode(EDGES.name, codec.encode(event_of(PLACE, T0 + 5, part, T0 + 70)))
    assert (event.source, event.subject, to_ms(event.time)) == ("/edges/edge-1", "edge-1", T0 + 70)
    assert (to_ms(event.data.started_at), to_ms(event.data.hour)) == (T0 + 5, T0)
    told = [(c.customer_id, c.service_id, c.cause, c.count) for c in event.data.counts]
    assert told == [("cus", "svc", "not_enabled", 3), (None, None, "unknown_domain", 9)]


@given(
    st.lists(
        st.one_of(
            st.tuples(
                st.integers(0, HOUR_MS // 2),
                st.sampled_from([None, *(Owner("c", f"s-{n}") for n in range(PART + 2))]),
                st.sampled_from(["busy", "no_rule"]),
            ),
            st.sampled_from(["sent", "failed"]),
        ),
        max_size=60,
    )
)
def test_whatever_is_sent_or_fails_the_last_of_each_part_is_the_truth(steps: list[object]) -> None:
    tally, now = Tally(), T0
    truth: Counter[tuple[int, Cell]] = Counter()
    sent: dict[tuple[int, int], Part] = {}
    for step in [*steps, "sent"]:
        if isinstance(step, tuple):
            wait, owner, cause = step
            now += wait
            tally.add(now, owner, cause)
            truth[hour_of(now), Cell(owner, cause)] += 1
            continue
        parts = tally.take()
        if step == "failed":
            tally.put_back(parts)
            continue
        sent |= {(part.hour_ms, part.number): part for part in parts}
        tally.tidy(now)
    assert counts(list(sent.values())) == truth
