"""The production form under faults: any process, the broker and the database die at random moments
under load, and the bill comes out right by the load generator's own record.

`HANDOFF_TEST_FAULT_ROUNDS` says how often each is killed: once in `make test`, five times in
`make fault`.
"""

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, serve

from support.distributed import Distributed, distributed
from support.embedded import make_tenant
from support.parts import choice
from support.parts.kafka import Broker
from support.parts.postgres import Database
from support.reconciliation import reconciled
from support.witness import Load

ROUNDS = int(os.environ.get("HANDOFF_TEST_FAULT_ROUNDS", "1"))
pytestmark = [pytest.mark.timeout(180 + 300 * ROUNDS), pytest.mark.xdist_group("fault-kafka")]
PROCESSES = ("edge", "metering", "billing", "config")


@pytest.fixture
async def origin() -> AsyncIterator[int]:
    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async with serve(echo, "127.0.0.1", 0, ping_interval=None) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    async with choice.new_broker(tmp_path / "kafka") as started:
        yield started


@pytest.fixture
async def server() -> AsyncIterator[Database]:
    async with choice.new_server() as started:
        yield started


@contextlib.asynccontextmanager
async def churning(load: Load, chance: random.Random) -> AsyncIterator[None]:
    """Clients come and go for as long as the context lasts; some stay."""

    async def churn() -> None:
        while True:
            await load.open(chance.randint(2, 8), talk=0.3)
            await asyncio.sleep(chance.uniform(0.05, 0.3))
            there = load.open_ones
            if len(there) > 60:
                await load.close_some(chance.sample(there, 20))

    task = asyncio.create_task(churn())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_whatever_is_killed_nothing_is_lost_and_nothing_is_billed_twice(
    tmp_path: Path, origin: int, broker: Broker, server: Database
) -> None:
    chance = random.Random(20_261)
    async with distributed(tmp_path / "system", broker.bootstrap, server.address) as system:
        await system.start()
        tenant = await make_tenant(system, origin_port=origin)
        load = Load(system.edge_port, tenant.domain)
        faults: list[Callable[[], Awaitable[None]]] = [
            *(lambda name=name: kill(system, name) for name in PROCESSES),
            lambda: restart(broker),
            lambda: restart(server),
        ]
        async with churning(load, chance):
            for _ in range(ROUNDS):
                for fault in chance.sample(faults, len(faults)):
                    await asyncio.sleep(chance.uniform(0.2, 2.5))
                    await fault()
            await asyncio.sleep(1)
        await load.close_all()
        report = await reconciled(system, tenant, load)
        assert report.witnessed > 50 * ROUNDS
        assert {d.code for d in report.explained} <= {"billed_too_short", "not_seen"}
        statuses = await system.stop()
    assert set(statuses.values()) == {0}, statuses


async def kill(system: Distributed, name: str) -> None:
    await system.kill(name)
    await system.restart(name)


async def restart(part: Broker | Database) -> None:
    await part.kill()
    await part.restart()
