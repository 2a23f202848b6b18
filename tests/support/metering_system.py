"""Metering by itself on a real embedded log and database, for its integration tests."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import httpx

from handoff_common import codec
from handoff_common.clock import Clock, SystemClock
from handoff_common.database import Database
from handoff_common.errors import DatabaseAway
from handoff_common.events import (
    AccessData,
    AccessSnapshot,
    ProgressData,
    ServiceData,
    ServiceSnapshot,
    UsageData,
    UsageTotals,
    counters_of,
)
from handoff_common.instants import from_ms
from handoff_common.log import Partition
from handoff_common.log_sqlite import SqliteLog
from handoff_common.minutes import month_of
from handoff_common.service import Service, running
from handoff_common.topics import ACCESS, CONNECTIONS, CONTROLS, SERVICES, USAGE
from handoff_metering import replay
from handoff_metering.settings import MeteringSettings
from handoff_metering.store import slices as store_slices
from handoff_metering.store import states
from handoff_metering.usage import Totals, UsageKey, usage_at
from handoff_metering.wiring import build
from support.databases import database_url
from support.metering_edge import append

T = TypeVar("T")

NOW_MS = SystemClock().now_ms()
MONTH_END = month_of(month_of(NOW_MS) - 1)
"""A month's end at least a month ago, so that no test depends on the day on which it runs."""

Role = Literal["operator", "superuser", "engineer", "billing", "user"]


async def until(ask: Callable[[], Awaitable[T | None]], what: str, seconds: float = 15.0) -> T:
    """What `ask` returns once it is neither None nor False. A database that is slow to answer is
    asked again, as the services do."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = await ask()
        except DatabaseAway:
            found = None
        if found is not None and found is not False:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds} s it is still not so that {what}")
        await asyncio.sleep(0.01)


def row_totals(data: UsageData) -> Totals:
    return Totals(data.minutes, counters_of(data), data.opened, data.closed, data.lost)


@dataclass
class System:
    """A data folder with log and database; metering may run on it or not."""

    folder: Path
    log: SqliteLog
    database: Database
    clock: Clock = field(default_factory=SystemClock)
    settings: MeteringSettings = field(default_factory=lambda: MeteringSettings(tick_seconds=60))
    service: Service | None = None

    def build(self) -> Service:
        self.service = build(self.settings, log=self.log, database=self.database, clock=self.clock)
        return self.service

    @asynccontextmanager
    async def metering(self) -> AsyncIterator[Service]:
        """Metering, running until the block is left."""
        service = self.build()
        async with running(service) as failed:
            try:
                yield service
            finally:
                if failed.done():
                    failed.result()

    async def caught_up(self, *, seconds: float = 15.0) -> None:
        """Wait until every connection record is folded and every message is in the log."""

        async def is_so() -> bool:
            ends = await self.log.ends(CONNECTIONS.name)
            async with self.database.read() as tx:
                positions = await store_slices.read_positions(tx)
            return all(positions.get(n, 0) >= end for n, (_, end) in ends.items())

        await until(is_so, "all connection records are folded", seconds)

    async def usage(self) -> dict[UsageKey, Totals]:
        """The rows in the database, slices summed, without those that come to nothing."""
        found: dict[UsageKey, Totals] = {}
        async with self.database.read() as tx:
            for number in range(await self.log.partitions(USAGE.name)):
                for key, total in (await states.all_usage(tx, number)).items():
                    found[key] = found.get(key, Totals()).plus(total)
        return {key: total for key, total in found.items() if total != Totals()}

    async def expected(self, through_ms: int) -> dict[UsageKey, Totals]:
        """The rows as the pure core makes them from what is in the log, in one go."""
        records = []
        for number, (first, end) in (await self.log.ends(CONNECTIONS.name)).items():
            found, _ = await self.log.records(Partition(CONNECTIONS.name, number), first, end)
            records += found
        slices = range(await self.log.partitions(CONNECTIONS.name))
        return usage_at(replay.readable(records), dict.fromkeys(slices, through_ms))

    async def total(self) -> Totals:
        sum_ = Totals()
        for total in (await self.usage()).values():
            sum_ = sum_.plus(total)
        return sum_

    async def published(self) -> dict[UsageKey, Totals]:
        """What a reader of the usage topic holds: per row the greatest version, slices summed."""
        newest: dict[str, UsageData] = {}
        for event in await self.read(USAGE.name):
            if isinstance(event, UsageTotals):
                held = newest.get(event.subject)
                version = (event.data.generation, event.data.revision)
                if held is None or version >= (held.generation, held.revision):
                    newest[event.subject] = event.data
        found: dict[UsageKey, Totals] = {}
        for data in newest.values():
            hour_ms = int(data.hour.timestamp()) * 1000
            key = UsageKey(data.customer_id, data.service_id, data.region, hour_ms)
            found[key] = found.get(key, Totals()).plus(row_totals(data))
        return {key: total for key, total in found.items() if total != Totals()}

    async def progress(self) -> dict[tuple[int, int], ProgressData]:
        """(slice, usage partition) → what the slice has said there last."""
        found = {}
        for event in await self.read(USAGE.name):
            if not isinstance(event, UsageTotals):
                partition = int(event.subject.rsplit("/", 1)[1])
                found[event.data.slice, partition] = event.data
        return found

    async def controls(self) -> list[Any]:
        return await self.read(CONTROLS.name)

    async def read(self, topic: str) -> list[Any]:
        """Every event of a topic."""
        found = []
        for number, (first, end) in (await self.log.ends(topic)).items():
            partition = Partition(topic, number)
            at = first
            while at < end:
                records, at = await self.log.records(partition, at, 10_000)
                found += [codec.decode(topic, record.value) for record in records]
        return found

    # --- What config would write ---

    async def token(
        self,
        role: Role,
        customer_id: str | None = None,
        scope: Literal["global", "global:read"] = "global",
    ) -> str:
        """A token in force."""
        token = f"token-{role}-{customer_id}-{scope}"
        event = AccessSnapshot(
            id=token,
            source="/config",
            subject=token,
            time=from_ms(NOW_MS),
            data=AccessData(
                revision=1,
                token_id=token,
                token_sha256=hashlib.sha256(token.encode()).hexdigest(),
                user_id=None if customer_id is None else "user",
                customer_id=customer_id,
                login="someone@example.com",
                role=role,
                scope=scope,
                created_at=from_ms(NOW_MS),
            ),
        )
        await append(self.log, ACCESS.name, [event])
        return token

    async def make_service(self, service_id: str, customer_id: str) -> None:
        event = ServiceSnapshot(
            id=service_id,
            source="/config",
            subject=service_id,
            time=from_ms(NOW_MS),
            data=ServiceData(
                revision=1, service_id=service_id, customer_id=customer_id, name=f"{service_id}!"
            ),
        )
        await append(self.log, SERVICES.name, [event])

    def client(self, token: str = "") -> httpx.AsyncClient:
        """A client of the service's own application, without a socket between."""
        assert self.service is not None
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(app=self.service.app),
            base_url="http://metering",
            headers={"Fastly-Key": token} if token else {},
        )


@asynccontextmanager
async def system(folder: Path, *, partitions: int = 2, **settings: Any) -> AsyncIterator[System]:
    """A fresh or former folder, opened."""
    log = await SqliteLog.open(folder / "log.db", partitions=partitions)
    database = Database(await database_url(folder, "metering"))
    try:
        yield System(
            folder,
            log,
            database,
            settings=MeteringSettings(**({"tick_seconds": 60} | settings)),
        )
    finally:
        await database.close()
        await log.close()
