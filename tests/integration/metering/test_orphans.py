"""An edge that falls silent, and one that comes back."""

import asyncio
from pathlib import Path

from handoff_common.database import migrate
from handoff_common.events import ConnectionClosed
from handoff_common.minutes import HOUR_MS
from handoff_common.topics import CONNECTIONS
from handoff_metering.store import slices as store_slices
from support.metering_edge import Edge
from support.metering_system import MONTH_END, System, system, until

HOUR = MONTH_END - HOUR_MS


async def closes(s: System) -> list[ConnectionClosed]:
    return [
        event
        for event in await s.read(CONNECTIONS.name)
        if isinstance(event, ConnectionClosed) and event.source == "/metering/orphans"
    ]


async def test_a_lost_edges_connections_are_closed_at_its_last_proof_of_life(
    tmp_path: Path,
) -> None:
    async with system(tmp_path, tick_seconds=0.02, ticks_until_lost=5) as s:
        edge, alive = Edge(s.log), Edge(s.log, "edge-2")
        scripts = [edge.script(HOUR + n, f"c-{n}") for n in range(6)]
        await edge.append(*(script.accepted() for script in scripts))
        await edge.append(scripts[0].closed(1_000))
        await alive.append(alive.script(HOUR, "living").accepted())
        await edge.vouch(HOUR + 90_000)
        async with s.metering(), asyncio.TaskGroup() as speaking:
            others = [speaking.create_task(speak(alive, HOUR + 90_000))]

            async def all_closed() -> bool:
                return (await s.total()).lost == 5

            await until(all_closed, "five connections are closed as lost")
            written = await closes(s)
            assert {event.id for event in written} == {
                f"c-{n}-lost-{HOUR + 90_000}" for n in range(1, 6)
            }
            assert {event.data.elapsed_ms for event in written} == {90_000 - n for n in range(1, 6)}
            total = await s.total()
            assert (total.opened, total.closed) == (7, 6)

            async def is_resolved() -> bool:
                said = (await s.progress()).values()
                return bool(said) and all(
                    p.open_orphans == 0 and p.through.timestamp() * 1000 > HOUR + 90_000
                    for p in said
                )

            # Once they are closed, the lost edge no longer holds anything back.
            await until(is_resolved, "the silent edge no longer counts")

            # It comes back: one connection went on, one was closed meanwhile.
            await edge.append(scripts[1].bytes(300_001), scripts[2].closed(400_000))
            await edge.vouch(HOUR + 500_000)
            others.append(speaking.create_task(speak(edge, HOUR + 500_000)))

            async def is_corrected() -> bool:
                total = await s.total()
                return (total.closed, total.lost) == (5, 3)

            await until(is_corrected, "its own word overrides")
            async with s.client(await s.token("operator")) as client:

                async def is_reopened() -> bool:
                    found = (await client.get("/v1/connections/c-1")).json()
                    # What the edge says now, and what its watermark adds.
                    return (found["state"], found["minutes"]) == ("open", 9)

                await until(is_reopened, "it is open and accrues")
                ended = (await client.get("/v1/connections/c-2")).json()
                assert (ended["reason"], ended["minutes"]) == ("client_closed", 7)
                assert not ended["provisional"]
                given_up = (await client.get("/v1/connections/c-3")).json()
                assert given_up["reason"] == "edge_lost"
                assert given_up["closed_by"] == "lost"
                assert given_up["provisional"]
            for task in others:
                task.cancel()


async def speak(edge: Edge, through_ms: int) -> None:
    while True:
        through_ms += 1
        await edge.vouch(through_ms)
        await asyncio.sleep(0.01)


async def test_an_edge_that_has_ended_is_not_given_up(tmp_path: Path) -> None:
    async with system(tmp_path, tick_seconds=0.01, ticks_until_lost=3) as s:
        ended, silent = Edge(s.log), Edge(s.log, "edge-2")
        await ended.append(ended.script(HOUR, "c-1").accepted())
        await ended.vouch(HOUR + 60_000, ended=True)
        await silent.append(silent.script(HOUR, "c-2").accepted())
        await silent.vouch(HOUR + 60_000)
        async with s.metering():

            async def is_given_up() -> bool:
                return (await s.total()).lost == 1

            await until(is_given_up, "the silent one is given up")
            assert {event.subject for event in await closes(s)} == {"c-2"}
            async with s.client(await s.token("operator")) as client:
                edges = (await client.get("/v1/watermarks")).json()["data"]
            assert [(e["edge_id"], e["ended"], e["lost"]) for e in edges] == [
                ("edge-1", True, False),
                ("edge-2", False, True),
            ]


async def test_two_owners_of_the_ticks_take_turns(tmp_path: Path) -> None:

    async with system(tmp_path) as s:
        await migrate(s.database, "handoff_metering")

        async def hold(holder: str, now_ms: int) -> bool:
            async with s.database.transaction() as tx:
                return await store_slices.hold_lease(
                    tx, "ticks", holder, now_ms=now_ms, until_ms=now_ms + 30
                )

        assert await hold("a", 0)
        assert not await hold("b", 10)
        assert await hold("a", 20)
        assert not await hold("b", 49)
        assert await hold("b", 50)
        assert not await hold("a", 60)
