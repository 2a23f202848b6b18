"""The production form under faults: any process, the broker and the database die at random moments
under load, and the bill comes out right by the load generator's own record.

`HANDOFF_TEST_FAULT_ROUNDS` says how often each is killed: once in `make test`, five times in
`make fault`.
"""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from support.churn import churning
from support.distributed import Distributed, distributed
from support.embedded import make_tenant
from support.parts.kafka import Broker
from support.parts.postgres import Database
from support.reconciliation import reconciled
from support.witness import Load

ROUNDS = int(os.environ.get("HANDOFF_TEST_FAULT_ROUNDS", "1"))
pytestmark = [pytest.mark.timeout(180 + 300 * ROUNDS), pytest.mark.xdist_group("fault-kafka")]
PROCESSES = ("edge", "metering", "billing", "config")


async def test_whatever_is_killed_nothing_is_lost_and_nothing_is_billed_twice(
    tmp_path: Path, origin: int, broker: Broker, server: Database
) -> None:
    chance = random.Random(20_261)
    async with distributed(
        tmp_path / "system", broker.bootstrap, server.address, jobs=True
    ) as system:
        await system.start()
        tenant = await make_tenant(system, origin_port=origin)
        await system.edges_know()
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
