"""What the journal holds: `accepted` before the 101, and all behind it, over crashes and months."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from handoff_common import codec
from handoff_common.clock import ManualClock
from handoff_common.errors import LogError
from handoff_common.events import (
    ConnectionAccepted,
    ConnectionBytes,
    ConnectionClosed,
    Counters,
    EdgeWatermark,
    Reason,
    counters_of,
)
from handoff_common.instants import to_ms
from handoff_common.log import Message
from handoff_common.log_sqlite import SqliteLog
from handoff_common.telemetry import new_registry
from handoff_common.topics import CONNECTIONS
from handoff_edge.connection import Connection, Facts, Place
from handoff_edge.delivery import Direct
from handoff_edge.metrics import Metrics
from handoff_edge.recorder import Recorder
from handoff_edge.recovery import recover
from support.edge_events import request_bytes, service
from support.edge_world import World, all_records, edge_events, publish, until, world
from support.faulty_log import Faulty

FRAME = b"\x81\x85\x01\x02\x03\x04ieoha"
DECEMBER = to_ms(datetime(2026, 12, 1, tzinfo=UTC))


@asynccontextmanager
async def faulty(tmp_path: Path, **settings: Any) -> AsyncIterator[tuple[World, Faulty]]:
    log = Faulty(await SqliteLog.open(tmp_path / "log.db"), CONNECTIONS.name)
    try:
        async with world(tmp_path, log=log, **settings) as w:
            yield w, log
    finally:
        log.gate.set()
        await log.close()


async def close_and_wait(w: World, client: Any, events: int) -> list[Any]:
    client.writer.close()
    await until(lambda: not len(w.edge.tunnels))
    assert await w.edge.recorder.flushed(timeout=5)
    found = await w.events()
    assert len(found) == events
    return found


async def test_a_connection_from_accepted_to_closed(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client = await w.open()
        accepted = (await w.events())[0]
        assert isinstance(accepted, ConnectionAccepted)
        await client.send(FRAME)
        assert await client.exactly(len(FRAME)) == FRAME
        _, closed = await close_and_wait(w, client, 2)
        assert isinstance(closed, ConnectionClosed)
        assert closed.data.reason in (Reason.CLIENT_CLOSED, Reason.ORIGIN_CLOSED)
        counters = counters_of(closed.data)
        assert counters[1::2] == (len(FRAME),) * 4
        assert counters.resp_header_bytes == counters.beresp_header_bytes > 0
        assert (counters.req_header_bytes, counters.bereq_header_bytes) == (
            len(w.origin.visits[0].head),
        ) * 2
        assert await w.log.held(CONNECTIONS.name) == {}


async def test_no_101_without_a_durable_accepted(tmp_path: Path) -> None:
    async with faulty(tmp_path) as (w, log):
        log.gate.clear()
        client = await w.connect()
        await client.send(request_bytes())
        await until(lambda: w.edge.recorder.backlog, "the append is under way")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.reader.read(1), 0.05)
        log.gate.set()
        assert (await client.head()).startswith(b"HTTP/1.1 101 ")
        assert len(await w.events()) == 1


async def test_a_failing_journal_means_503_and_nothing_open(tmp_path: Path) -> None:
    async with faulty(tmp_path) as (w, log):
        log.failing = True
        status, headers, _ = await w.ask(request_bytes())
        assert (status, headers["x-handoff-error"]) == (503, "journal_unavailable")
        assert await w.events() == []
        assert len(w.edge.tunnels) == 0
        await until(lambda: w.origin.visits[0].ended)
        assert any("journal" in reason for reason in w.edge.not_ready())
        log.failing = False
        await w.open()
        assert w.edge.not_ready() == []


async def test_open_connections_outlive_a_failing_journal(tmp_path: Path) -> None:
    async with faulty(tmp_path) as (w, log):
        staying, leaving = await w.open(), await w.open()
        log.failing = True
        for _ in range(3):
            await staying.send(FRAME)
            assert await staying.exactly(len(FRAME)) == FRAME
            await w.edge.checkpoints.all()
        leaving.writer.close()
        await until(lambda: len(w.edge.tunnels) == 1)
        attempts = log.attempts
        await until(lambda: log.attempts >= attempts + 2, "the append is tried again")
        # One checkpoint may be under way, and one waits: the newer takes the older one's place.
        assert w.edge.recorder.backlog <= 4
        log.failing = False
        assert await w.edge.recorder.flushed(timeout=10)
        events = await w.events()
        assert sum(isinstance(event, ConnectionClosed) for event in events) == 1
        told = [e.data.req_body_bytes for e in events if isinstance(e, ConnectionBytes)]
        assert max(told) == 3 * len(FRAME)


async def test_an_append_that_was_given_up_and_came_through_is_closed(tmp_path: Path) -> None:
    async with faulty(tmp_path, journal_timeout=0.1) as (w, log):
        log.gate.clear()
        status, headers, _ = await w.ask(request_bytes())
        assert (status, headers["x-handoff-error"]) == (503, "journal_unavailable")
        log.gate.set()
        assert await w.edge.recorder.flushed(timeout=5)
        accepted, closed = await w.events()
        assert isinstance(accepted, ConnectionAccepted) and isinstance(closed, ConnectionClosed)
        assert closed.data.reason is Reason.NEVER_ESTABLISHED
        assert await w.log.held(CONNECTIONS.name) == {}


async def test_while_an_append_hangs_nothing_is_kept_and_no_origin_asked(tmp_path: Path) -> None:
    async with faulty(tmp_path, journal_timeout=0.5) as (w, log):
        log.gate.clear()
        first = asyncio.create_task(w.ask(request_bytes()))
        await until(lambda: w.edge.recorder.backlog == 1, "its append is under way")
        behind = await asyncio.gather(*(w.ask(request_bytes()) for _ in range(20)))
        await until(lambda: w.edge.recorder.backlog == 1, "those behind it were given up")
        dialled = w.origin.connections
        later = await asyncio.gather(*(w.ask(request_bytes()) for _ in range(20)))
        for status, headers, _ in (await first, *behind, *later):
            assert (status, headers["x-handoff-error"]) == (503, "journal_unavailable")
        assert (w.edge.recorder.backlog, w.origin.connections) == (1, dialled)
        log.gate.set()
        assert await w.edge.recorder.flushed(timeout=5)
        assert len(await w.events()) == 2, "of the one that was written: accepted and closed"
        await w.open()
        assert w.edge.not_ready() == []


async def test_handshakes_that_come_together_share_an_append(tmp_path: Path) -> None:
    async with faulty(tmp_path) as (w, log):
        log.gate.clear()
        before = log.attempts
        opening = [asyncio.create_task(w.open()) for _ in range(30)]
        await until(lambda: w.edge.recorder.backlog == 30, "all wait for the journal")
        log.gate.set()
        await asyncio.gather(*opening)
        assert log.attempts - before < 10
        accepted = await w.events()
        assert len(accepted) == len(w.edge.tunnels) == w.edge.recorder.open_connections == 30


async def test_of_a_failed_append_every_handshake_is_refused(tmp_path: Path) -> None:
    async with faulty(tmp_path) as (w, log):
        log.gate.clear()
        log.failing = True
        asking = [asyncio.create_task(w.ask(request_bytes())) for _ in range(10)]
        await until(lambda: w.edge.recorder.backlog == 10, "all wait for the journal")
        log.gate.set()
        for status, headers, _ in await asyncio.gather(*asking):
            assert (status, headers["x-handoff-error"]) == (503, "journal_unavailable")
        assert w.edge.recorder.backlog == 0
        assert await w.events() == []


async def test_of_appends_that_come_through_only_the_given_up_ones_are_closed(
    tmp_path: Path,
) -> None:
    async with faulty(tmp_path, journal_timeout=1.5) as (w, log):
        log.gate.clear()
        early = asyncio.create_task(w.ask(request_bytes()))
        await until(lambda: w.edge.recorder.backlog == 1, "it waits for the journal")
        now = asyncio.get_running_loop().time
        began = now()
        await until(lambda: now() > began + 0.6, "it has waited for a while")
        late = asyncio.create_task(w.open())
        await until(lambda: w.edge.recorder.backlog == 2, "the other waits too")
        assert (await early)[0] == 503
        log.gate.set()
        await late
        assert await w.edge.recorder.flushed(timeout=5)
        [closed] = [event for event in await w.events() if isinstance(event, ConnectionClosed)]
        assert closed.data.reason is Reason.NEVER_ESTABLISHED
        [opened] = w.edge.tunnels
        assert opened.connection.connection_id != closed.data.connection_id
        assert [*await w.log.held(CONNECTIONS.name)] == [opened.connection.connection_id]


async def test_a_fault_behind_the_journal_still_gives_a_closed(tmp_path: Path) -> None:
    async with world(tmp_path) as w:

        def broken(*_: Any, **__: Any) -> None:
            raise ValueError("a fault")

        w.edge.tunnels.start = broken  # type: ignore[method-assign]
        client = await w.connect()
        await client.send(request_bytes())
        await client.rest()
        assert await w.edge.recorder.flushed(timeout=5)
        _, closed = await w.events()
        assert isinstance(closed, ConnectionClosed)
        assert (closed.data.reason, closed.data.closed_by) == (Reason.EDGE_CRASHED, "lost")
        assert await w.log.held(CONNECTIONS.name) == {}
        assert w.edge.counts.counts("svc", 0).open == 0


async def test_a_client_that_left_before_its_101_owes_nothing(tmp_path: Path) -> None:
    async with faulty(tmp_path) as (w, log):
        log.gate.clear()
        client = await w.connect()
        await client.send(request_bytes())
        await until(lambda: w.edge.recorder.backlog)
        client.reset()
        await asyncio.sleep(0.05)
        log.gate.set()
        await until(lambda: not w.edge.recorder.backlog)
        assert await w.edge.recorder.flushed(timeout=5)
        _, closed = await w.events()
        assert isinstance(closed, ConnectionClosed)
        assert closed.data.reason is Reason.NEVER_ESTABLISHED
        assert closed.data.resp_header_bytes == 0
        await until(lambda: w.origin.visits[0].ended)


async def test_checkpoints_only_where_something_changed(tmp_path: Path) -> None:
    clock = ManualClock(datetime(2026, 11, 10, 12, tzinfo=UTC))
    async with world(tmp_path, clock=clock) as w:
        busy, idle = await w.open(), await w.open()
        clock.advance(seconds=60)
        await w.edge.checkpoints.turn()
        assert await w.edge.recorder.flushed(timeout=5)
        before = {event.id for event in await w.events()}
        await busy.send(FRAME)
        await busy.exactly(len(FRAME))
        for _ in range(3):
            clock.advance(seconds=60)
            await w.edge.checkpoints.turn()
        assert await w.edge.recorder.flushed(timeout=5)
        later = [event for event in await w.events() if event.id not in before]
        assert len(later) == 1
        assert later[0].data.req_body_bytes == len(FRAME)
        assert idle is not busy


async def test_checkpoints_are_spread_over_the_interval(tmp_path: Path) -> None:
    clock = ManualClock(datetime(2026, 11, 10, 12, tzinfo=UTC))
    async with world(tmp_path, clock=clock) as w:
        for _ in range(12):
            await w.open()
        counts = []
        for _ in range(60):
            clock.advance(seconds=1)
            await w.edge.checkpoints.turn()
            assert await w.edge.recorder.flushed(timeout=5)
            counts.append(sum(isinstance(e, ConnectionBytes) for e in await w.events()))
        assert counts[-1] == 12
        steps = [b - a for a, b in pairwise([0, *counts])]
        assert max(steps) < 8


async def test_the_start_of_a_month_checkpoints_every_connection(tmp_path: Path) -> None:
    clock = ManualClock(datetime(2026, 11, 30, 23, 59, 50, tzinfo=UTC))
    async with world(tmp_path, clock=clock) as w:
        first, ends_first = await w.open(), await w.open()
        await first.send(FRAME)
        await first.exactly(len(FRAME))
        clock.advance(seconds=10, ms=5)
        mark = await w.edge.recorder.watermark()
        assert to_ms(mark.data.through) == DECEMBER - 1, "held until the month has been swept"
        ends_first.writer.close()
        await until(lambda: len(w.edge.tunnels) == 1)
        young = await w.open()
        await w.edge.checkpoints.turn()
        assert await w.edge.recorder.flushed(timeout=5)
        boundary = [
            event
            for event in await w.events()
            if isinstance(event, ConnectionBytes) and to_ms(event.time) == DECEMBER - 1
        ]
        assert len(boundary) == 2
        assert {event.data.elapsed_ms for event in boundary} == {9_999}
        assert max(event.data.req_body_bytes for event in boundary) == len(FRAME)
        mark = await w.edge.recorder.watermark()
        assert to_ms(mark.data.through) == clock.now_ms()
        assert young is not first


async def test_through_waits_for_what_is_not_acknowledged(tmp_path: Path) -> None:
    clock = ManualClock(datetime(2026, 11, 10, 12, tzinfo=UTC))
    start = clock.now_ms()
    log = Faulty(await SqliteLog.open(tmp_path / "log.db"), CONNECTIONS.name)
    try:
        async with world(tmp_path, log=log, clock=clock) as w:
            client = await w.open()
            clock.advance(seconds=7)
            log.failing = True
            client.writer.close()
            await until(lambda: not len(w.edge.tunnels))
            clock.advance(seconds=100)
            mark = await w.edge.recorder.watermark()
            assert to_ms(mark.data.through) == start + 7_000
            assert (mark.data.journal_backlog, mark.data.journal_age_ms) == (1, 100_000)
            assert (mark.data.accepted_total, mark.data.closed_total) == (1, 0)
            assert mark.data.open_connections == 1
            log.failing = False
            assert await w.edge.recorder.flushed(timeout=10)
            mark = await w.edge.recorder.watermark()
            assert to_ms(mark.data.through) == clock.now_ms()
            assert (mark.data.accepted_total, mark.data.closed_total) == (1, 1)
            ends = await log.ends(CONNECTIONS.name)
            expected = {str(number): end for number, (_, end) in ends.items() if end}
            assert mark.data.positions == expected
    finally:
        await log.close()


async def test_a_connection_being_opened_while_a_month_begins_holds_through(
    tmp_path: Path,
) -> None:
    """Accepted in November, its 101 sent in December: the sweep could not see it."""
    clock = ManualClock(datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC))
    log = await SqliteLog.open(tmp_path / "log.db")
    place = Place(log.owner_id, "europe", "local")
    recorder = Recorder(log, Direct(log), place, clock, Metrics(new_registry()))
    await recorder.start()
    await recorder.watermark()
    connection = Connection(place=place, connection_id="c", customer_id="u", service_id="s")
    facts = Facts("d", None, "b", 1, None, "")
    await recorder.accept(connection.accept(clock.now_ns(), Counters(), facts), list)
    clock.advance(seconds=2)
    recorder.month_swept(DECEMBER)
    assert recorder.through() == DECEMBER - 1
    connection.establish()
    recorder.record(connection.month_end(clock.now_ns(), Counters()))
    recorder.established("c")
    assert recorder.through() == DECEMBER - 1, "its checkpoint is not acknowledged yet"
    running = asyncio.create_task(recorder.run())
    assert await recorder.flushed(timeout=5)
    assert recorder.through() == clock.now_ms()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await log.close()


async def crash_with(tmp_path: Path, clock: ManualClock, connections: int) -> list[str]:
    """Leave a journal as a killed process does: connections held, no `closed`."""
    log = Faulty(await SqliteLog.open(tmp_path / "log.db"), CONNECTIONS.name)
    async with world(tmp_path, log=log, clock=clock) as w:
        for _ in range(connections):
            client = await w.open()
            await client.send(FRAME)
            await client.exactly(len(FRAME))
        clock.advance(seconds=30)
        await w.edge.checkpoints.all()
        assert await w.edge.recorder.flushed(timeout=5)
        clock.advance(seconds=60)
        await w.edge.recorder.watermark()
        ids = [opened.connection.connection_id for opened in w.edge.tunnels]
        # The process "dies" here: nothing that its stop writes reaches the log.
        real = log._log
        log._log = await SqliteLog.open(tmp_path / "nowhere.db")
        await real.close()
    await log.close()
    return ids


async def test_recovery_closes_what_a_crash_left_at_its_last_proof_of_life(tmp_path: Path) -> None:
    clock = ManualClock(datetime(2026, 11, 10, 12, tzinfo=UTC))
    ids = await crash_with(tmp_path, clock, 3)
    clock.advance(seconds=500)
    async with world(tmp_path, clock=clock, configured=False) as w:
        events = await w.events()
        closes = [event for event in events if isinstance(event, ConnectionClosed)]
        assert sorted(event.data.connection_id for event in closes) == sorted(ids)
        for event in closes:
            assert (event.data.reason, event.data.closed_by) == (Reason.EDGE_CRASHED, "lost")
            assert event.data.elapsed_ms == 90_000, "the watermark's through, not the event's"
            assert event.data.req_body_bytes == len(FRAME)
            assert event.data.seq == 2
        mark = await w.watermark()
        assert (mark.data.accepted_total, mark.data.closed_total) == (3, 3)
        assert mark.data.open_connections == 0
        assert mark.data.edge_id == events[0].data.edge_id == w.log.owner_id
        ends = await w.log.ends(CONNECTIONS.name)
        assert mark.data.positions == {str(n): end for n, (_, end) in ends.items() if end}
    log = await SqliteLog.open(tmp_path / "log.db")
    metrics = w.edge.metrics
    assert await recover(log, Place(log.owner_id, "europe", "local"), metrics) == []
    await log.close()


async def test_a_record_that_cannot_be_read_does_not_stop_the_others(tmp_path: Path) -> None:
    clock = ManualClock(datetime(2026, 11, 10, 12, tzinfo=UTC))
    await crash_with(tmp_path, clock, 2)
    log = await SqliteLog.open(tmp_path / "log.db")
    await log.append(CONNECTIONS.name, [Message("broken", b"{not json", keep="hold")])
    await log.close()
    async with world(tmp_path, clock=clock, configured=False) as w:
        records = await all_records(w.log, CONNECTIONS.name)
        decoded = [codec.decode(r.topic, r.value) for r in records if r.key != "broken"]
        assert sum(isinstance(event, ConnectionClosed) for event in decoded) == 2
        assert w.edge.metrics.unreadable._value.get() == 1
        assert list(await w.log.held(CONNECTIONS.name)) == ["broken"]


async def test_the_first_and_the_last_watermark(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        first = await w.watermark()
        assert not first.data.ended
        await w.open()
    log = await SqliteLog.open(tmp_path / "log.db")
    last = (await edge_events(log))[-1]
    assert isinstance(last, EdgeWatermark)
    assert last.data.ended
    assert (last.data.accepted_total, last.data.closed_total) == (1, 1)
    assert last.data.open_connections == last.data.journal_backlog == 0
    await log.close()
    async with world(tmp_path, configured=False) as w:
        again = await w.watermark()
        assert (again.data.ended, again.data.edge_id) == (False, first.data.edge_id)
        assert (again.data.accepted_total, again.data.closed_total) == (1, 1)


async def test_the_rule_book_is_there_before_the_log_is_read(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        assert w.edge.configuration.book.services == 1
    log = await SqliteLog.open(tmp_path / "log.db")
    from handoff_common.clock import SystemClock
    from handoff_edge.configuration import Configuration

    configuration = Configuration(log, SystemClock(), tmp_path / "rulebook.json")
    await configuration.load()
    assert configuration.seen and configuration.book.services == 1
    age = configuration.age_ms
    assert age is not None and 0 <= age < 60_000
    other = await SqliteLog.open(tmp_path / "other.db")
    stranger = Configuration(other, SystemClock(), tmp_path / "rulebook.json")
    await stranger.load()
    assert not stranger.seen, "a rule book of another log is not taken"
    (tmp_path / "rulebook.json").write_bytes(b"{broken")
    broken = Configuration(log, SystemClock(), tmp_path / "rulebook.json")
    await broken.load()
    assert not broken.seen
    await log.close()
    await other.close()


async def test_what_came_while_the_edge_was_gone_is_known_before_the_first_client(
    tmp_path: Path,
) -> None:
    log = await SqliteLog.open(tmp_path / "log.db")
    async with world(tmp_path, log=log):
        pass
    await publish(log, service(101, service_id="new", domains=("new.example.com",)))
    async with world(tmp_path, log=log, configured=False) as w:
        assert w.edge.port
        assert w.edge.configuration.book.services == 2
    await log.close()


class AwayLog(SqliteLog):
    """Its file is there, and it does not answer."""

    async def identity(self, topic: str) -> str:
        raise LogError(f"{topic}: no answer")


async def test_an_edge_whose_log_is_away_takes_clients_with_what_it_knew(tmp_path: Path) -> None:
    async with world(tmp_path):
        pass
    log = await AwayLog.open(tmp_path / "log.db")
    async with world(tmp_path, log=log, configured=False) as w:
        assert w.edge.port
        assert w.edge.configuration.book.services == 1
    await log.close()
