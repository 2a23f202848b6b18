"""Which edges are lost: silence counted in ticks that were read back."""

from hypothesis import given, settings
from hypothesis import strategies as st

from handoff_common.events import EdgeEvent, Reason, Tick, TickData
from handoff_common.instants import from_ms, to_ms
from handoff_metering import orphans
from handoff_metering.usage import fold
from support.metering_edge import Script, refused, watermark

T0 = 1_790_000_000_000


def tick(at_ms: int = T0) -> Tick:
    return Tick(
        id=f"tick-{at_ms}",
        source="/metering/orphans",
        subject="tick",
        time=from_ms(at_ms),
        data=TickData(owner="w"),
    )


def after(*events: EdgeEvent, limit: int = orphans.TICKS_UNTIL_LOST) -> orphans.Edges:
    edges: orphans.Edges = {}
    for event in events:
        edges = orphans.fold(edges, event, limit=limit)
    return edges


def test_an_edge_is_lost_at_the_ninetieth_silent_tick() -> None:
    heard = watermark(through_ms=T0)
    assert orphans.lost(after(heard, *[tick()] * 89)) == frozenset()
    assert orphans.lost(after(heard, *[tick()] * 90)) == {"edge-1"}


def test_refusals_are_neither_a_tick_nor_a_sign_of_life() -> None:
    heard = watermark(through_ms=T0)
    refusals = refused("edge-1", T0, 3)
    assert not orphans.lost(after(heard, *[refusals] * 200))
    silent: list[EdgeEvent] = [tick(), refusals]
    assert orphans.lost(after(heard, *silent * 90)) == {"edge-1"}
    assert after(refusals) == {}


def test_a_watermark_begins_the_count_again() -> None:
    heard = watermark(through_ms=T0)
    assert not orphans.lost(after(heard, *[tick()] * 89, heard, *[tick()] * 89))


def test_each_edge_is_counted_by_itself() -> None:
    one, other = watermark("a", through_ms=T0), watermark("b", through_ms=T0)
    assert orphans.lost(after(one, other, tick(), other, tick(), limit=2)) == {"a"}


def test_an_edge_that_returns_is_no_longer_lost_and_may_be_lost_again() -> None:
    heard = watermark(through_ms=T0)
    gone = [tick()] * 3
    assert orphans.lost(after(heard, *gone, limit=3))
    assert not orphans.lost(after(heard, *gone, heard, limit=3))
    assert orphans.lost(after(heard, *gone, heard, *gone, limit=3))


def test_an_edge_that_has_ended_is_never_lost() -> None:
    assert not orphans.lost(after(watermark(through_ms=T0, ended=True), *[tick()] * 500))


def test_without_ticks_there_is_no_silence() -> None:
    assert not orphans.lost(after(watermark(through_ms=T0)))


@settings(max_examples=60)
@given(st.lists(st.sampled_from(["tick", "a", "b", "end a"]), max_size=60), st.integers(2, 6))
def test_lost_is_exactly_a_run_of_ticks_without_a_word(kinds: list[str], limit: int) -> None:
    events: list[EdgeEvent] = [
        tick() if kind == "tick" else watermark(kind[-1], through_ms=T0, ended=kind == "end a")
        for kind in kinds
    ]
    lost = orphans.lost(after(*events, limit=limit))
    for edge in ("a", "b"):
        words = [n for n, kind in enumerate(kinds) if kind.endswith(edge)]
        silent = kinds[words[-1] :].count("tick") if words else 0
        expected = bool(words) and kinds[words[-1]] != "end a" and silent >= limit
        assert (edge in lost) == expected


def test_only_ticks_of_its_own_partition_measure_an_edge() -> None:
    edges = orphans.fold({}, watermark("a", through_ms=T0), partition=1, limit=3)
    for _ in range(9):
        edges = orphans.fold(edges, tick(), partition=0, limit=3)
    assert not orphans.lost(edges), "what another partition holds says nothing of this one"
    for _ in range(3):
        edges = orphans.fold(edges, tick(), partition=1, limit=3)
    assert orphans.lost(edges) == {"a"}


def test_a_lost_connection_is_closed_at_the_edges_last_proof_of_life() -> None:
    state, _ = fold(None, Script(T0).accepted())
    event = orphans.closing(state, T0 + 90_000)
    assert event.id == f"c-1-lost-{T0 + 90_000}"
    assert event.source == "/metering/orphans"
    assert event.data.reason is Reason.EDGE_LOST
    assert event.data.closed_by == "lost"
    assert event.data.elapsed_ms == 90_000
    assert to_ms(event.time) == T0 + 90_000
    closed, deltas = fold(state, event)
    assert closed.minutes == 2
    assert sum(delta.change.lost for delta in deltas) == 1


def test_its_own_last_event_is_a_proof_of_life_too() -> None:
    script = Script(T0)
    state, _ = fold(None, script.bytes(130_000))
    assert orphans.closing(state, T0 + 90_000).data.elapsed_ms == 130_000
    assert orphans.closing(state, T0 - 5_000).data.elapsed_ms == 130_000


def test_two_closers_write_the_same_event() -> None:
    state, _ = fold(None, Script(T0).accepted())
    assert orphans.closing(state, T0 + 1) == orphans.closing(state, T0 + 1)
