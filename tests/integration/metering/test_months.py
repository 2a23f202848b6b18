"""Months of connections in the database: made ahead, dropped when over, late records parked.

On SQLite nothing is partitioned; what is folded and parked is the same.
"""

from pathlib import Path

from sqlalchemy import func, select

from handoff_common.clock import ManualClock
from handoff_common.instants import from_ms
from handoff_common.minutes import HOUR_MS, month_of
from handoff_metering import retention, tables
from handoff_metering.months import Months
from handoff_metering.rebuild import rebuild, snapshot_tables
from handoff_metering.store import months as store
from handoff_metering.store import parked as store_parked
from handoff_metering.usage import Totals
from support.databases import Engine
from support.metering_edge import HEADS, Edge
from support.metering_system import NOW_MS, System, system, until

KEEP = 2


def before(months: int) -> int:
    """The start of the month that lies so many months before the present one."""
    at = month_of(NOW_MS)
    for _ in range(months):
        at = month_of(at - 1)
    return at


def identifier(ms: int, number: int = 0) -> str:
    return f"{retention.first_id(ms)}-7000-8000-{number:012d}"


async def connections(s: System) -> int:
    async with s.database.read() as tx:
        return int(await tx.scalar(select(func.count()).select_from(tables.connections)) or 0)


async def parked(s: System) -> int:
    async with s.database.read() as tx:
        return sum((await store_parked.counts(tx)).values())


async def test_months_are_made_ahead_and_take_over_what_came_before_them(
    tmp_path: Path, engine: Engine
) -> None:
    async with system(tmp_path, metering_keep_months=KEEP) as s:
        edge = Edge(s.log)
        far = month_of(NOW_MS) + 140 * 24 * HOUR_MS
        await edge.append(
            edge.script(NOW_MS - HOUR_MS, identifier(NOW_MS)).accepted(),
            edge.script(NOW_MS - HOUR_MS, identifier(far)).accepted(),
            edge.script(NOW_MS - HOUR_MS, "c-1").accepted(),
        )
        async with s.metering():
            await s.caught_up()
        async with s.database.read() as tx:
            made = await store.made(tx)
        assert made == (list(retention.wanted(NOW_MS, KEEP)) if engine == "postgres" else [])
        later = Months(database=s.database, clock=ManualClock(from_ms(far)), keep=KEEP)
        await later.make_room()
        await later.make_room()
        assert await connections(s) == 3
        if engine == "postgres":
            async with s.database.read() as tx:
                rest = await tx.exec_driver_sql("SELECT connection_id FROM connections_rest")
                assert [row[0] for row in rest] == ["c-1"]
                assert month_of(far) in await store.made(tx)


async def test_a_month_goes_when_it_is_over_and_nothing_in_it_is_open(
    tmp_path: Path, engine: Engine
) -> None:
    async with system(tmp_path, metering_keep_months=12) as s:
        edge = Edge(s.log)
        closing, open_ = before(5), before(4)
        ended = edge.script(closing, identifier(closing))
        lasting = edge.script(open_, identifier(open_))
        await edge.append(ended.accepted(), ended.closed(61_000), lasting.accepted())
        async with s.metering():
            await s.caught_up()
        await Months(database=s.database, clock=s.clock, keep=KEEP).tend()
        async with s.database.read() as tx:
            left = await store.made(tx)
        if engine == "postgres":
            assert await connections(s) == 1
            assert open_ in left and closing not in left and before(3) in left
        else:
            assert await connections(s) == 2
        # What is billed stays.
        assert await s.total() == Totals(3, HEADS.plus(HEADS), 2, 1, 0)


async def test_a_record_of_a_retired_connection_is_parked_and_can_only_be_discarded(
    tmp_path: Path,
) -> None:
    async with system(tmp_path, metering_keep_months=KEEP) as s:
        edge = Edge(s.log)
        old = before(4)
        gone = edge.script(old, identifier(old))
        fresh = edge.script(NOW_MS - HOUR_MS, identifier(NOW_MS - HOUR_MS))
        await edge.append(gone.closed(61_000), fresh.accepted())
        async with s.metering():
            await s.caught_up()
            assert await parked(s) == 1
            assert (await s.total()).opened == 1
            live = await snapshot_tables(s.database)
        await rebuild(s.settings, log=s.log, database=s.database, clock=s.clock)
        assert await snapshot_tables(s.database) == live


async def test_an_open_connection_is_folded_however_old_it_is(tmp_path: Path) -> None:
    async with system(tmp_path, metering_keep_months=12) as s:
        edge = Edge(s.log)
        old = before(4)
        lasting = edge.script(old, identifier(old))
        await edge.append(lasting.accepted())
        async with s.metering():
            await s.caught_up()
        s.settings = s.settings.model_copy(update={"metering_keep_months": KEEP})
        await edge.append(lasting.closed(90_000))
        async with s.metering():
            await s.caught_up()
            assert await s.total() == Totals(2, HEADS, 1, 1, 0)
        await edge.append(lasting.bytes(95_000))
        async with s.metering():

            async def is_parked() -> bool:
                return await parked(s) == 1

            await until(is_parked, "what comes after its end is parked")
