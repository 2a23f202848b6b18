"""Stops in order under load: every client is told why, between two frames; every connection has its
`closed`. A single edge, and the workers of a node one after the other."""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from handoff_common import codec
from handoff_common.events import ConnectionAccepted, ConnectionClosed, ConnectionEvent, Reason
from handoff_common.log import Partition
from handoff_common.log_kafka import KafkaLog
from handoff_common.topics import CONNECTIONS
from support.echoing_clients import Crowd
from support.edge_events import customer, service
from support.edge_process import EdgeProcess, edge_process
from support.edge_world import Origin, backend_of, publish
from support.parts.kafka import Broker
from support.parts.processes import Process
from support.parts.waiting import eventually

CLIENTS = int(os.environ.get("HANDOFF_TEST_CONNECTIONS", "300"))
NODE_CLIENTS = int(os.environ.get("HANDOFF_TEST_CONNECTIONS", "150"))
"""At a single edge, and at a node of several, where all of them come back twice."""
WORKERS = 2


def told(crowd: Crowd) -> None:
    """Every one, whole frames before it, and nothing behind it."""
    assert Counter(client.fault for client in crowd.clients) == {"": len(crowd.clients)}
    assert {client.told and client.told[0] for client in crowd.clients} == {1001}
    assert all(client.told and client.told[1] for client in crowd.clients), "with a reason"


def all_closed(events: Sequence[ConnectionEvent], *, opened: int, drained: int) -> None:
    accepted = {e.data.connection_id for e in events if isinstance(e, ConnectionAccepted)}
    closed = [e for e in events if isinstance(e, ConnectionClosed)]
    # Once: after a stop in order, nothing is told again.
    assert sorted(accepted) == sorted(e.data.connection_id for e in closed)
    reasons = Counter(e.data.reason for e in closed)
    # One that was accepted as the edge stopped may have left before it saw its 101.
    assert len(closed) - reasons[Reason.NEVER_ESTABLISHED] == opened
    assert reasons[Reason.DRAINED] == drained
    assert {e.data.close_code for e in closed if e.data.reason is Reason.DRAINED} == {1001}


async def test_a_stop_under_load(tmp_path: Path) -> None:
    async with Origin().serving() as origin:
        origin.early_seconds = 0
        configuration = service(2, backends=(backend_of(origin),)), customer(3)
        async with edge_process(tmp_path / "edge", *configuration, drain_spread=1) as edge:
            crowd = Crowd(edge.port)
            await crowd.join(CLIENTS)

            async def talking() -> bool | None:
                return all(client.echoes for client in crowd.clients) or None

            await eventually(talking, "each client has had an echo")
            stopping = asyncio.create_task(edge.process.stop())
            await crowd.all_ended()
            assert await stopping == 0
            told(crowd)
            events = await edge.events()
        all_closed(events, opened=CLIENTS, drained=CLIENTS)


@pytest.mark.timeout(300)
@pytest.mark.xdist_group("fault-kafka")
async def test_workers_that_are_restarted_one_after_the_other(
    tmp_path: Path, broker: Broker
) -> None:
    address = f"kafka://{broker.bootstrap}"
    topics = Process(
        "topics",
        [sys.executable, "-m", "handoff_common.log_kafka", "create"],
        tmp_path / "topics.out",
        {"HANDOFF_LOG": address, "HANDOFF_TOPIC_REPLICATION": "1", "HANDOFF_TOPIC_PARTITIONS": "4"},
    )
    await topics.start()

    async def made() -> int | None:
        return topics.exit_status

    assert await eventually(made, "the topics are made", seconds=60) == 0, topics.tail()
    log = KafkaLog(broker.bootstrap)
    folder = tmp_path / "edge"
    folder.mkdir()
    edge = EdgeProcess(
        folder, log=address, topic_replication=1, edge_workers=WORKERS, drain_spread=0.5
    )
    try:
        async with Origin().serving() as origin:
            origin.early_seconds = 0
            await publish(log, service(2, backends=(backend_of(origin),)), customer(3))
            await edge.process.start()
            await edge.ready()
            crowd = Crowd(edge.port)
            await crowd.join(NODE_CLIENTS)
            before = await workers(edge)
            os.kill(edge.process.pid, signal.SIGHUP)
            # Whoever is ended comes back at once, as clients do: the other worker has the port.
            over = asyncio.Event()
            returning = asyncio.create_task(returns(crowd, over))
            await edge.process.wait_line('"event":"workers_restarted"', seconds=200)
            over.set()
            await returning
            after = await workers(edge)
            assert not {w["pid"] for w in before} & {w["pid"] for w in after}
            assert crowd.refused == 0
            drained = sum(client.ended.is_set() for client in crowd.clients)
            assert drained >= NODE_CLIENTS, "each worker was restarted"
            # As systemd stops a unit: a signal to each of its processes, not to the first alone.
            for worker in after:
                os.kill(worker["pid"], signal.SIGTERM)
            stopping = asyncio.create_task(edge.process.stop())
            await crowd.all_ended()
            assert await stopping == 0
            told(crowd)
        all_closed(await told_to(log), opened=len(crowd.clients), drained=len(crowd.clients))
    finally:
        await edge.process.stop()
        await log.close()


async def told_to(log: KafkaLog) -> list[ConnectionEvent]:
    """Every connection event that has reached the log."""

    async def from_start(_: Sequence[Partition]) -> dict[Partition, int]:
        return {}

    subscription = log.subscribe([CONNECTIONS.name], group=None, positions=from_start)
    found: list[ConnectionEvent] = []
    async with asyncio.timeout(60):
        while not await subscription.caught_up():
            for batch in await subscription.fetch(max_records=5_000, timeout=0.2):
                found += [codec.decode(r.topic, r.value) for r in batch.records]
    await subscription.close()
    return found


async def workers(edge: EdgeProcess) -> list[dict[str, int]]:
    async with httpx.AsyncClient(trust_env=False) as client:
        found = (await client.get(f"{edge.admin}/v1/edge")).json()["workers"]
    return list(found)


async def returns(crowd: Crowd, over: asyncio.Event) -> None:
    """Have a new client come for each that is ended."""
    gone = sum(client.ended.is_set() for client in crowd.clients)
    while not over.is_set():
        now = sum(client.ended.is_set() for client in crowd.clients)
        if now > gone:
            await crowd.join(now - gone)
            gone = now
        await asyncio.sleep(0.02)
