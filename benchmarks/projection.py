"""How many events per second one metering worker folds from encoded records into Postgres.

Beside it, in the same run and on the same tables, a bare loop that only decodes and does the same
COPY and merge: no fold, no states read, no totals, no outbox, no position. What the projection
costs beyond it is the price of exactness.

A third of the events are `accepted`, a third `bytes`, a third `closed`; a connection's three events
lie in three different batches, so each of them finds or makes its row. The log is a list in memory:
its cost is another benchmark's question. CPU seconds are of this process and of the server's own
processes for this database, from /proc, so the server must run on this machine.

    make bench n=projection [args="--events N"]
"""

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
from sqlalchemy.engine import make_url

from handoff_common import bulk, codec
from handoff_common.clock import SystemClock
from handoff_common.database import Database
from handoff_common.events import (
    AcceptedData,
    BytesData,
    ClosedData,
    ConnectionAccepted,
    ConnectionBytes,
    ConnectionClosed,
    ConnectionData,
    Envelope,
    Reason,
    counters_of,
)
from handoff_common.ids import uuid7
from handoff_common.instants import from_ms, to_ms
from handoff_common.log import Batch, Message, Partition, Position, PositionSource, Record
from handoff_common.process import settle_memory
from handoff_common.projection import Projector
from handoff_common.telemetry import new_registry
from handoff_common.topics import CONNECTIONS
from handoff_metering import tables
from handoff_metering.metrics import Metrics
from handoff_metering.projection import ConnectionsProjection
from handoff_metering.settings import MeteringSettings
from handoff_metering.store import slices
from handoff_metering.store import states as store
from handoff_metering.wiring import upgrade

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.parts import choice

PARTITIONS = 4
SERVICES = 40
CUSTOMERS = 10


class Reader:
    """A subscription over records in memory."""

    def __init__(self, records: Mapping[int, Sequence[Record]], positions: PositionSource) -> None:
        self._records = records
        self._positions = positions
        self._at: dict[int, int] | None = None
        self.assigned = frozenset(Partition(CONNECTIONS.name, n) for n in records)

    async def fetch(self, *, max_records: int, timeout: float) -> Sequence[Batch]:
        if self._at is None:
            starts = await self._positions(sorted(self.assigned))
            self._at = {p.number: starts.get(p, 0) for p in self.assigned}
        found = []
        for number, at in sorted(self._at.items()):
            records = self._records[number][at : at + max_records]
            if records:
                self._at[number] = at + len(records)
                found.append(Batch(CONNECTIONS.name, number, records, self._at[number], at))
        return found

    async def seek(self, partition: Partition, offset: int) -> None:
        raise AssertionError("nothing else moves a position here")

    async def caught_up(self) -> bool:
        return True

    async def close(self) -> None:
        return None


class MemoryLog:
    """As much of an EventLog as a projection asks for."""

    def __init__(self, records: Mapping[int, Sequence[Record]]) -> None:
        self._records = records

    def subscribe(
        self, topics: Sequence[str], *, group: str | None, positions: PositionSource
    ) -> Reader:
        return Reader(self._records, positions)

    async def identity(self, topic: str) -> str:
        return "memory"

    async def partitions(self, topic: str) -> int:
        return len(self._records)

    async def ends(self, topic: str) -> Mapping[int, tuple[int, int]]:
        return {number: (0, len(records)) for number, records in self._records.items()}

    async def append(self, topic: str, messages: Sequence[Message]) -> Sequence[Position]:
        raise AssertionError("a projection writes through its outbox")

    async def settled(self, positions: Sequence[Position], *, timeout: float) -> bool:
        return True

    async def close(self) -> None:
        return None


def made(events: int, batch: int) -> dict[int, list[Record]]:
    """Partition → its records, as edges would have written them."""
    now_ms = SystemClock().now_ms()
    group = max(1, batch // 3)
    found: dict[int, list[Record]] = {}
    for number in range(PARTITIONS):
        scripts = [script(n, now_ms) for n in range(events // PARTITIONS // 3)]
        groups = [scripts[at : at + group] for at in range(0, len(scripts), group)]
        values: list[Envelope] = []
        for at in range(len(groups) + 2):
            for step in (2, 1, 0):
                if 0 <= at - step < len(groups):
                    values += [events_[step] for events_ in groups[at - step]]
        found[number] = [
            Record(CONNECTIONS.name, number, offset, now_ms, e.subject, codec.encode(e))
            for offset, e in enumerate(values)
        ]
    return found


def script(number: int, now_ms: int) -> tuple[Envelope, Envelope, Envelope]:
    """The three events of a connection that lived for 95 s."""
    identifier = uuid7()
    accepted_at = from_ms(now_ms - 200_000 + number % 1_000)
    common: dict[str, Any] = {
        "customer_id": f"customer-{number % SERVICES % CUSTOMERS:013d}",
        "service_id": f"service-{number % SERVICES:014d}",
        "region": "europe",
        "pop": "fra",
        "edge_id": f"01900000-0000-7000-8000-{number % 4:012d}",
        "connection_id": identifier,
        "accepted_at": accepted_at,
        "req_header_bytes": 480,
        "resp_header_bytes": 129,
        "bereq_header_bytes": 512,
        "beresp_header_bytes": 129,
    }

    def counted(body: int) -> dict[str, Any]:
        names = ("req_body_bytes", "resp_body_bytes", "bereq_body_bytes", "beresp_body_bytes")
        return dict.fromkeys(names, body)

    def envelope(seq: int, elapsed_ms: int) -> dict[str, Any]:
        return {
            "id": f"{identifier}-{seq}",
            "source": "/edges/01900000-0000-7000-8000-000000000000",
            "subject": identifier,
            "time": accepted_at + timedelta(milliseconds=elapsed_ms),
        }

    accepted = AcceptedData(
        **common,
        seq=0,
        elapsed_ms=12,
        domain="chat.example.com",
        rule="default",
        backend="origin",
        service_version=3,
        tls=True,
        client_network="192.0.2.0/24",
    )
    said = BytesData(**common, **counted(9_000 + number), seq=1, elapsed_ms=61_000)
    closed = ClosedData(
        **common,
        **counted(15_000 + number),
        seq=2,
        elapsed_ms=95_000,
        reason=Reason.CLIENT_CLOSED,
        closed_by="client",
        close_code=1000,
    )
    return (
        ConnectionAccepted(**envelope(0, 12), data=accepted),
        ConnectionBytes(**envelope(1, 61_000), data=said),
        ConnectionClosed(**envelope(2, 95_000), data=closed),
    )


class Cost(NamedTuple):
    """Of one pass over all events."""

    wall_s: float
    python_s: float
    postgres_s: float


async def project(database: Database, records: Mapping[int, Sequence[Record]], batch: int) -> None:
    """The projection as metering runs it."""
    metrics = Metrics(new_registry())
    projector = Projector(
        ConnectionsProjection(
            clock=SystemClock(), metrics=metrics, max_batch=batch, keep_months=13
        ),
        log=MemoryLog(records),
        database=database,
        positions=tables.positions,
        parked=tables.parked,
        clock=SystemClock(),
        registry=metrics.registry,
    )
    await projector.run_to_end()


async def bare(database: Database, records: Mapping[int, Sequence[Record]], batch: int) -> None:
    """Decode, and the same COPY and merge."""
    for number, mine in records.items():
        for at in range(0, len(mine), batch):
            rows: dict[str, tuple[object, ...]] = {}
            said = []
            for record in mine[at : at + batch]:
                event = codec.decode(record.topic, record.value)
                rows[record.key] = bare_row(number, record.offset, event)
                said.append(bare_event(number, record.offset, event))
            async with database.transaction() as tx:
                await bulk.merge(
                    tx,
                    tables.connections,
                    store.COLUMNS,
                    list(rows.values()),
                    keys=("connection_id",),
                    update=store.MUTABLE,
                )
                await bulk.copy(tx, tables.connection_events, store.EVENT_COLUMNS, said)


def bare_row(number: int, offset: int, event: Envelope) -> tuple[object, ...]:
    """As a row of `connections`, without asking what it was before."""
    data: ConnectionData = event.data  # type: ignore[attr-defined]
    accepted_ms = to_ms(data.accepted_at)
    ended: tuple[object, ...] = (None,) * 5
    if isinstance(data, ClosedData):
        ended = (data.reason.value, data.closed_by, 1000, data.elapsed_ms, accepted_ms)
    return (
        data.connection_id,
        number,
        data.customer_id,
        data.service_id,
        data.region,
        data.pop,
        data.edge_id,
        accepted_ms,
        data.elapsed_ms,
        data.seq,
        *counters_of(data),
        1,
        None if isinstance(data, ClosedData) else accepted_ms + 60_000 * (1 + data.seq),
        accepted_ms,
        *ended,
        "chat.example.com",
        "default",
        "origin",
        3,
        None,
        True,
        "192.0.2.0/24",
        offset,
    )


def bare_event(number: int, offset: int, event: Envelope) -> tuple[object, ...]:
    """As a row of `connection_events`."""
    data: ConnectionData = event.data  # type: ignore[attr-defined]
    said = store.counters_text(counters_of(data))
    return (
        data.connection_id,
        number,
        offset,
        data.service_id,
        data.region,
        event.id,
        "bytes",
        data.seq,
        to_ms(data.accepted_at),
        data.elapsed_ms,
        said,
        said,
        "counted",
    )


@asynccontextmanager
async def database(server_url: str) -> AsyncIterator[Database]:
    """A migrated database that is dropped at the end."""
    plain = make_url(server_url).set(drivername="postgresql", database="postgres")
    name = f"bench_projection_{os.getpid()}"
    server = await asyncpg.connect(plain.render_as_string(hide_password=False), timeout=10)
    await server.execute(f"CREATE DATABASE {name}")
    url = plain.set(drivername="postgresql+asyncpg", database=name)
    made_ = Database(url.render_as_string(hide_password=False), name="bench")
    try:
        await upgrade(MeteringSettings(), database=made_, clock=SystemClock())
        yield made_
    finally:
        await made_.close()
        await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await server.close()


async def postgres_cpu(database: Database) -> float:
    """CPU seconds so far of the processes that serve this database."""
    async with database.read() as tx:
        pids = await tx.exec_driver_sql(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        )
        found = [pid for (pid,) in pids]
    ticks = 0
    for pid in found:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


Way = Callable[[Database, Mapping[int, Sequence[Record]], int], Awaitable[None]]


async def measured(
    way: Way, server_url: str, records: Mapping[int, Sequence[Record]], batch: int
) -> Cost:
    async with database(server_url) as db:
        async with db.transaction() as tx:
            await slices.make_slices(tx, range(PARTITIONS), generation=0, unpublished=False)
        server = await postgres_cpu(db)
        python, wall = time.process_time(), time.perf_counter()
        await way(db, records, batch)
        spent = time.perf_counter() - wall
        return Cost(spent, time.process_time() - python, await postgres_cpu(db) - server)


def table(events: int, costs: Mapping[str, Sequence[Cost]]) -> Iterator[str]:
    yield "| | events/s | CPU of Python per event | CPU of Postgres per event |"
    yield "|---|---|---|---|"
    for name, of in costs.items():
        rates = sorted(events / cost.wall_s for cost in of)
        micro = 1e6 / events
        yield (
            f"| {name} | {statistics.median(rates):,.0f} ({rates[0]:,.0f}–{rates[-1]:,.0f}) "
            f"| {statistics.median(c.python_s for c in of) * micro:.1f} µs "
            f"| {statistics.median(c.postgres_s for c in of) * micro:.1f} µs |"
        )
    projected, bare_ = costs.values()
    shares = [b.wall_s / a.wall_s for a, b in zip(projected, bare_, strict=True)]
    yield ""
    yield f"share of the bare loop: {statistics.median(shares):.0%}"


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=120_000)
    parser.add_argument("--batch", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=120.0, help="no round begins after this")
    given = parser.parse_args()
    records = made(given.events, given.batch)
    events = sum(map(len, records.values()))
    # As `process.serve` does it; the records in memory are the log's, not the worker's.
    settle_memory()
    ways: dict[str, Way] = {"projection": project, "bare decode, COPY and merge": bare}
    costs: dict[str, list[Cost]] = {name: [] for name in ways}
    begun = time.monotonic()
    async with choice.new_server() as server:
        for _ in range(given.rounds):
            if time.monotonic() - begun > given.seconds:
                break
            for name, way in ways.items():
                url = server.address.url("postgres")
                costs[name].append(await measured(way, url, records, given.batch))
    rounds = len(costs["projection"])
    print(f"{events:,} events, {SERVICES} services, batches of {given.batch}, {rounds} rounds")
    print("\n".join(table(events, costs)))


if __name__ == "__main__":
    try:
        import uvloop

        uvloop.run(main())
    except ImportError:
        asyncio.run(main())
