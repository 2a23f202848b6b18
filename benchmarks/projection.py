"""How many events per second one metering worker folds from encoded records into Postgres.

Beside it, in the same run and on the same tables, a bare loop that only decodes and does the same
COPY and merge: no fold, no states read, no totals, no outbox, no position. What the projection costs
beyond it is the price of exactness.

A third of the events are `accepted`, a third `bytes`, a third `closed`; a connection's three events
lie in three different batches, so each of them finds or makes its row. The log is a list in memory:
its cost is another benchmark's question. CPU seconds are of this process and of the server's own
processes for this database, from /proc, so the server must run on this machine.

    HANDOFF_TEST_POSTGRES=postgresql://user@host:port/ make bench n=projection [args="--events N"]
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
from typing import NamedTuple

import asyncpg
from sqlalchemy.engine import make_url

from handoff_common import bulk, codec
from handoff_common.clock import SystemClock
from handoff_common.database import Database, migrate
from handoff_common.events import (
    AcceptedData,
    BytesData,
    ClosedData,
    ConnectionAccepted,
    ConnectionBytes,
    ConnectionClosed,
    Envelope,
    Reason,
)
from handoff_common.ids import uuid7
from handoff_common.instants import from_ms, to_ms
from handoff_common.log import Batch, Message, Partition, Position, PositionSource, Record
from handoff_common.projection import Projector
from handoff_common.telemetry import new_registry
from handoff_common.topics import CONNECTIONS
from handoff_metering import tables
from handoff_metering.metrics import Metrics
from handoff_metering.projection import ConnectionsProjection
from handoff_metering.store import slices
from handoff_metering.store import states as store

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
                found.append(Batch(CONNECTIONS.name, number, records, self._at[number]))
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
    common = {
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

    def counted(body: int) -> dict[str, int]:
        names = ("req_body_bytes", "resp_body_bytes", "bereq_body_bytes", "beresp_body_bytes")
        return dict.fromkeys(names, body)

    def envelope(seq: int, elapsed_ms: int) -> dict[str, object]:
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
        ConnectionsProjection(clock=SystemClock(), metrics=metrics, max_batch=batch),
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
            rows, said = [], []
            for record in mine[at : at + batch]:
                event = codec.decode(record.topic, record.value)
                rows.append(bare_row(number, record.offset, event))
                said.append(bare_event(number, record.offset, event))
            async with database.transaction() as tx:
                await bulk.merge(
                    tx,
                    tables.connections,
                    store.COLUMNS,
                    rows,
                    keys=("connection_id",),
                    update=store.MUTABLE,
                )
                await bulk.copy(tx, tables.connection_events, store.EVENT_COLUMNS, said)


def bare_row(number: int, offset: int, event: Envelope) -> tuple[object, ...]:
    raise NotImplementedError


def bare_event(number: int, offset: int, event: Envelope) -> tuple[object, ...]:
    raise NotImplementedError
