"""Events in a real log become usage: live, once, whatever is restarted in between."""

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from handoff_common import codec
from handoff_common.database import Database
from handoff_common.events import ConnectionEvent, EdgeWatermark, UsageTotals
from handoff_common.instants import from_ms, to_ms
from handoff_common.log import Message, Partition
from handoff_common.minutes import HOUR_MS
from handoff_common.outbox import Outbox
from handoff_common.service import running
from handoff_common.telemetry import new_registry
from handoff_common.topics import CONNECTIONS, EDGES, USAGE
from handoff_metering import replay, tables, watermarks
from handoff_metering.accrual import Accrual
from handoff_metering.metrics import Metrics
from handoff_metering.usage import Totals, UsageKey, usage_at
from handoff_metering.views import EdgesView
from support.databases import database_url, drop_databases
from support.metering_edge import HEADS, Edge, append, carried, watermark
from support.metering_system import MONTH_END, System, row_totals, system, until

HOUR = MONTH_END - HOUR_MS


def key(hour_ms: int, service_id: str = "service-1") -> UsageKey:
    return UsageKey("customer-1", service_id, "europe", hour_ms)


async def minutes_are(s: System, expected: int) -> None:
    async def is_so() -> bool:
        return (await s.total()).minutes == expected

    await until(is_so, f"{expected} minutes are there")


async def test_minutes_count_while_a_connection_is_open(tmp_path: Path) -> None:
    async with system(tmp_path) as s, s.metering():
        edge = Edge(s.log)
        script = edge.script(MONTH_END - 90_500, "c-1")
        await edge.append(script.accepted())
        await minutes_are(s, 1)
        for elapsed_ms, minutes in ((60_000, 1), (60_001, 2), (120_001, 3), (120_000, 3)):
            await edge.vouch(script.accepted_ms + elapsed_ms)
            await minutes_are(s, minutes)
        rows = {k.hour_ms: total.minutes for k, total in (await s.usage()).items()}
        assert rows == {HOUR: 2, MONTH_END: 1}

        await edge.append(script.closed(150_000, carried(10)))

        async def is_closed() -> bool:
            return (await s.total()).closed == 1

        await until(is_closed, "the connection is closed")
        assert await s.total() == Totals(3, carried(10), 1, 1, 0)

        async def is_published() -> bool:
            return await s.published() == await s.usage()

        await until(is_published, "what is published is what is stored")


async def test_each_change_of_a_row_bears_a_greater_revision(tmp_path: Path) -> None:
    """A reader that keeps the greatest version must never miss an accrual."""
    async with system(tmp_path, partitions=1) as s:
        edge = Edge(s.log)
        service = s.build()
        await service.on_start()
        # Without the outbox's loop, what was to be sent stays to be looked at.
        loops = [
            asyncio.ensure_future(service.loops[name]())
            for name in ("edges", "projection", "accrual")
        ]
        await edge.vouch(HOUR + 4 * 60_000)
        scripts = [edge.script(HOUR + n, f"c-{n}") for n in range(3)]
        for count, script in enumerate(scripts, 1):
            # Folded behind a watermark that is passed already: it accrues at once.
            await edge.append(script.accepted())
            await minutes_are(s, 4 * count)
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        events = await outbox(s)
        rows = [event.data for event in events if isinstance(event, UsageTotals)]
        assert [row.minutes for row in rows] == [1, 4, 5, 8, 9, 12]
        revisions = [row.revision for row in rows]
        assert revisions == sorted(set(revisions))


async def test_nothing_accrues_past_a_close_that_is_not_read_yet(tmp_path: Path) -> None:
    """The watermark is read before the closes: it must wait for them."""
    async with system(tmp_path, metering_batch=1) as s:
        edge = Edge(s.log)
        scripts = [edge.script(HOUR, f"c-{n}") for n in range(40)]
        for script in scripts:
            await edge.append(script.accepted())
        for script in scripts:
            await edge.append(script.closed(60_000))
        await edge.vouch(MONTH_END + 50 * HOUR_MS)
        highest = 0
        async with s.metering():

            async def all_closed() -> bool:
                nonlocal highest
                total = await s.total()
                highest = max(highest, total.minutes)
                return total.closed == 40

            await until(all_closed, "all are closed")
        assert highest == 40


async def test_a_watermark_that_was_passed_serves_a_slice_that_reads_on(tmp_path: Path) -> None:
    async with system(tmp_path, partitions=1) as s, s.metering():
        edge = Edge(s.log)
        await edge.append(edge.script(HOUR, "c-1").accepted())
        await edge.vouch(HOUR + 120_001)
        await minutes_are(s, 3)
        # An edge that names a position which is not there yet: the passed watermark stays in force.
        edge.positions[0] = 1_000
        await edge.vouch(HOUR + 10 * HOUR_MS)
        await edge.append(edge.script(HOUR, "c-2").accepted())
        await minutes_are(s, 6)


async def test_progress_follows_the_rows_into_every_partition(tmp_path: Path) -> None:
    async with system(tmp_path) as s, s.metering():
        edge, other = Edge(s.log), Edge(s.log, "edge-2")
        await edge.append(*(edge.script(HOUR, f"c-{n}").accepted() for n in range(20)))
        await s.caught_up()
        assert await s.progress() == {}
        await other.vouch(MONTH_END + 30_000)
        await edge.vouch(MONTH_END + 60_000)

        async def is_through() -> bool:
            said = await s.progress()
            throughs = {p.through for p in said.values()}
            return len(said) == 4 and throughs == {from_ms(MONTH_END + 30_000)}

        await until(is_through, "both slices say so in both partitions of the usage topic")
        ends = {n: end for n, (_, end) in (await s.log.ends(CONNECTIONS.name)).items()}
        said = await s.progress()
        assert {(p.slice, p.position) for p in said.values()} == set(ends.items())
        assert {(p.slices, p.open_orphans, p.difference) for p in said.values()} == {(2, 0, 0)}
        # Every row of the month bears an offset that its slice's progress covers.
        newest = {e.subject: e.data for e in await s.read(USAGE.name)}
        rows = [data for subject, data in newest.items() if subject.startswith("customer")]
        assert rows
        assert all(row.offset < ends[row.slice] for row in rows)
        assert sum(row.minutes for row in rows if row.hour.timestamp() * 1000 == HOUR) == 20 * 60


async def test_progress_counts_what_edges_delivered_and_was_not_found(tmp_path: Path) -> None:
    async with system(tmp_path) as s, s.metering():
        edge = Edge(s.log)
        await edge.append(edge.script(HOUR, "c-1").accepted())
        edge.accepted.add("never-arrived")
        await edge.vouch(MONTH_END)

        async def differences() -> set[int]:
            return {p.difference for p in (await s.progress()).values()}

        async def is_missed() -> bool:
            return 1 in await differences()

        # The slice that is the last to pass the watermark sees it, the others at the next one.
        await until(is_missed, "the difference is said")
        await edge.vouch(MONTH_END + 1)

        async def is_known() -> bool:
            return await differences() == {1}

        await until(is_known, "every slice says it")


async def test_a_batch_publishes_each_row_once(tmp_path: Path) -> None:
    async with system(tmp_path, partitions=1) as s:
        edge = Edge(s.log)
        scripts = [edge.script(HOUR + n, f"c-{n}") for n in range(50)]
        await edge.append(*(script.accepted() for script in scripts))
        async with s.metering():
            await s.caught_up()

            async def is_published() -> bool:
                return bool(await s.published())

            await until(is_published, "the row is published")
        messages = [e for e in await s.read(USAGE.name) if e.subject.startswith("customer")]
        assert [(m.data.opened, m.data.revision) for m in messages] == [(50, 1)]
        assert messages[0].data.offset == 49


def play(edge: Edge, connections: int, seed: int) -> list[list[ConnectionEvent]]:
    """Connections of a busy evening, some open, some crossing the month's end; in log order."""
    dice = random.Random(seed)
    rounds: list[list[ConnectionEvent]] = [[] for _ in range(6)]
    for n in range(connections):
        accepted_ms = HOUR + dice.randrange(2 * HOUR_MS)
        script = edge.script(accepted_ms, f"c-{seed}-{n}", service_id=f"service-{n % 3}")
        rounds[0].append(script.accepted())
        elapsed, body = 0, 0
        for events in rounds[1:]:
            elapsed += dice.randrange(0, 1_200_000)
            body += dice.randrange(5_000)
            outcome = dice.random()
            if outcome < 0.2:
                events.append(script.closed(elapsed, carried(body)))
                break
            if outcome < 0.7:
                events.append(script.bytes(elapsed, carried(body)))
    return rounds


@pytest.mark.parametrize("seed", range(3))
async def test_progress_never_vouches_for_what_was_not_published_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """What billing finalizes by: at each progress, the hours before its `through` are those of the
    log up to its position."""
    monkeypatch.setattr("handoff_metering.accrual._CONNECTIONS_PER_TRANSACTION", 3)
    dice = random.Random(seed)
    async with system(tmp_path, metering_batch=5) as s:
        service = s.build()
        await service.on_start()
        # Without the outbox's loop, what was to be sent stays to be looked at, in its order.
        loops = [
            asyncio.ensure_future(service.loops[name]())
            for name in ("edges", "projection", "accrual")
        ]
        edges = [Edge(s.log), Edge(s.log, "edge-2")]
        through = HOUR
        for rounds in zip(play(edges[0], 25, seed), play(edges[1], 25, seed + 99), strict=True):
            for edge, events in zip(edges, rounds, strict=True):
                await edge.append(*events)
                through += dice.randrange(HOUR_MS // 2)
                await edge.vouch(through)
        await s.caught_up()

        async def is_said() -> bool:
            return len(await sent_progress(s)) >= 2

        await until(is_said, "progress was said")
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        published: dict[str, UsageTotals] = {}
        for event in await outbox(s):
            if isinstance(event, UsageTotals):
                published[event.subject] = event
                continue
            said = event.data
            through_ms = to_ms(said.through)
            records, _ = await s.log.records(
                Partition(CONNECTIONS.name, said.slice), 0, max(1, said.position)
            )
            log_says = usage_at(
                replay.readable(r for r in records if r.offset < said.position),
                {said.slice: through_ms},
            )
            rows = {
                UsageKey(row.customer_id, row.service_id, row.region, to_ms(row.hour)): row_totals(
                    row
                )
                for row in (event.data for event in published.values())
                if row.slice == said.slice
            }
            assert before(rows, through_ms) == before(log_says, through_ms)


class Arriving(EdgesView):
    """Watermarks that arrive while a slice is at work: each look finds one more."""

    def __init__(self, s: System, arriving: list[EdgeWatermark]) -> None:
        self._arriving = arriving
        self._seen: watermarks.Edges = {}
        super().__init__(s.log, ticks_until_lost=90)

    @property
    def edges(self) -> watermarks.Edges:
        if self._arriving:
            self._seen = watermarks.fold(self._seen, self._arriving.pop(0))
        return self._seen

    @edges.setter
    def edges(self, edges: watermarks.Edges) -> None:
        self._seen = edges


async def test_a_watermark_that_arrives_meanwhile_is_not_vouched_for(tmp_path: Path) -> None:
    async with system(tmp_path, partitions=1) as s:
        edges = [Edge(s.log, name) for name in ("a", "b")]
        for edge in edges:
            await edge.append(edge.script(HOUR, f"c-{edge.edge_id}").accepted())
        async with s.metering():
            await s.caught_up()
        arriving = Arriving(
            s, [watermark(name, through_ms=MONTH_END, positions={0: 2}) for name in ("a", "b")]
        )
        arriving.view.ready = True
        metrics = Metrics(new_registry())
        accrual = Accrual(
            database=s.database,
            log=s.log,
            edges=arriving,
            own=lambda: [0],
            outbox=Outbox(s.database, tables.outbox, s.log),
            clock=s.clock,
            metrics=metrics,
        )
        async with asyncio.timeout(30):
            while not await sent_progress(s):
                await accrual.step(0, say=True)
        assert (await s.total()).minutes == 120


async def test_edges_that_are_not_all_known_vouch_for_nothing(tmp_path: Path) -> None:
    async with system(tmp_path, partitions=1) as s:
        edge = Edge(s.log, "a")
        await edge.append(edge.script(HOUR, "c-a").accepted())
        async with s.metering():
            await s.caught_up()
        half = Arriving(s, [watermark("a", through_ms=MONTH_END, positions={0: 1})])
        accrual = Accrual(
            database=s.database,
            log=s.log,
            edges=half,
            own=lambda: [0],
            outbox=Outbox(s.database, tables.outbox, s.log),
            clock=s.clock,
            metrics=Metrics(new_registry()),
        )
        for _ in range(3):
            await accrual.step(0, say=True)
        assert await sent_progress(s) == [], "another edge may still be to come"
        half.view.ready = True
        await accrual.step(0, say=True)
        assert await sent_progress(s)


def before(usage: dict[UsageKey, Totals], through_ms: int) -> dict[UsageKey, Totals]:
    """The hours that end by then."""
    return {
        key: total
        for key, total in usage.items()
        if key.hour_ms + HOUR_MS <= through_ms and total != Totals()
    }


async def outbox(s: System) -> list[Any]:
    async with s.database.read() as tx:
        values = await tx.scalars(select(tables.outbox.c.value).order_by(tables.outbox.c.id))
        return [codec.decode(USAGE.name, bytes(value)) for value in values]


async def sent_progress(s: System) -> list[Any]:
    return [event for event in await outbox(s) if not isinstance(event, UsageTotals)]


@pytest.mark.parametrize("seed", range(4))
async def test_killed_at_any_point_nothing_is_lost_or_counted_twice(
    tmp_path: Path, seed: int
) -> None:
    """Metering is dropped at random moments, between and inside transactions, and built again."""
    dice = random.Random(seed)
    async with system(tmp_path, metering_batch=7) as s:
        edge = Edge(s.log)
        rounds = play(edge, 60, seed)
        through = HOUR
        for events in rounds:
            await edge.append(*events)
            # What is delivered again, as after a lost acknowledgement.
            again = dice.sample(events, min(5, len(events)))
            await s.log.append(
                CONNECTIONS.name, [Message(e.subject, codec.encode(e)) for e in again]
            )
            through += dice.randrange(HOUR_MS)
            await edge.vouch(through)
            await run_and_kill(s, dice.uniform(0.0, 0.08))
        async with s.metering():
            await s.caught_up()
            expected = await s.expected(through)

            async def is_so() -> bool:
                return await s.usage() == expected and await s.published() == expected

            await until(is_so, "stored and published rows are what the log says")
        assert (await s.total()).opened == 60


async def run_and_kill(s: System, seconds: float) -> None:
    """Run metering for a moment and drop it without letting it end: no flush, no farewell."""
    service = s.build()
    await service.on_start()
    tasks = [asyncio.ensure_future(loop()) for loop in service.loops.values()]
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await s.database.close()
    s.database = Database(await database_url(s.folder, "metering"))


async def test_a_second_start_on_the_same_folder_goes_on_where_it_was(tmp_path: Path) -> None:
    async with system(tmp_path) as s:
        edge = Edge(s.log)
        script = edge.script(HOUR, "c-1")
        await edge.append(script.accepted())
        async with s.metering():
            await s.caught_up()
    async with system(tmp_path) as s:
        again = Edge(s.log)
        again.positions, again.accepted = edge.positions, edge.accepted
        await again.append(script.closed(61_000))
        async with s.metering():
            await s.caught_up()
            assert await s.total() == Totals(2, HEADS, 1, 1, 0)


async def test_a_new_database_begins_above_what_was_published(tmp_path: Path) -> None:
    async with system(tmp_path) as s:
        edge = Edge(s.log)
        await edge.append(edge.script(HOUR, "c-1").accepted())
        async with s.metering():
            await s.caught_up()
        generations = {e.data.generation for e in await s.read(USAGE.name)}
        await s.database.close()
        await drop_databases(tmp_path)
        s.database = Database(await database_url(tmp_path, "metering"))
        async with s.metering():
            await s.caught_up()

            async def is_above() -> bool:
                # The topic is compacted: the new row has taken the old one's place.
                return {e.data.generation for e in await s.read(USAGE.name)} == {1}

            await until(is_above, "its rows have a greater generation")
        assert generations == {0}


async def test_readiness_names_the_partition_that_lags(tmp_path: Path) -> None:
    async with system(tmp_path, partitions=2) as s:
        edge = Edge(s.log)
        await edge.append(*(edge.script(HOUR, f"c-{n}").accepted() for n in range(30)))
        service = s.build()
        await service.on_start()
        health = asyncio.ensure_future(service.loops["health"]())

        async def says_so() -> bool:
            return any("lags" in reason for reason in service.not_ready())

        await until(says_so, "it says which partitions lag")
        health.cancel()
        assert any(f"{CONNECTIONS.name}[1] lags" in reason for reason in service.not_ready())
        async with running(service):

            async def is_ready() -> bool:
                return not service.not_ready()

            await until(is_ready, "it is ready")
            async with s.client() as client:
                assert (await client.get("/readyz")).status_code == 200
                metrics = (await client.get("/metrics")).text
    assert 'handoff_metering_events_total{effect="counted"} 30.0' in metrics
    assert "handoff_metering_accrual_seconds" in metrics
    assert "handoff_projection_lag" in metrics


async def test_a_watermark_of_an_unknown_edge_holds_nothing_back(tmp_path: Path) -> None:
    async with system(tmp_path) as s, s.metering():
        await append(s.log, EDGES.name, [watermark("new", through_ms=MONTH_END + 5)])

        async def is_said() -> bool:
            return {p.through for p in (await s.progress()).values()} == {from_ms(MONTH_END + 5)}

        await until(is_said, "an idle system vouches for its past")
