"""The projection loop: exactly once through restarts, conflicts and records that cannot be read."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Column, Integer, MetaData, String, Table, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from handoff_common import codec
from handoff_common.bulk import upsert
from handoff_common.clock import SystemClock
from handoff_common.database import NAMING, Database, ExactDecimal, move_position, projection_tables
from handoff_common.errors import PositionLost, Unreadable
from handoff_common.events import BytesData, ConnectionBytes
from handoff_common.log import Message, Partition
from handoff_common.log_sqlite import SqliteLog
from handoff_common.outbox import Outbox, enqueue, outbox_table
from handoff_common.projection import Folded, Parking, Projector
from handoff_common.topics import CONNECTIONS, CONTROLS
from support.databases import Engine, database_url
from support.databases import engine as engine

METADATA = MetaData(naming_convention=NAMING)
POSITIONS, PARKED = projection_tables(METADATA)
OUTBOX = outbox_table(METADATA)
COUNTS = Table(
    "counts",
    METADATA,
    Column("connection_id", String(64), primary_key=True),
    Column("seen", Integer, nullable=False),
)
EXACT = Table("exact", METADATA, Column("id", Integer, primary_key=True), Column("n", ExactDecimal))


class Counting:
    """Counts events per connection and tells the outbox; parks a connection named `bad`."""

    name = "counting"
    topics = (CONNECTIONS.name,)
    max_batch = 50

    def __init__(self) -> None:
        self.applied = 0
        self.die_after: int | None = None

    async def apply(
        self, tx: AsyncConnection, partition: Partition, batch: Sequence[Folded]
    ) -> None:
        for index, folded in enumerate(batch):
            if folded.event.data.connection_id == "bad":
                raise Parking(index, Unreadable("retired", "its connection is gone", "cust"))
        for folded in batch:
            key = folded.event.data.connection_id
            seen = await tx.scalar(select(COUNTS.c.seen).where(COUNTS.c.connection_id == key))
            row = {"connection_id": key, "seen": (seen or 0) + 1}
            await upsert(tx, COUNTS, [row], keys=["connection_id"], update=["seen"])
            await enqueue(tx, OUTBOX, [(CONTROLS.name, Message(key, b"{}"))])
        self.applied += len(batch)
        if self.die_after is not None and self.applied >= self.die_after:
            raise RuntimeError("killed between the fold and the commit")


def event(connection: str, seq: int, *, ahead: timedelta = timedelta()) -> bytes:
    now = datetime.now(UTC) + ahead
    data = BytesData(
        customer_id="cust",
        service_id="svc",
        region="europe",
        pop="fra",
        edge_id="edge",
        connection_id=connection,
        seq=seq,
        accepted_at=now,
        elapsed_ms=0,
    )
    return codec.encode(
        ConnectionBytes(
            id=f"{connection}-{seq}", source="/e", subject=connection, time=now, data=data
        )
    )


class Rig:
    def __init__(self, log: SqliteLog, database: Database) -> None:
        self.log = log
        self.database = database
        self.projection = Counting()

    def projector(self) -> Projector:
        self.projection = Counting()
        return Projector(
            self.projection,
            log=self.log,
            database=self.database,
            positions=POSITIONS,
            parked=PARKED,
            clock=SystemClock(),
        )

    async def write(self, connections: int, events: int) -> None:
        for seq in range(events):
            await self.log.append(
                CONNECTIONS.name,
                [Message(f"c{n}", event(f"c{n}", seq)) for n in range(connections)],
            )

    async def counts(self) -> dict[str, int]:
        async with self.database.read() as tx:
            rows = await tx.execute(select(COUNTS.c.connection_id, COUNTS.c.seen))
            return {row.connection_id: row.seen for row in rows}

    async def outgoing(self) -> int:
        async with self.database.read() as tx:
            return int(await tx.scalar(select(func.count()).select_from(OUTBOX)) or 0)


@pytest.fixture
async def rig(tmp_path: Path, engine: Engine) -> AsyncIterator[Rig]:
    log = await SqliteLog.open(tmp_path / "log.db")
    database = Database(await database_url(tmp_path, "state"))
    async with database.transaction() as tx:
        await tx.run_sync(METADATA.create_all)
    yield Rig(log, database)
    await database.close()
    await log.close()


async def test_each_event_is_folded_once_across_restarts(rig: Rig) -> None:
    await rig.write(10, 3)
    await rig.projector().run_to_end()
    await rig.write(10, 2)
    await rig.projector().run_to_end()
    await rig.projector().run_to_end()
    assert await rig.counts() == {f"c{n}": 5 for n in range(10)}
    assert await rig.outgoing() == 50


@pytest.mark.parametrize("die_after", [1, 40, 90])
async def test_a_death_before_the_commit_leaves_nothing_half_done(rig: Rig, die_after: int) -> None:
    await rig.write(10, 12)
    projector = rig.projector()
    rig.projection.die_after = die_after
    with pytest.raises(RuntimeError, match="killed"):
        await projector.run_to_end()
    assert await rig.outgoing() == sum((await rig.counts()).values())
    await rig.projector().run_to_end()
    assert await rig.counts() == {f"c{n}": 12 for n in range(10)}
    assert await rig.outgoing() == 120


async def test_two_workers_on_one_partition_fold_nothing_twice(rig: Rig) -> None:
    await rig.write(8, 30)
    first, second = rig.projector(), rig.projector()
    await asyncio.gather(first.run_to_end(), second.run_to_end())
    assert await rig.counts() == {f"c{n}": 30 for n in range(8)}
    assert await rig.outgoing() == 240


async def test_a_stale_position_is_a_conflict_that_rolls_back(rig: Rig) -> None:
    await rig.write(4, 2)
    projector = rig.projector()
    await projector.run_to_end()
    places = [
        Partition(CONNECTIONS.name, n) for n in range(await rig.log.partitions(CONNECTIONS.name))
    ]
    partition, offset = next((p, at) for p in places if (at := projector.position(p)))
    with pytest.raises(Exception, match="elsewhere"):
        async with rig.database.transaction() as tx:
            await move_position(
                tx,
                POSITIONS,
                "counting",
                partition,
                identity="x",
                expected=offset - 1,
                next_offset=offset + 5,
            )


async def test_what_cannot_be_read_is_parked_with_its_place(rig: Rig) -> None:
    await rig.write(3, 1)
    await rig.log.append(
        CONNECTIONS.name,
        [
            Message("x", b"no json", 0),
            Message("y", event("late", 0, ahead=timedelta(minutes=6)), 0),
            Message("z", event("bad", 0), 0),
            Message("ok", event("ok", 0, ahead=timedelta(minutes=4)), 0),
        ],
    )
    await rig.projector().run_to_end()
    assert (await rig.counts())["ok"] == 1
    async with rig.database.read() as tx:
        rows = (await tx.execute(select(PARKED).order_by(PARKED.c.offset))).all()
    assert [(r.kind, r.customer_id) for r in rows] == [
        ("malformed", None),
        ("skewed", "cust"),
        ("retired", "cust"),
    ]
    assert bytes(rows[0].value) == b"no json"


async def test_where_nothing_is_parked_what_cannot_be_read_is_passed_over(rig: Rig) -> None:
    await rig.log.append(
        CONNECTIONS.name,
        [
            Message("x", b"no json", 0),
            Message("y", event("late", 0, ahead=timedelta(minutes=6)), 0),
            Message("z", event("bad", 0), 0),
            Message("ok", event("ok", 0), 0),
        ],
    )
    registry = CollectorRegistry()
    projector = Projector(
        Counting(),
        log=rig.log,
        database=rig.database,
        positions=POSITIONS,
        parked=None,
        clock=SystemClock(),
        registry=registry,
    )
    await projector.run_to_end()
    assert await rig.counts() == {"ok": 1}
    async with rig.database.read() as tx:
        assert not (await tx.execute(select(PARKED))).all()
    for kind in ("malformed", "skewed", "retired"):
        labels = {"topic": CONNECTIONS.name, "kind": kind}
        name = "handoff_projection_passed_over_total"
        assert registry.get_sample_value(name, labels) == 1.0
    assert projector.position(Partition(CONNECTIONS.name, 0)) == 4


async def test_another_log_under_the_same_positions_stops_the_service(
    rig: Rig, tmp_path: Path
) -> None:
    await rig.write(3, 1)
    await rig.projector().run_to_end()
    other = await SqliteLog.open(tmp_path / "other.db")
    projector = Projector(
        Counting(),
        log=other,
        database=rig.database,
        positions=POSITIONS,
        parked=PARKED,
        clock=SystemClock(),
    )
    with pytest.raises(PositionLost, match="another topic"):
        await projector.run_to_end()
    await other.close()


async def test_the_outbox_forwards_everything_in_order(rig: Rig) -> None:
    outbox = Outbox(rig.database, OUTBOX, rig.log)
    loop = asyncio.create_task(outbox.run())
    for n in range(25):
        async with rig.database.transaction() as tx:
            await enqueue(tx, OUTBOX, [(CONTROLS.name, Message("k", str(n).encode(), 1))])
    positions = await outbox.flushed(timeout=10)
    assert positions is not None and positions[0].offset == 25
    assert await rig.outgoing() == 0
    loop.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await loop


async def test_the_outbox_holds_while_the_log_is_closed(rig: Rig, tmp_path: Path) -> None:
    gone = await SqliteLog.open(tmp_path / "gone.db")
    await gone.close()
    outbox = Outbox(rig.database, OUTBOX, gone)
    loop = asyncio.create_task(outbox.run())
    async with rig.database.transaction() as tx:
        await enqueue(tx, OUTBOX, [(CONTROLS.name, Message("k", b"v"))])
    assert await outbox.flushed(timeout=0.3) is None
    assert await rig.outgoing() == 1
    loop.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await loop


async def test_decimals_come_back_as_they_went_in(rig: Rig) -> None:
    from decimal import Decimal

    exact = [Decimal("0.30864175"), Decimal("1E+3"), Decimal("-0.000000000000000000000001")]
    async with rig.database.transaction() as tx:
        await upsert(
            tx,
            EXACT,
            [{"id": n, "n": value} for n, value in enumerate(exact)],
            keys=["id"],
            update=["n"],
        )
    async with rig.database.read() as tx:
        rows = (await tx.execute(select(EXACT.c.n).order_by(EXACT.c.id))).scalars().all()
    assert rows == exact
