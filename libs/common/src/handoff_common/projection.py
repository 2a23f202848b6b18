"""THE loop: read from the log → fold → save state, position and outbox in one transaction.

It owns positions and parking. What a projection does with its events is the projection's own.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge
from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncConnection

from handoff_common import codec
from handoff_common.away import until_back
from handoff_common.bulk import upsert
from handoff_common.clock import Clock
from handoff_common.database import Database, load_positions, move_position
from handoff_common.errors import PositionConflict, PositionLost, Unreadable
from handoff_common.events import Envelope
from handoff_common.instants import to_ms
from handoff_common.log import Batch, EventLog, Partition, Record, Subscription
from handoff_common.telemetry import get_logger

MAX_SKEW_MS = 300_000
"""An event whose instant is further ahead of the log's append time than this is parked."""

_POLL_SECONDS = 1.0
_AT_ONCE = 3
"""Partitions whose transactions are open beside each other; on SQLite they would only wait."""


class Folded(NamedTuple):
    record: Record
    event: Any


class Projection(Protocol):
    """name: of its positions; topics: what it reads; max_batch: records per transaction."""

    @property
    def name(self) -> str: ...

    @property
    def topics(self) -> tuple[str, ...]: ...

    @property
    def max_batch(self) -> int: ...

    async def apply(
        self, tx: AsyncConnection, partition: Partition, batch: Sequence[Folded]
    ) -> None:
        """Fold decoded records of one partition, in order, in the transaction that also moves the
        position. `batch` is empty where all records were parked.

        To park one record after looking at it, raise Parking with its index: all is rolled back,
        and the batch is applied again without it.
        """


class Parking(Exception):
    """Park the record at `index` of the batch given to `apply`."""

    def __init__(self, index: int, cause: Unreadable) -> None:
        super().__init__(str(cause))
        self.index = index
        self.cause = cause


class ProjectionMetrics:
    """What projectors measure, by topic: one set for all of a process that read different ones."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        self.folded = Counter(
            "handoff_projection_events", "Events folded", ["topic"], registry=registry
        )
        self.parked = Counter(
            "handoff_projection_parked", "Records parked", ["topic", "kind"], registry=registry
        )
        self.passed_over = Counter(
            "handoff_projection_passed_over",
            "Records that could not be folded and are not missed",
            ["topic", "kind"],
            registry=registry,
        )
        self.lag = Gauge(
            "handoff_projection_lag",
            "Records between the position and the log's end",
            ["topic", "partition"],
            registry=registry,
        )


class Projector:
    """Runs one projection.

    positions, parked: the tables of `database.projection_tables`. parked None: records that cannot
    be folded are passed over, for a projection that nothing is proved by.
    metrics: in place of a set of its own on `registry`.
    pause: seconds between two rounds that found something, once it has caught up: for a projection
    that may be a little late, on a topic that is written to all the time.
    committed: awaited after each committed batch, outside the transaction.
    """

    def __init__(
        self,
        projection: Projection,
        *,
        log: EventLog,
        database: Database,
        positions: Table,
        parked: Table | None,
        clock: Clock,
        registry: CollectorRegistry | None = None,
        metrics: ProjectionMetrics | None = None,
        committed: Callable[[Partition], Awaitable[None]] | None = None,
        pause: float = 0.0,
    ) -> None:
        self._pause = pause
        self._projection = projection
        self._log = log
        self._database = database
        self._positions = positions
        self._parked = parked
        self._clock = clock
        self._committed = committed
        self._logger = get_logger("projection")
        self._next: dict[Partition, int | None] = {}
        self._identities: dict[str, str] = {}
        self._subscription: Subscription | None = None
        self.ready = False
        self._metrics = metrics or ProjectionMetrics(registry)

    def position(self, partition: Partition) -> int:
        """Next offset of a partition as last committed by this worker."""
        return self._next.get(partition) or 0

    @property
    def positions(self) -> Mapping[Partition, int]:
        """Partition → next offset, of those that are this worker's now."""
        own = self._subscription.assigned if self._subscription else frozenset()
        return {partition: at or 0 for partition, at in self._next.items() if partition in own}

    async def run(self) -> None:
        """The loop; ends only by cancellation, or by an error that a restart must look at."""
        subscription = self._log.subscribe(
            self._projection.topics, group=self._projection.name, positions=self._begin
        )
        self._subscription = subscription
        try:
            while True:
                batches = await subscription.fetch(
                    max_records=self._projection.max_batch,
                    timeout=_POLL_SECONDS if self.ready else 0,
                )
                await self._take_all(subscription, batches)
                if not batches and not self.ready:
                    self.ready = await subscription.caught_up()
                elif batches and self.ready and self._pause:
                    await asyncio.sleep(self._pause)
        finally:
            self._subscription = None
            await subscription.close()

    async def run_to_end(self) -> None:
        """Fold what the log holds now, then stop: for rebuilds. All of it: no group has a say."""
        subscription = self._log.subscribe(
            self._projection.topics, group=None, positions=self._begin
        )
        try:
            while True:
                batches = await subscription.fetch(
                    max_records=self._projection.max_batch, timeout=0
                )
                await self._take_all(subscription, batches)
                if not batches and await subscription.caught_up():
                    return
        finally:
            await subscription.close()

    async def lag(self) -> dict[Partition, int]:
        """Partition → records not folded yet, by whichever worker. Raises DatabaseAway."""
        stored = await self._stored()
        behind: dict[Partition, int] = {}
        for topic in self._projection.topics:
            for number, (_, end) in (await self._log.ends(topic)).items():
                partition = Partition(topic, number)
                _, at = stored.get(partition, ("", 0))
                behind[partition] = max(0, end - at)
                self._metrics.lag.labels(topic, str(number)).set(behind[partition])
        return behind

    async def _begin(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        stored = await until_back(self._stored, what="read positions")
        starts: dict[Partition, int] = {}
        for partition in partitions:
            if partition.topic not in self._identities:
                self._identities[partition.topic] = await self._log.identity(partition.topic)
            if partition not in stored:
                self._next[partition] = None
                continue
            identity, offset = stored[partition]
            if identity != self._identities[partition.topic]:
                raise PositionLost(
                    f"{partition.topic} is another topic than the one that projection "
                    f"{self._projection.name!r} has read; rebuild it, or restore the log"
                )
            self._next[partition] = offset
            starts[partition] = offset
        return starts

    async def _stored(self) -> Mapping[Partition, tuple[str, int]]:
        async with self._database.read() as tx:
            return await load_positions(
                tx, self._positions, self._projection.name, self._projection.topics
            )

    async def _take_all(self, subscription: Subscription, batches: Sequence[Batch]) -> None:
        """Each partition's batches in order, a few partitions beside each other: one is folded
        while the database works for another.

        Also while the database is away: where a commit's answer was lost, the repeat finds the
        position moved, and goes on behind the batch.
        """
        room = asyncio.Semaphore(1 if self._database.is_sqlite else _AT_ONCE)
        lanes: dict[tuple[str, int], list[Batch]] = {}
        for batch in batches:
            lanes.setdefault((batch.topic, batch.partition), []).append(batch)

        async def take(lane: Sequence[Batch]) -> None:
            async with room:
                for batch in lane:
                    if Partition(batch.topic, batch.partition) in subscription.assigned:
                        # Else it was given to another worker while the ones before were folded.
                        await until_back(partial(self._take, subscription, batch), what="project")

        tasks = [asyncio.ensure_future(take(lane)) for lane in lanes.values()]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _take(self, subscription: Subscription, batch: Batch) -> None:
        partition = Partition(batch.topic, batch.partition)
        good: list[Folded] = []
        bad: list[tuple[Record, Unreadable]] = []
        for record in batch.records:
            try:
                good.append(Folded(record, self._decode(record)))
            except Unreadable as error:
                bad.append((record, error))
        while True:
            try:
                async with self._database.transaction() as tx:
                    # First: whoever is slower waits here, and has done nothing yet.
                    await move_position(
                        tx,
                        self._positions,
                        self._projection.name,
                        partition,
                        identity=self._identities[batch.topic],
                        # What was read need not follow on what was folded since: where partitions
                        # are dealt out anew, the reader begins again at what was stored then.
                        expected=None if self._next[partition] is None else batch.start,
                        next_offset=batch.next_offset,
                    )
                    # Before the fold, so that a decision in this batch finds what it is about.
                    await self._park(tx, bad)
                    await self._projection.apply(tx, partition, good)
                break
            except Parking as parking:
                bad.append((good.pop(parking.index).record, parking.cause))
            except PositionConflict as error:
                # Another worker moved on: forget what was folded and go on from its position.
                self._logger.warning("position_conflict", detail=str(error))
                starts = await self._begin([partition])
                await subscription.seek(partition, starts.get(partition, 0))
                return
        self._next[partition] = batch.next_offset
        self._metrics.folded.labels(batch.topic).inc(len(good))
        for record, cause in bad:
            self._tell(record, cause)
        if self._committed is not None:
            await self._committed(partition)

    def _tell(self, record: Record, cause: Unreadable) -> None:
        kept = self._parked is not None
        counter = self._metrics.parked if kept else self._metrics.passed_over
        counter.labels(record.topic, cause.kind).inc()
        say = self._logger.error if kept else self._logger.warning
        say(
            "record_parked" if kept else "record_passed_over",
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            kind=cause.kind,
            detail=cause.detail,
        )

    @staticmethod
    def _decode(record: Record) -> Envelope:
        event: Envelope = codec.decode(record.topic, record.value)
        if to_ms(event.time) > record.appended_ms + MAX_SKEW_MS:
            customer = getattr(getattr(event, "data", None), "customer_id", None)
            raise Unreadable(
                "skewed",
                f"its time {event.time.isoformat()} is more than {MAX_SKEW_MS // 1000} s "
                "ahead of the log's",
                customer,
            )
        return event

    async def _park(self, tx: AsyncConnection, bad: Sequence[tuple[Record, Unreadable]]) -> None:
        if self._parked is None:
            return
        await upsert(
            tx,
            self._parked,
            [
                {
                    "topic": record.topic,
                    "partition": record.partition,
                    "offset": record.offset,
                    "projection": self._projection.name,
                    "key": record.key,
                    "value": record.value,
                    "appended_ms": record.appended_ms,
                    "kind": cause.kind,
                    "detail": cause.detail,
                    "customer_id": cause.customer_id,
                    "parked_ms": self._clock.now_ms(),
                }
                for record, cause in bad
            ],
            keys=["topic", "partition", "offset", "projection"],
            update=[],
        )


async def until_ready(projector: Projector, *, timeout: float) -> bool:
    """Wait until the projector has once caught up with the log."""
    try:
        async with asyncio.timeout(timeout):
            while not projector.ready:  # noqa: ASYNC110  (a start-up wait, bounded above)
                await asyncio.sleep(0.01)
    except TimeoutError:
        return False
    return True
