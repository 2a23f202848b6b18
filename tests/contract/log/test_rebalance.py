"""A projection on Kafka while its group's partitions are dealt out anew: each event is folded once,
whatever was under way; and what says that it has read everything has."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from contract.common.test_projection import METADATA, PARKED, POSITIONS, Counting, Rig
from handoff_common.clock import SystemClock
from handoff_common.database import Database
from handoff_common.log import Partition
from handoff_common.log_kafka import KafkaLog
from handoff_common.log_kafka.topics import Wanted, create
from handoff_common.projection import Folded, Projector
from handoff_common.topics import CONNECTIONS
from support.parts.kafka import Broker
from support.parts.waiting import eventually

pytestmark = [pytest.mark.xdist_group("kafka"), pytest.mark.timeout(120)]


@pytest.fixture
async def rig(tmp_path: Path, kafka: Broker) -> AsyncIterator[Rig]:
    await create(kafka.bootstrap, Wanted(partitions=4, replication=1))
    log = KafkaLog(kafka.bootstrap)
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'state.db'}")
    async with database.transaction() as tx:
        await tx.run_sync(METADATA.create_all)
    yield Rig(log, database)  # type: ignore[arg-type]  # a log is a log
    await log.close()
    await database.close()


async def test_reading_to_the_end_reads_to_the_end(rig: Rig) -> None:
    await rig.write(40, 1)
    await rig.projector().run_to_end()
    assert await rig.counts() == {f"c{n}": 1 for n in range(40)}


async def test_a_batch_under_way_is_not_folded_twice(rig: Rig, kafka: Broker) -> None:
    await rig.write(40, 2)
    going = asyncio.Event()
    joined = asyncio.Event()

    class Slow(Counting):
        max_batch = 1_000

        async def apply(
            self, tx: AsyncConnection, partition: Partition, batch: Sequence[Folded]
        ) -> None:
            going.set()
            await joined.wait()
            await super().apply(tx, partition, batch)

    projector = Projector(
        Slow(),
        log=rig.log,
        database=rig.database,
        positions=POSITIONS,
        parked=PARKED,
        clock=SystemClock(),
    )
    running = asyncio.create_task(projector.run())
    await asyncio.wait_for(going.wait(), 30)

    async def nowhere(_: Sequence[Partition]) -> Mapping[Partition, int]:
        return {}

    other = KafkaLog(kafka.bootstrap)
    member = other.subscribe([CONNECTIONS.name], group="counting", positions=nowhere)

    async def shared() -> bool | None:
        await member.fetch(max_records=1, timeout=0.1)
        return 0 < len(member.assigned) < 4 or None

    await eventually(shared, "both have partitions", seconds=40)
    joined.set()

    async def idle() -> None:
        while True:
            await member.fetch(max_records=1, timeout=0.2)

    idling = asyncio.create_task(idle())
    own = {p.number for p in projector.positions}
    assert own and len(own) < 4
    await rig.write(40, 1)

    async def folded() -> bool | None:
        assert not running.done()
        ends = await rig.log.ends(CONNECTIONS.name)
        return (
            all(projector.position(Partition(CONNECTIONS.name, n)) >= ends[n][1] for n in own)
            or None
        )

    await eventually(folded, "the rest is folded", seconds=40)
    assert max((await rig.counts()).values()) <= 3, "2 before and 1 after, none twice"
    for task in (running, idling):
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    await member.close()
    await other.close()
