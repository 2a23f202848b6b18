"""Tables made again from the log are the tables that were."""

from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from handoff_common import codec
from handoff_common.database import Database
from handoff_common.errors import DatabaseInUse
from handoff_common.events import ParkedDecision, ParkedDecisionData, UsageTotals
from handoff_common.instants import from_ms
from handoff_common.log import Message
from handoff_common.minutes import HOUR_MS
from handoff_common.occupancy import alone
from handoff_common.outbox import enqueue
from handoff_common.topics import CONNECTIONS, USAGE
from handoff_metering import publishing, tables
from handoff_metering.errors import RebuildUnfinished
from handoff_metering.rebuild import USER, rebuild, snapshot_tables
from handoff_metering.store import slices as store_slices
from handoff_metering.store import states
from support.databases import Engine, database_url
from support.metering_edge import Edge, carried
from support.metering_system import MONTH_END, System, system, until

HOUR = MONTH_END - HOUR_MS
PARKED = 3
"""Records of `a_varied_log` that cannot be folded."""


async def a_varied_log(s: System) -> None:
    """Open, closed, crashed, lost and returned, never established, stale, parked and retried."""
    edge = Edge(s.log)
    for n in range(30):
        script = edge.script(HOUR + n * 100_003, f"c-{n}", service_id=f"service-{n % 4}")
        accepted = script.accepted()
        await edge.append(accepted)
        match n % 6:
            case 0:
                await edge.append(script.closed(n * 77_777, carried(n)))
            case 1:
                await edge.append(script.bytes(61_000, carried(n)), script.crashed(90_000))
            case 2:
                await edge.append(script.never_established(20))
            case 3:
                await edge.append(script.bytes(200_000, carried(5)), accepted)
            case 4:
                await edge.append(script.crashed(30_000), script.bytes(45_000, carried(3)))
    skewed = edge.script(MONTH_END + 400 * 24 * HOUR_MS, "ahead").accepted()
    written = await s.log.append(
        CONNECTIONS.name, [Message(skewed.subject, replay_bytes(skewed)), Message("x", b"{")]
    )
    for position, what in zip(written, ("retry", "discard"), strict=True):
        decision = ParkedDecision(
            id=what,
            source="/operators",
            subject="parked",
            time=from_ms(MONTH_END),
            data=ParkedDecisionData(
                partition=position.partition,
                offset=position.offset - 1,
                decision="retry" if what == "retry" else "discard",
                reason="looked at",
                decided_by="me",
            ),
        )
        message = Message("parked", replay_bytes(decision), position.partition)
        await s.log.append(CONNECTIONS.name, [message])
    await s.log.append(CONNECTIONS.name, [Message("y", b'{"type": "other"}')])
    await edge.vouch(MONTH_END + 2 * HOUR_MS)


def replay_bytes(event: object) -> bytes:
    return codec.encode(event)  # type: ignore[arg-type]


async def settled(s: System) -> None:
    await s.caught_up()

    async def is_published() -> bool:
        return await s.published() == await s.usage() and len(await s.progress()) == 4

    await until(is_published, "all is published")


async def is_published_whole(s: System, generation: int) -> bool:
    """Every slice is, and sent; nothing of a former generation stands."""
    async with s.database.read() as tx:
        slices = await store_slices.slices(tx)
        unsent = await tx.scalar(select(func.count()).select_from(tables.outbox))
    if unsent or any(one.unpublished for one in slices.values()):
        return False
    newest = {
        event.subject: event.data.generation
        for event in await s.read(USAGE.name)
        if isinstance(event, UsageTotals)
    }
    assert set(newest.values()) <= {generation}, newest
    return True


@pytest.mark.parametrize("batch", [3, 2_000])
async def test_rebuilt_tables_are_identical(tmp_path: Path, batch: int) -> None:
    async with system(tmp_path, metering_batch=batch) as s:
        await a_varied_log(s)
        async with s.metering():
            await settled(s)
        live = await snapshot_tables(s.database)
        assert len(live["connections"]) == 31
        assert [row["kind"] for row in live["parked"]] == ["unknown_type"]
        assert any(row["effect"] == "stale" for row in live["connection_events"])
        rows = await s.published()

        s.settings = s.settings.model_copy(update={"metering_batch": 2_003 - batch})
        done = await rebuild(s.settings, log=s.log, database=s.database, clock=s.clock)
        assert await snapshot_tables(s.database) == live
        assert done.generation == 1
        read = sum([end for _, end in (await s.log.ends(CONNECTIONS.name)).values()])
        assert done.events == read - PARKED, "what was parked was not folded"
        assert done.dropped == 0
        async with s.metering():
            assert await s.published() == rows, "readers see no less meanwhile"
            await until(lambda: is_published_whole(s, 1), "the new generation is published")
            assert await s.published() == rows
        assert await snapshot_tables(s.database) == live


async def test_rows_that_no_longer_exist_become_zero(tmp_path: Path) -> None:
    async with system(tmp_path, partitions=1) as s:
        edge = Edge(s.log)
        await edge.append(edge.script(HOUR, "c-1").accepted())
        async with s.metering():
            await s.caught_up()

            async def is_published() -> bool:
                return bool(await s.published())

            await until(is_published, "it is published")
        # A fault of a former release: a row that the log does not bear out.
        async with s.database.transaction() as tx:
            await tx.execute(update(tables.usage).values(service_id="ghost", revision=9))
            held = await states.all_usage(tx, 0)
            version = publishing.Version(0, 9, 0)
            await enqueue(tx, tables.outbox, publishing.usage_rows(held, 0, version, HOUR))
        async with s.metering():

            async def is_haunted() -> bool:
                return "ghost" in {key.service_id for key in await s.published()}

            await until(is_haunted, "the ghost is published")
        done = await rebuild(s.settings, log=s.log, database=s.database, clock=s.clock)
        assert (done.rows, done.dropped) == (1, 1)
        async with s.metering():

            async def is_gone() -> bool:
                return {key.service_id for key in await s.published()} == {"service-1"}

            await until(is_gone, "the ghost is gone")
            await until(lambda: is_published_whole(s, 1), "and its row is one of zeros")


async def test_an_interrupted_rebuild_keeps_metering_from_starting(tmp_path: Path) -> None:
    async with system(tmp_path) as s:
        edge = Edge(s.log)
        await edge.append(edge.script(HOUR, "c-1").accepted())
        async with s.metering():
            await s.caught_up()
        async with s.database.transaction() as tx:
            await store_slices.begin_rebuild(tx, range(2), 1)
        with pytest.raises(RebuildUnfinished, match="run `handoff rebuild` again"):
            await s.build().on_start()
        await rebuild(s.settings, log=s.log, database=s.database, clock=s.clock)
        async with s.metering():
            await s.caught_up()
            assert (await s.total()).opened == 1


async def test_readers_never_see_less_while_a_new_database_takes_over(tmp_path: Path) -> None:
    """Metering goes on while its tables are made again elsewhere; what is published then is ahead
    of what was rebuilt, and no reader may see that."""
    async with system(tmp_path, metering_batch=5) as s:
        edge = Edge(s.log)
        scripts = [edge.script(HOUR, f"c-{n}") for n in range(40)]
        await edge.append(*(script.accepted() for script in scripts))
        await edge.vouch(HOUR + 60_001)
        old = s.database
        async with s.metering():
            await settled(s)
            fresh = Database(await database_url(tmp_path, "metering_again"))
            done = await rebuild(s.settings, log=s.log, database=fresh, clock=s.clock)
            assert (done.generation, done.dropped) == (1, 0)
            await edge.append(*(script.closed(200_000) for script in scripts[:20]))
            await edge.vouch(HOUR + 300_001)

            async def all_minutes() -> bool:
                # What is published is whole at any moment, and grows slice by slice.
                published = await s.published()
                return sum(total.minutes for total in published.values()) == 20 * 4 + 20 * 6

            await until(all_minutes, "all minutes are published")
            await settled(s)
        before = await s.published()
        s.database = fresh
        try:
            async with s.metering():

                async def is_so() -> bool:
                    assert await s.published() == before
                    return await is_published_whole(s, 1)

                await until(is_so, "the new generation is published")
                await edge.append(*(script.closed(400_000) for script in scripts[20:]))
                await settled(s)
            assert await s.published() == await s.expected(HOUR + 300_001)
        finally:
            await fresh.close()
            s.database = old


async def test_workers_and_a_rebuild_keep_out_of_each_others_database(
    tmp_path: Path, engine: Engine
) -> None:
    async with system(tmp_path) as s:
        edge = Edge(s.log)
        await edge.append(edge.script(HOUR, "c-1").accepted())
        async with s.metering():
            await s.caught_up()
            if engine == "postgres":
                with pytest.raises(DatabaseInUse, match="workers of metering run on this"):
                    await rebuild(s.settings, log=s.log, database=s.database, clock=s.clock)
            assert (await s.total()).opened == 1
        if engine == "postgres":
            async with alone(s.database, USER):
                with pytest.raises(DatabaseInUse, match="is being rebuilt"):
                    await s.build().on_start()
        # Whatever lets a worker miss the lock: it stops at the mark in the tables.
        async with s.database.transaction() as tx:
            await store_slices.begin_rebuild(tx, range(2), 1)
        async with s.database.transaction() as tx:
            with pytest.raises(RebuildUnfinished):
                await store_slices.lock_slice(tx, 0)
        await rebuild(s.settings, log=s.log, database=s.database, clock=s.clock)
