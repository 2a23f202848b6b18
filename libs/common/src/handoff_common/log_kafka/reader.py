"""Reads from Kafka: positions come from the caller, never from Kafka's own commits.

With a group, Kafka deals the partitions out among its members; at each assignment the caller is
asked where to begin. Two members may believe for a moment that a partition is theirs: the caller's
compare-and-set of its position decides, so that is a matter of repeated work and not of the result.
Commits to the group only show its lag to Kafka's own tools.

While the broker is away `fetch` answers nothing, and goes on by itself when it is back.
"""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import CorruptRecordException, IllegalStateError, KafkaError

from handoff_common.errors import LogCorrupt, LogUnreachable, PositionLost
from handoff_common.log import Batch, Partition, Position, PositionSource, Record
from handoff_common.telemetry import get_logger
from handoff_common.topics import TOPICS

if TYPE_CHECKING:
    from handoff_common.log_kafka import KafkaLog

_SESSION_MS = 6_000
"""How long a member that was killed keeps its partitions: the brokers' default of the least."""
_HEARTBEAT_MS = 1_500
_POLL_MS = 900_000
"""How long a batch may be tried again while its database is away before another member is asked."""
_PARTITION_BYTES = 1_048_576
_FETCH_BYTES = 16_777_216
_RETRY_SECONDS = 0.5
_COMMIT_SECONDS = 5.0
_ASSIGNED_SECONDS = 20.0
"""A member that the group has told nothing for so long joins it again."""


class KafkaSubscription:
    """Implements `log.Subscription`. timeout: seconds that connecting and joining may take."""

    def __init__(
        self,
        log: "KafkaLog",
        topics: Sequence[str],
        *,
        group: str | None,
        positions: PositionSource,
        timeout: float,
    ) -> None:
        self._log = log
        self._topics = tuple(topics)
        self._group = group
        self._source = positions
        self._timeout = timeout
        self._consumer: AIOKafkaConsumer | None = None
        self._assigned: frozenset[Partition] = frozenset()
        self._next: dict[Partition, int] = {}
        self._dealt: dict[Partition, int] = {}
        self._taken = False
        self._failed: BaseException | None = None
        self._committed_at = 0.0
        self._connected_at = 0.0
        self._away = False
        self._logger = get_logger("log")

    @property
    def assigned(self) -> frozenset[Partition]:
        return self._assigned

    def is_past(self, position: Position) -> bool:
        """Whether what lies before it has been dealt with, or is another's to deal with."""
        partition = Partition(position.topic, position.partition)
        if position.topic not in self._topics:
            return True
        if self._group is not None and partition not in self._assigned:
            return True
        return self._dealt.get(partition, 0) >= position.offset

    async def fetch(self, *, max_records: int, timeout: float) -> Sequence[Batch]:
        self._dealt = {p: at for p, at in self._next.items() if p in self._assigned}
        self._log.notify()
        consumer = await self._connected()
        if consumer is None:
            return []
        if not self._taken and time.monotonic() - self._connected_at > _ASSIGNED_SECONDS:
            await self._lost(TimeoutError(f"no partitions within {_ASSIGNED_SECONDS} s"))
            return []
        await self._show_lag(consumer)
        try:
            fetched = await consumer.getmany(
                timeout_ms=max(1, int(timeout * 1000)), max_records=max_records
            )
        except CorruptRecordException as error:
            raise LogCorrupt(f"Kafka at {self._log.bootstrap}", str(error)) from None
        except IllegalStateError:
            # Between two assignments.
            return []
        except (KafkaError, OSError) as error:
            await self._lost(error)
            return []
        if self._failed is not None:
            raise self._failed
        self._back()
        batches: list[Batch] = []
        for place, records in fetched.items():
            partition = Partition(place.topic, place.partition)
            if partition not in self._assigned or not records:
                continue
            start = self._next[partition]
            self._follows(partition, records[0].offset)
            following = await self._position(consumer, place, records[-1].offset + 1)
            self._next[partition] = following
            batches.append(
                Batch(place.topic, place.partition, [_record(r) for r in records], following, start)
            )
        return batches

    async def seek(self, partition: Partition, offset: int) -> None:
        consumer = self._consumer
        if consumer is not None and partition in self._assigned:
            with contextlib.suppress(IllegalStateError):
                consumer.seek(TopicPartition(*partition), offset)
            self._next[partition] = offset

    async def caught_up(self) -> bool:
        if self._consumer is None or self._failed is not None:
            return False
        own = self._assigned
        if not own:
            # A group may leave a member nothing to do. Before it has said so, nothing is known.
            return self._taken
        try:
            ends = {topic: await self._log.ends(topic) for topic in {p.topic for p in own}}
        except LogUnreachable:
            return False
        return all(self._dealt.get(p, -1) >= ends[p.topic][p.number][1] for p in own)

    async def close(self) -> None:
        self._log.unsubscribed(self)
        self._log.notify()
        await self._disconnect()

    # --- Connecting ---

    async def _connected(self) -> AIOKafkaConsumer | None:
        """The consumer, or None after a pause where the broker cannot be reached."""
        if self._failed is not None:
            raise self._failed
        if self._consumer is not None:
            return self._consumer
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._log.bootstrap,
            group_id=self._group,
            enable_auto_commit=False,
            # For the moment between an assignment and the seek that belongs to it. Where it shows
            # in what is read, `_follows` raises.
            auto_offset_reset="earliest",
            session_timeout_ms=_SESSION_MS,
            heartbeat_interval_ms=_HEARTBEAT_MS,
            rebalance_timeout_ms=_SESSION_MS,
            max_poll_interval_ms=_POLL_MS,
            max_partition_fetch_bytes=_PARTITION_BYTES,
            fetch_max_bytes=_FETCH_BYTES,
            partition_assignment_strategy=(StickyPartitionAssignor,),
            request_timeout_ms=int(max(self._timeout, 2 * _SESSION_MS / 1000) * 1000),
        )
        self._consumer = consumer
        self._connected_at = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout):
                if self._group is not None:
                    consumer.subscribe(list(self._topics), listener=_Listener(self, consumer))
                    await consumer.start()
                else:
                    await consumer.start()
                    partitions = [
                        Partition(topic, number)
                        for topic in self._topics
                        for number in range(await self._log.partitions(topic))
                    ]
                    consumer.assign([TopicPartition(*partition) for partition in partitions])
                    await self.take(consumer, partitions)
        except (KafkaError, LogUnreachable, OSError, TimeoutError) as error:
            if self._failed is not None:
                raise self._failed from None
            await self._lost(error)
            return None
        except BaseException:
            await self._disconnect()
            raise
        if self._failed is not None:
            raise self._failed
        return consumer

    async def take(self, consumer: AIOKafkaConsumer, partitions: Sequence[Partition]) -> None:
        """Begin where the caller says. Raises PositionLost, LogUnreachable."""
        given = await self._source(partitions) if partitions else {}
        starts: dict[Partition, int] = {}
        for topic in {partition.topic for partition in partitions}:
            ends = await self._log.ends(topic)
            for partition in partitions:
                if partition.topic != topic:
                    continue
                first, end = ends[partition.number]
                offset = given.get(partition, first)
                if not first <= offset <= end:
                    raise PositionLost(
                        f"{topic}[{partition.number}]: position {offset} is outside the log, "
                        f"which holds {first} to {end}"
                    )
                starts[partition] = offset
        is_current = self._consumer is consumer
        if not is_current:
            # Given up while it was asked for.
            return
        for partition, offset in starts.items():
            consumer.seek(TopicPartition(*partition), offset)
        self._next = starts
        self._assigned = frozenset(partitions)
        self._taken = True

    def give_up(self) -> None:
        """Nothing is this member's any more; what was fetched and not folded is dropped."""
        self._assigned = frozenset()
        self._next.clear()
        self._taken = False
        # From here on the group has that long to say what this member has next.
        self._connected_at = time.monotonic()

    def fail(self, error: BaseException) -> None:
        """aiokafka swallows what a listener raises: `fetch` raises it."""
        self._failed = error

    def _follows(self, partition: Partition, offset: int) -> None:
        """Kafka has gaps where it compacts, and nowhere else: a reader that finds one has missed
        records that were to be kept for ever."""
        expected = self._next.get(partition, offset)
        compacted = TOPICS[partition.topic].cleanup == "compact"
        if offset < expected or (offset > expected and not compacted):
            raise PositionLost(
                f"{partition.topic}[{partition.number}]: expected offset {expected}, "
                f"found {offset}; records are missing"
            )

    async def _lost(self, error: BaseException) -> None:
        if not self._away:
            self._logger.warning("broker_away", topics=self._topics, detail=repr(error))
        self._away = True
        await self._disconnect()
        await asyncio.sleep(_RETRY_SECONDS)

    def _back(self) -> None:
        if self._away:
            self._logger.info("broker_back", topics=self._topics)
        self._away = False

    async def _disconnect(self) -> None:
        consumer, self._consumer = self._consumer, None
        self.give_up()
        if consumer is None:
            return
        stopping = asyncio.create_task(consumer.stop())
        try:
            async with asyncio.timeout(self._timeout):
                await asyncio.shield(stopping)
        except (KafkaError, OSError, TimeoutError) as error:
            stopping.cancel()
            self._logger.warning("consumer_not_stopped", detail=repr(error))

    async def _position(
        self, consumer: AIOKafkaConsumer, place: TopicPartition, fallback: int
    ) -> int:
        """Where aiokafka goes on: behind the last record, and behind a gap that compaction left."""
        try:
            async with asyncio.timeout(0.1):
                return max(fallback, int(await consumer.position(place)))
        except (KafkaError, TimeoutError):
            return fallback

    async def _show_lag(self, consumer: AIOKafkaConsumer) -> None:
        """Tell Kafka's own tools how far the group is. Nobody reads it back."""
        if self._group is None or time.monotonic() - self._committed_at < _COMMIT_SECONDS:
            return
        self._committed_at = time.monotonic()
        offsets = {TopicPartition(*partition): at for partition, at in self._dealt.items()}
        if offsets:
            with contextlib.suppress(KafkaError, TimeoutError, OSError):
                async with asyncio.timeout(1.0):
                    await consumer.commit(offsets)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is not typed
    def __init__(self, subscription: KafkaSubscription, consumer: AIOKafkaConsumer) -> None:
        self._subscription = subscription
        self._consumer = consumer

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        self._subscription.give_up()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        partitions = sorted(Partition(place.topic, place.partition) for place in assigned)
        while True:
            try:
                await self._subscription.take(self._consumer, partitions)
                return
            except LogUnreachable as error:
                get_logger("log").warning("assignment_waits", detail=str(error))
                await asyncio.sleep(_RETRY_SECONDS)
            except asyncio.CancelledError:
                raise
            except BaseException as error:  # it must reach the caller, whatever it is
                self._subscription.fail(error)
                return


def _record(record: ConsumerRecord) -> Record:
    return Record(
        record.topic,
        record.partition,
        record.offset,
        record.timestamp,
        record.key.decode(errors="replace") if record.key is not None else "",
        record.value if record.value is not None else b"",
    )
