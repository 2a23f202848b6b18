"""One connection's events: cumulative, in order, stamped so that months and minutes add up."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handoff_common import codec
from handoff_common.events import (
    ConnectionBytes,
    ConnectionClosed,
    ConnectionEvent,
    Counters,
    Reason,
    counters_of,
)
from handoff_common.instants import from_ms, to_ms
from handoff_common.minutes import month_of
from handoff_common.topics import CONNECTIONS
from handoff_edge.connection import Connection, Facts, Phase, Place, lost

PLACE = Place("edge-1", "europe", "ams")
FACTS = Facts("chat.example.com", "r", "b", 7, "v2", "203.0.113.0/24")
HEADS = Counters(req_header_bytes=300, bereq_header_bytes=310, beresp_header_bytes=150)
NOV_END = to_ms(datetime(2026, 12, 1, tzinfo=UTC))
MS = 1_000_000


def made() -> Connection:
    return Connection(place=PLACE, connection_id="c1", customer_id="cus", service_id="svc")


def closed(
    connection: Connection, now_ns: int, body: tuple[int, int, int, int] = (0, 0, 0, 0)
) -> list[ConnectionEvent]:
    return connection.close(
        now_ns,
        connection.counters(body),
        reason=Reason.CLIENT_CLOSED,
        closed_by="client",
        close_code=1000,
    )


def test_accepted_says_everything_that_a_bill_needs() -> None:
    connection = made()
    event = connection.accept(NOV_END * MS + 999_999, HEADS, FACTS)
    assert (event.id, event.source, event.subject) == ("c1-0", "/edges/edge-1", "c1")
    assert event.time == event.data.accepted_at == from_ms(NOV_END)
    data = event.data
    assert (data.seq, data.elapsed_ms) == (0, 0)
    assert (data.customer_id, data.service_id, data.region, data.pop) == (
        "cus",
        "svc",
        "europe",
        "ams",
    )
    assert (data.domain, data.rule, data.backend, data.service_version) == (
        "chat.example.com",
        "r",
        "b",
        7,
    )
    assert (data.subprotocol, data.client_network, data.tls) == ("v2", "203.0.113.0/24", False)
    assert counters_of(data) == HEADS
    assert codec.decode(CONNECTIONS.name, codec.encode(event)) == event


@pytest.mark.parametrize(
    ("lasted_ns", "elapsed_ms"),
    [(0, 0), (1, 1), (MS, 1), (MS + 1, 2), (60_000 * MS, 60_000), (60_000 * MS + 1, 60_001)],
)
def test_elapsed_is_rounded_up(lasted_ns: int, elapsed_ms: int) -> None:
    connection = made()
    start = NOV_END * MS + 123_456
    connection.accept(start, HEADS, FACTS)
    connection.sent_to_client(100)
    connection.sent_to_client(29)
    connection.establish()
    (event,) = closed(connection, start + lasted_ns, (1, 2, 3, 4))
    assert isinstance(event, ConnectionClosed)
    assert event.data.elapsed_ms == elapsed_ms
    assert event.time == event.data.accepted_at + timedelta(milliseconds=elapsed_ms)
    assert counters_of(event.data) == Counters(300, 1, 129, 2, 310, 3, 150, 4)
    assert (event.data.reason, event.data.closed_by, event.data.close_code) == (
        "client_closed",
        "client",
        1000,
    )


def test_an_idle_connection_writes_nothing() -> None:
    connection = made()
    connection.accept(0, HEADS, FACTS)
    connection.establish()
    counters = connection.counters((5, 0, 0, 0))
    assert len(connection.checkpoint(10 * MS, counters)) == 1
    assert connection.checkpoint(99_000 * MS, counters) == []


def test_a_month_ends_with_a_checkpoint_of_its_own_even_without_a_byte() -> None:
    connection = made()
    accepted_ms = NOV_END - 5_000
    connection.accept(accepted_ms * MS, HEADS, FACTS)
    connection.establish()
    (boundary,) = connection.month_end(NOV_END * MS, connection.counters((7, 7, 7, 7)))
    assert isinstance(boundary, ConnectionBytes)
    assert to_ms(boundary.time) == NOV_END - 1
    assert boundary.data.elapsed_ms == 4_999
    assert connection.month_end((NOV_END + 5) * MS, connection.counters((8, 8, 8, 8))) == []
    (later,) = connection.checkpoint((NOV_END + 9) * MS, connection.counters((8, 8, 8, 8)))
    assert to_ms(later.time) == NOV_END + 9


def test_an_end_behind_the_boundary_brings_the_months_checkpoint_with_it() -> None:
    connection = made()
    connection.accept((NOV_END - 1) * MS, HEADS, FACTS)
    connection.establish()
    boundary, end = closed(connection, NOV_END * MS, (3, 0, 0, 0))
    assert isinstance(boundary, ConnectionBytes) and isinstance(end, ConnectionClosed)
    assert (boundary.data.seq, boundary.data.elapsed_ms) == (1, 0)
    assert (end.data.seq, end.data.elapsed_ms) == (2, 1)


@settings(max_examples=100)
@given(
    start_ns=st.integers(NOV_END * MS - 3_000_000_000, NOV_END * MS + 3_000_000_000),
    steps=st.lists(st.tuples(st.integers(0, 2_000_000_000), st.integers(0, 5)), max_size=8),
)
def test_events_are_in_order_and_every_month_has_its_own(
    start_ns: int, steps: list[tuple[int, int]]
) -> None:
    connection = made()
    events: list[ConnectionEvent] = [connection.accept(start_ns, HEADS, FACTS)]
    connection.establish()
    now_ns, total = start_ns, 0
    for wait_ns, count in steps:
        now_ns += wait_ns
        total += count
        made_now = connection.checkpoint(now_ns, connection.counters((total, 0, 0, 0)))
        # A watermark may name the present millisecond: nothing may be stamped before it later on,
        # but for the month's own checkpoint, which holds the watermark back.
        assert all(to_ms(e.time) >= now_ns // MS or to_ms(e.time) == NOV_END - 1 for e in made_now)
        events += made_now
    events += closed(connection, now_ns, (total, 0, 0, 0))
    assert [event.data.seq for event in events] == list(range(len(events)))
    assert [event.id for event in events] == [f"c1-{n}" for n in range(len(events))]
    elapsed = [event.data.elapsed_ms for event in events]
    assert elapsed == sorted(elapsed)
    counters = [counters_of(event.data) for event in events]
    assert all(b.at_least(a) == b for a, b in pairwise(counters))
    crossed = month_of(to_ms(events[0].time)) < month_of(to_ms(events[-1].time))
    at_boundary = [e for e in events[1:] if to_ms(e.time) == NOV_END - 1]
    assert (len(at_boundary) >= 1) is crossed or to_ms(events[-1].time) == NOV_END - 1


def test_a_connection_ends_once() -> None:
    connection = made()
    with pytest.raises(AssertionError):
        closed(connection, 0)
    connection.accept(0, HEADS, FACTS)
    closed(connection, 0)
    assert connection.phase == Phase.CLOSED
    with pytest.raises(AssertionError):
        closed(connection, 0)


@pytest.mark.parametrize(
    ("through_ms", "elapsed_ms"), [(0, 500), (NOV_END + 400, 500), (NOV_END + 90_000, 90_000)]
)
def test_a_lost_connection_ends_at_its_last_proof_of_life(through_ms: int, elapsed_ms: int) -> None:
    connection = made()
    connection.accept(NOV_END * MS, HEADS, FACTS)
    connection.establish()
    (latest,) = connection.checkpoint((NOV_END + 500) * MS, connection.counters((9, 8, 7, 6)))
    end = lost(latest, PLACE, through_ms)
    assert (end.id, end.data.seq) == ("c1-2", 2)
    assert end.data.elapsed_ms == elapsed_ms
    assert to_ms(end.time) == NOV_END + elapsed_ms
    assert counters_of(end.data) == counters_of(latest.data)
    assert (end.data.reason, end.data.closed_by) == (Reason.EDGE_CRASHED, "lost")
