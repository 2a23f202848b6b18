"""Usage and delivery rows in any order, repeated or old: the tables have the greatest of each."""

import random

from handoff_common.topics import USAGE
from support.billing_system import MINE, OCTOBER, System
from support.databases import drop_databases


async def minutes(system: System) -> int:
    await system.settled()
    return int((await system.draft())["minutes"])


async def test_rows_are_absolute_and_slices_add_up(system: System) -> None:
    await system.use(5, slice_=0, version=(1, 1))
    await system.use(7, slice_=1, version=(1, 1))
    assert await minutes(system) == 12
    await system.use(6, slice_=0, version=(1, 2))
    assert await minutes(system) == 13


async def test_repeats_and_older_versions_change_nothing(system: System) -> None:
    await system.use(9, version=(2, 1))
    await system.use(9, version=(2, 1))
    for version in ((1, 99), (2, 0)):
        await system.use(100, version=version)
    assert await minutes(system) == 9
    await system.use(0, version=(3, 0))
    assert await minutes(system) == 0


async def test_rows_out_of_order_end_the_same(system: System) -> None:
    rows = [(hour, revision) for hour in range(6) for revision in range(1, 6)]
    random.Random(7).shuffle(rows)
    for hour, revision in rows:
        await system.use(hour * 100 + revision, hour=hour, version=(1, revision))
    assert await minutes(system) == sum(hour * 100 + 5 for hour in range(6))


async def test_months_are_apart(system: System) -> None:
    await system.use(5, hour=31 * 24 - 1)
    await system.use(7, hour=31 * 24)
    await system.use(11, hour=-1)
    assert await minutes(system) == 5
    assert (await system.draft(month="2024-11"))["minutes"] == 7
    assert (await system.draft(month="2024-09"))["minutes"] == 11


async def test_a_database_made_anew_is_the_same(system: System) -> None:
    for hour in range(5):
        await system.use(hour, hour=hour, slice_=hour % 2, resp_body_bytes=hour * 10**9)
    await system.progress()
    await system.settled()
    final = (await system.finalize()).json()
    await system.stop()
    await drop_databases(system.folder)
    await system.start()
    await system.settled()
    again = (await system.finalize()).json()
    assert again["final"]["content_hash"] == final["final"]["content_hash"]


async def test_progress_is_kept_per_partition(system: System) -> None:
    assert await system.log.partitions(USAGE.name) == 2
    await system.progress(position=10)
    await system.use(5, offset=10, customer_id=MINE, month_ms=OCTOBER)
    await system.settled()
    assert [h["code"] for h in (await system.draft())["holds"]] == ["rows_beyond_progress"]
    await system.progress(position=11)
    await system.settled()
    assert (await system.draft())["holds"] == []
