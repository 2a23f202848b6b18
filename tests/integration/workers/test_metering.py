"""Several metering workers on one Postgres database: each event is folded once, each lease has one
holder, whatever worker is asked.

The embedded log leaves every partition to every reader, so the workers here meet on every record:
harder than what a broker's group does.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from handoff_common.database import Database
from handoff_common.events import Tick
from handoff_common.minutes import HOUR_MS
from handoff_common.service import running
from handoff_common.topics import EDGES, USAGE
from handoff_metering.wiring import build
from support.databases import database_url, drop_databases, use_postgres
from support.metering_edge import Edge, carried, refused, tell
from support.metering_system import MONTH_END, System, system, until
from support.parts.postgres import Address

HOUR = MONTH_END - HOUR_MS


@pytest.fixture
async def s(tmp_path: Path, postgres_shared: Address) -> AsyncIterator[System]:
    use_postgres(tmp_path, postgres_shared)
    async with system(tmp_path, metering_batch=10, tick_seconds=0.05, ticks_until_lost=10_000) as s:
        yield s
    await drop_databases(tmp_path)


async def workers(s: System, stack: AsyncExitStack, count: int) -> list[asyncio.Future[None]]:
    """Start them all at once, each with connections of its own."""

    async def one(number: int) -> asyncio.Future[None]:
        url = await database_url(s.folder, "metering")
        database = Database(url, name=f"worker-{number}")
        stack.push_async_callback(database.close)
        service = build(s.settings, log=s.log, database=database, clock=s.clock)
        s.service = service
        return await stack.enter_async_context(running(service))

    return list(await asyncio.gather(*(one(number) for number in range(count))))


async def test_workers_that_meet_on_every_record_fold_it_once(s: System) -> None:
    edge = Edge(s.log)
    async with AsyncExitStack() as stack:
        failed = await workers(s, stack, 3)
        through = HOUR
        for round_ in range(4):
            scripts = [edge.script(HOUR + n, f"c-{round_}-{n}") for n in range(30)]
            await edge.append(*(script.accepted() for script in scripts))
            await edge.append(*(script.bytes(61_000, carried(3)) for script in scripts))
            through += 60_000
            await edge.vouch(through)
            await edge.append(*(script.closed(95_000, carried(4)) for script in scripts[::2]))
            await edge.vouch(through + 1_000)
        await s.caught_up(seconds=60)
        expected = await s.expected(through + 1_000)

        async def is_so() -> bool:
            return await s.usage() == expected and await s.published() == expected

        await until(is_so, "stored and published rows are what the log says", seconds=60)
        assert not any(future.done() for future in failed)
    revisions = [(e.subject, e.data.generation) for e in await s.read(USAGE.name)]
    assert {generation for _, generation in revisions} == {0}


async def test_refusals_that_all_of_them_read_are_counted_once(s: System) -> None:
    token = await s.token("operator")
    async with AsyncExitStack() as stack:
        failed = await workers(s, stack, 3)
        for count in range(1, 40):
            await tell(
                s.log,
                *(
                    refused(f"e-{n}", HOUR, count, cause=cause)
                    for n in range(4)
                    for cause in ("no_rule", "busy")
                ),
            )
        async with s.client(token) as client:

            async def is_so() -> bool:
                query = {"from": "2 years ago", "by": "total"}
                body = (await client.get("/v1/refusals", params=query)).json()
                return [row["count"] for row in body["data"]] == [4 * 39] * 2

            await until(is_so, "each edge's last count stands", seconds=60)
        assert not any(future.done() for future in failed)


async def test_one_of_them_ticks(s: System) -> None:
    # A lease lasts three ticks: a worker that is held up for longer loses it, and should.
    s.settings = s.settings.model_copy(update={"tick_seconds": 1.0})
    async with AsyncExitStack() as stack:
        await workers(s, stack, 3)

        # The topic keeps the newest tick of each partition, so each is taken down as it passes.
        passed: set[tuple[str, str]] = set()

        async def has_ticked() -> bool:
            passed.update((tick.id, tick.data.owner) for tick in await ticks(s))
            return len(passed) >= 3

        await until(has_ticked, "three ticks have passed", seconds=60)
        assert len({owner for _, owner in passed}) == 1


async def ticks(s: System) -> list[Tick]:
    return [event for event in await s.read(EDGES.name) if isinstance(event, Tick)]


async def test_any_of_them_is_asked_how_far_the_slices_are(s: System) -> None:
    edge = Edge(s.log)
    await edge.append(*(edge.script(HOUR, f"c-{n}").accepted() for n in range(20)))
    await edge.vouch(MONTH_END)
    token = await s.token("operator")
    async with AsyncExitStack() as stack:
        await workers(s, stack, 2)
        await s.caught_up()
        async with s.client(token) as client:

            async def is_passed() -> bool:
                answer = await client.get("/v1/watermarks")
                if answer.status_code != 200:
                    return False
                body = answer.json()
                return bool(body["data"]) and all(slice_["lag"] == 0 for slice_ in body["slices"])

            await until(is_passed, "every slice has been read")
