"""How far a slice may believe an edge, and how far it can vouch for itself."""

from handoff_common.events import EdgeWatermark
from handoff_metering import watermarks
from handoff_metering.watermarks import Difference
from support.metering_edge import watermark

T0 = 1_790_000_000_000


def known(*events: EdgeWatermark) -> watermarks.Edges:
    edges: watermarks.Edges = {}
    for event in events:
        edges = watermarks.fold(edges, event)
    return edges


def low(
    edges: watermarks.Edges,
    position: int,
    *,
    lost: frozenset[str] = frozenset(),
    open_on: dict[str, int] | None = None,
    seen: frozenset[str] = frozenset(),
) -> watermarks.Low:
    return watermarks.low(edges, 0, position, lost=lost, open_on=open_on or {}, seen=seen)


def test_a_slice_uses_the_newest_watermark_that_it_has_passed() -> None:
    edge = known(
        watermark(through_ms=T0, positions={0: 5}),
        watermark(through_ms=T0 + 10, positions={0: 9}),
        watermark(through_ms=T0 + 20, positions={0: 12}),
    )["edge-1"]
    found = {position: edge.passed(0, position) for position in (4, 5, 8, 9, 12, 99)}
    throughs = {at: mark.through_ms - T0 if mark else None for at, mark in found.items()}
    assert throughs == {4: None, 5: 0, 8: 0, 9: 10, 12: 20, 99: 20}


def test_where_an_edge_wrote_nothing_nothing_has_to_be_read() -> None:
    edge = known(watermark(through_ms=T0, positions={1: 7}))["edge-1"]
    assert edge.passed(0, 0) is edge.latest
    assert edge.passed(1, 6) is None


def test_a_slice_that_lags_far_behind_still_comes_by_a_watermark() -> None:
    edges = known(
        *(watermark(through_ms=T0 + n, positions={0: n}) for n in range(1, 500)),
    )
    edge = edges["edge-1"]
    assert len(edge.marks) == 64
    assert edge.latest.through_ms == T0 + 499
    passed = edge.passed(0, 1)
    assert passed is not None
    assert passed.through_ms == T0 + 1


def test_low_is_the_smallest_of_the_edges_that_count() -> None:
    edges = known(
        watermark("a", through_ms=T0 + 50, positions={0: 1}),
        watermark("b", through_ms=T0 + 20, positions={0: 2}),
    )
    found = low(edges, 2)
    assert found.through_ms == T0 + 20
    assert [hold.edge_id for hold in found.holds] == ["b", "a"]


def test_low_is_open_while_an_edge_has_not_been_passed_or_heard() -> None:
    edges = known(
        watermark("a", through_ms=T0, positions={0: 1}),
        watermark("b", through_ms=T0, positions={0: 9}),
    )
    assert low(edges, 5).through_ms is None
    assert low(edges, 5).holds[0].edge_id == "b"
    assert low(edges, 9, seen=frozenset({"a", "b", "c"})).through_ms is None
    assert low(edges, 9, seen=frozenset({"a", "b"})).through_ms == T0


def test_an_ended_edge_counts_until_it_is_passed_and_has_nothing_open() -> None:
    edges = known(
        watermark("a", through_ms=T0 + 90, positions={0: 1}),
        watermark("b", through_ms=T0, positions={0: 1}),
        watermark("b", through_ms=T0 + 5, positions={0: 4}, ended=True),
    )
    assert low(edges, 3).through_ms == T0
    assert low(edges, 4).through_ms == T0 + 90
    assert low(edges, 4, open_on={"b": 1}).through_ms == T0 + 5


def test_a_lost_edge_counts_until_its_connections_are_closed() -> None:
    edges = known(
        watermark("a", through_ms=T0 + 90),
        watermark("b", through_ms=T0 + 5),
    )
    gone = frozenset({"b"})
    assert low(edges, 0, lost=gone, open_on={"b": 2}).through_ms == T0 + 5
    assert low(edges, 0, lost=gone).through_ms == T0 + 90


def test_when_no_edge_is_up_the_latest_still_vouches_for_its_past() -> None:
    edges = known(
        watermark("a", through_ms=T0 + 90, ended=True),
        watermark("b", through_ms=T0 + 5, ended=True),
    )
    found = low(edges, 0)
    assert found.through_ms == T0 + 90
    assert found.holds[0].cause == "no edge is up"
    assert low({}, 0).through_ms is None


def test_a_difference_counts_once_the_watermark_is_passed_everywhere() -> None:
    edge = known(watermark(through_ms=T0, positions={0: 3, 1: 2}, accepted=5, closed=4))["edge-1"]
    assert watermarks.difference(edge, {0: 3}, 2, 1) is None
    assert watermarks.difference(edge, {0: 3, 1: 2}, 5, 4) == Difference(0, 0)
    assert watermarks.difference(edge, {0: 3, 1: 2}, 4, 1) == Difference(1, 3)
    # More than the watermark says came behind it.
    assert watermarks.difference(edge, {0: 9, 1: 2}, 8, 8) == Difference(0, 0)


def test_an_ended_edge_must_be_equal() -> None:
    edge = known(watermark(through_ms=T0, accepted=5, closed=5, ended=True))["edge-1"]
    found = watermarks.difference(edge, {}, 6, 4)
    assert found == Difference(-1, 1)
    assert found is not None
    assert found.total == 2
