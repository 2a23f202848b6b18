"""How connections end: told by the configuration, by a control, by time, by a stop."""

import asyncio
import gc
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from handoff_common.clock import ManualClock
from handoff_common.events import ConnectionAccepted, ConnectionClosed, Limits, Reason
from handoff_common.log_sqlite import SqliteLog
from handoff_common.topics import CONNECTIONS
from handoff_edge.tunnels import relay_limits
from support.edge_events import (
    cap,
    contract,
    customer,
    end_connection,
    request_bytes,
    service,
)
from support.edge_world import (
    Origin,
    World,
    backend_of,
    connection_events,
    parse,
    soon,
    until,
    world,
)

NOON = datetime(2026, 11, 10, 12, tzinfo=UTC)
FRAME = b"\x81\x85\x01\x02\x03\x04ieoha"


async def closes(w: World, count: int) -> list[ConnectionClosed]:
    await until(lambda: not len(w.edge.tunnels), "every connection has ended")
    assert await w.edge.recorder.flushed(timeout=5)
    found = [event for event in await w.events() if isinstance(event, ConnectionClosed)]
    assert len(found) == count
    return found


def enabled(w: World, revision: int, **changes: Any) -> Any:
    return service(revision, backends=(backend_of(w.origin),), **changes)


async def test_disabling_closes_open_connections_with_1001(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        clients = [await w.open() for _ in range(3)]
        await w.tell(enabled(w, 101, websockets_enabled=False))
        for client in clients:
            assert (await client.told())[0] == 1001
        for event in await closes(w, 3):
            assert (event.data.reason, event.data.closed_by) == (Reason.DISABLED, "edge")
            assert event.data.close_code == 1001
        status, headers, _ = await w.ask(request_bytes())
        assert (status, headers["x-handoff-error"]) == (403, "not_enabled")


async def test_keep_open_leaves_open_connections_alone(tmp_path: Path) -> None:
    async with world(tmp_path, disable_grace=0) as w:
        client = await w.open()
        await w.tell(enabled(w, 101, websockets_enabled=False, keep_open=True))
        w.edge.enforcement.look()
        await client.send(FRAME)
        assert await client.exactly(len(FRAME)) == FRAME
        assert len(w.edge.tunnels) == 1


async def test_enabling_again_during_the_spread_takes_the_ends_back(tmp_path: Path) -> None:
    async with world(tmp_path, disable_grace=3600) as w:
        client = await w.open()
        await w.tell(enabled(w, 101, websockets_enabled=False))
        (opened,) = w.edge.tunnels
        await until(lambda: opened.ending, "its end is set")
        await w.tell(enabled(w, 102))
        await until(lambda: not opened.ending, "its end is taken back")
        await client.send(FRAME)
        assert await client.exactly(len(FRAME)) == FRAME


async def test_an_end_that_is_due_looks_once_more(tmp_path: Path) -> None:
    async with world(tmp_path, disable_grace=0.2) as w:
        client = await w.open()
        (opened,) = w.edge.tunnels
        book = w.edge.configuration.book
        book.apply(enabled(w, 101, websockets_enabled=False))
        w.edge.enforcement.look()
        assert opened.ending is not None
        book.apply(enabled(w, 102))
        await until(lambda: opened.ending is None, "its time has come")
        await client.send(FRAME)
        assert await client.exactly(len(FRAME)) == FRAME
        assert opened.ending_reason is None


async def test_a_contracts_end_stops_new_ones_at_once_and_open_ones_after_the_grace(
    tmp_path: Path,
) -> None:
    clock = ManualClock(NOON)
    async with world(tmp_path, clock=clock, contract_grace=600) as w:
        ends = (contract(NOON - timedelta(days=1), NOON + timedelta(minutes=5)),)
        await w.tell(customer(101, contracts=ends))
        client = await w.open()
        clock.advance(seconds=300)
        status, headers, _ = await w.ask(request_bytes())
        assert (status, headers["x-handoff-error"]) == (403, "no_contract")
        clock.advance(seconds=599, ms=999)
        w.edge.enforcement.look()
        await client.send(FRAME)
        assert await client.exactly(len(FRAME)) == FRAME
        clock.advance(ms=1)
        w.edge.enforcement.look()
        assert (await client.told())[0] == 1008
        (event,) = await closes(w, 1)
        assert (event.data.reason, event.data.close_code) == (Reason.CONTRACT_ENDED, 1008)


@pytest.mark.parametrize(
    ("change", "refusal"),
    [({"suspended": True}, "suspended"), ({"account_type": "trial"}, "trial_account")],
    ids=["suspended", "trial"],
)
async def test_a_barred_account_loses_its_open_ones_after_the_grace(
    tmp_path: Path, change: dict[str, Any], refusal: str
) -> None:
    clock = ManualClock(NOON)
    async with world(tmp_path, clock=clock, contract_grace=600) as w:
        client = await w.open()
        await w.tell(customer(101, **change))
        status, headers, _ = await w.ask(request_bytes())
        assert (status, headers["x-handoff-error"]) == (403, refusal)
        w.edge.enforcement.look()
        clock.advance(seconds=599, ms=999)
        w.edge.enforcement.look()
        await client.send(FRAME)
        assert await client.exactly(len(FRAME)) == FRAME
        clock.advance(ms=1)
        w.edge.enforcement.look()
        assert (await client.told())[0] == 1008
        (event,) = await closes(w, 1)
        assert (event.data.reason, event.data.close_code) == (Reason.CONTRACT_ENDED, 1008)


async def test_a_deactivated_version_ends_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client = await w.open()
        await w.tell(service(101, active_version=None, domains=(), backends=()))
        status, headers, _ = await w.ask(request_bytes())
        assert (status, headers["x-handoff-error"]) == (421, "unknown_domain")
        w.edge.enforcement.look()
        await client.send(FRAME)
        assert await client.exactly(len(FRAME)) == FRAME


async def test_one_connection_is_ended_by_its_name(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        kept = await w.open()
        (first,) = [opened.connection.connection_id for opened in w.edge.tunnels]
        ended = await w.open()
        (second,) = {opened.connection.connection_id for opened in w.edge.tunnels} - {first}
        past = datetime(2020, 1, 1, tzinfo=UTC)
        future = datetime(2100, 1, 1, tzinfo=UTC)
        await w.tell(end_connection(first, past), end_connection(second, future, "too loud"))
        assert await ended.told() == (1008, "too loud")
        await until(lambda: len(w.edge.tunnels) == 1)
        w.edge.enforcement.look()
        await kept.send(FRAME)
        assert await kept.exactly(len(FRAME)) == FRAME
        assert await w.edge.recorder.flushed(timeout=5)
        (event,) = [e for e in await w.events() if isinstance(e, ConnectionClosed)]
        assert event.data.connection_id == second
        assert event.data.reason is Reason.ENDED_BY_OPERATOR


async def test_a_hard_cap_refuses_and_ends_if_asked(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client = await w.open()
        await w.tell(cap())
        w.edge.enforcement.look()
        _, headers, _ = await w.ask(request_bytes())
        assert headers["x-handoff-error"] == "over_budget"
        assert len(w.edge.tunnels) == 1
        await w.tell(cap(end_open=True))
        assert (await client.told())[0] == 1013
        (event,) = await closes(w, 1)
        assert event.data.reason is Reason.OVER_BUDGET


async def test_a_stop_drains_and_every_connection_has_its_closed(tmp_path: Path) -> None:
    async with world(tmp_path, drain_grace=0.2, drain_spread=0.1) as w:
        clients = [await w.open() for _ in range(5)]
        stopping = asyncio.create_task(w.edge.stop())
        await until(lambda: "draining" in w.edge.not_ready())
        status, headers, _ = await w.ask(request_bytes())
        assert (status, headers["x-handoff-error"]) == (503, "draining")
        assert headers["connection"] == "close"
        clients[0].writer.close()
        for client in clients[1:]:
            assert (await client.told())[0] == 1001
        await soon(stopping)
        events = [event for event in await w.events() if isinstance(event, ConnectionClosed)]
        assert sorted(event.data.reason for event in events) == ["client_closed"] + ["drained"] * 4
        assert await w.log.held(CONNECTIONS.name) == {}
        assert (await w.watermark()).data.ended


async def test_a_drain_takes_its_spread_however_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn of the loop for each connection would take a millisecond each, and so longer than who
    stops the edge waits for it."""
    turns = 0
    sleep = asyncio.sleep

    async def counted(delay: float) -> None:
        nonlocal turns
        turns += 1
        await sleep(delay)

    async with world(tmp_path, close_grace=0.2) as w:
        for _ in range(60):
            await w.open()
        loop = asyncio.get_running_loop()
        began = loop.time()
        monkeypatch.setattr("handoff_edge.enforcement.asyncio.sleep", counted)
        draining = asyncio.create_task(w.edge.enforcement.drain(grace=0, spread=0.3))
        await until(lambda: any(o.ending_reason for o in w.edge.tunnels), "the first was told")
        assert not all(o.ending_reason for o in w.edge.tunnels), "and the last was not"
        await soon(draining)
        monkeypatch.undo()
        assert loop.time() - began >= 0.29
        assert 2 <= turns <= 20
        assert all(o.ending_reason for o in w.edge.tunnels)


async def test_a_stop_gives_up_handshakes_that_are_not_in_the_journal(tmp_path: Path) -> None:
    async def never(_: bytes) -> bytes:
        await asyncio.sleep(3600)
        return b""

    async with world(tmp_path, origin=Origin(never)) as w:
        client = await w.connect()
        await client.send(request_bytes())
        await until(lambda: w.origin.visits)
        stopping = asyncio.create_task(w.edge.stop())
        status, headers, _ = parse(await client.rest())
        assert (status, headers["x-handoff-error"]) == (503, "draining")
        await soon(stopping)
        assert await w.events() == []


async def test_a_stop_does_not_wait_for_peers_that_never_answer(tmp_path: Path) -> None:
    """Neither side closes on its Close frame: the relay cuts them, and `closed` is written."""
    origin = Origin()
    origin.echo = False
    async with world(
        tmp_path,
        origin=origin,
        close_grace=0.2,
        service_changes={"limits": Limits(idle_timeout_ms=3_600_000)},
    ) as w:
        client = await w.open()
        stopping = asyncio.create_task(w.edge.stop())
        while not (await w.watermark()).data.ended:
            await asyncio.sleep(0.01)
        (event,) = [e for e in await w.events() if isinstance(e, ConnectionClosed)]
        assert event.data.reason is Reason.DRAINED
        client.writer.close()
        await soon(stopping)


async def test_a_clients_end_reaches_the_origin_and_its_answer_comes_back(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client = await w.open()
        await client.send(FRAME)
        client.writer.write_eof()
        assert await client.rest() == FRAME
        (event,) = await closes(w, 1)
        assert event.data.reason is Reason.CLIENT_CLOSED
        assert w.origin.visits[0].ended


async def test_resets_are_told_apart(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client = await w.open()
        client.reset()
        (event,) = await closes(w, 1)
        assert (event.data.reason, event.data.closed_by) == (Reason.CLIENT_RESET, "client")


async def test_the_close_code_of_a_peer_is_kept(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client = await w.open()
        await client.send(b"\x88\x82\x00\x00\x00\x00\x03\xe8")
        client.writer.write_eof()
        await client.rest()
        (event,) = await closes(w, 1)
        assert (event.data.reason, event.data.close_code) == (Reason.CLIENT_CLOSED, 1000)


async def test_nothing_is_left_after_many_connections_with_resets(tmp_path: Path) -> None:
    async with world(tmp_path) as w:

        async def one(number: int) -> None:
            client = await w.open(target=f"/{number}")
            await client.send(FRAME)
            assert await client.exactly(len(FRAME)) == FRAME
            match number % 4:
                case 0:
                    client.reset()
                case 1:
                    client.writer.close()
                case 2:
                    client.writer.write_eof()
                    await client.rest()
                case _:
                    asked = f"GET /{number} ".encode()
                    (visit,) = [v for v in w.origin.visits if v.head.startswith(asked)]
                    assert visit.writer is not None
                    visit.writer.transport.abort()
                    assert await client.rest() == b""

        for start in range(0, 120, 24):
            await asyncio.gather(*(one(number) for number in range(start, start + 24)))
        events = await closes(w, 120)
        assert len({event.data.connection_id for event in events}) == 120
        mark = await w.edge.recorder.watermark()
        assert (mark.data.accepted_total, mark.data.closed_total) == (120, 120)
        assert w.edge.counts.counts("svc", 0).open == 0


async def test_connections_that_nobody_refers_to_do_not_vanish(tmp_path: Path) -> None:
    """The trap: what only the event loop knew of was collected, and its `closed` with it."""
    origin = Origin()
    origin.echo = False
    async with world(tmp_path, origin=origin) as w:
        clients = [await w.open() for _ in range(10)]
        for client in clients:
            await client.send(FRAME)
        for _ in range(3):
            gc.collect()
            await asyncio.sleep(0)
        assert len(w.edge.tunnels) == 10
        for client in clients:
            client.reset()
        assert {event.data.reason for event in await closes(w, 10)} == {Reason.CLIENT_RESET}


async def test_a_restart_takes_clients_again(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.open()
    log = await SqliteLog.open(tmp_path / "log.db")
    try:
        async with world(tmp_path, log=log) as w:
            await w.tell(service(200, backends=(backend_of(w.origin),)))
            await w.open()
        events = await connection_events(log)
        for kind in (ConnectionAccepted, ConnectionClosed):
            assert sum(isinstance(event, kind) for event in events) == 2
        assert len({event.data.edge_id for event in events}) == 1
    finally:
        await log.close()


def test_a_services_limits_reach_the_relay() -> None:
    limits = relay_limits(
        Limits(idle_timeout_ms=0, max_duration_ms=10_000, max_bytes_per_second=0), "svc", 5000
    )
    assert (limits.idle_ms, limits.bytes_per_second, limits.pace_key) == (1, 1, "svc")
    assert limits.max_duration_ms is not None
    assert 9_000 <= limits.max_duration_ms <= 10_000
    assert relay_limits(Limits(), "svc", 5000).max_duration_ms is None


@pytest.mark.parametrize(("pace", "share"), [(1000, 333), (3, 1), (0, 1), (None, None)])
def test_a_services_bytes_per_second_are_divided_among_workers(
    pace: int | None, share: int | None
) -> None:
    limits = relay_limits(Limits(max_bytes_per_second=pace), "svc", 5000, workers=3)
    assert limits.bytes_per_second == share


async def test_a_stop_has_time_for_any_drain(tmp_path: Path) -> None:
    grace, spread, close = 3600.0, 60.0, 30.0
    async with world(tmp_path, drain_grace=grace, drain_spread=spread, close_grace=close) as w:
        assert w.edge.service.stop_seconds > grace + spread + close
