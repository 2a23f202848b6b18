"""A compacted topic folded in memory: small state that a service asks on every request.

It owns nothing durable: it is read from the log's start at each start of the process.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from handoff_common import codec
from handoff_common.errors import LogUnreachable, Unreadable
from handoff_common.log import EventLog, Partition, Position
from handoff_common.telemetry import get_logger

_BATCH = 2_000
_POLL_SECONDS = 1.0


class View:
    """Calls `fold(event, partition)` for each event of the topics, in each partition's order.

    fold: synchronous; repeats and older revisions are its business.
    changed: set and cleared around each batch; `wait` for it to react to what is new.
    """

    def __init__(
        self, log: EventLog, topics: Sequence[str], fold: Callable[[Any, int], None], *, name: str
    ) -> None:
        self._log = log
        self._topics = tuple(topics)
        self._fold = fold
        self._name = name
        self._read: dict[Partition, int] = {}
        self._moved = asyncio.Condition()
        self._catching_up: asyncio.Task[bool] | None = None
        self._logger = get_logger("view")
        self.version = 0
        self.ready = False
        self.unreadable = 0

    async def run(self) -> None:
        """The loop that feeds the view; ends only by cancellation or an error of the log."""

        async def behind_what_was_read(_: Sequence[Partition]) -> Mapping[Partition, int]:
            return self._read

        subscription = self._log.subscribe(self._topics, group=None, positions=behind_what_was_read)
        try:
            while True:
                batches = await subscription.fetch(
                    max_records=_BATCH, timeout=0 if not self.ready else _POLL_SECONDS
                )
                for batch in batches:
                    self._fold_all(batch.records)
                    self._read[Partition(batch.topic, batch.partition)] = batch.next_offset
                if batches or not self.ready:
                    self.ready = self.ready or (not batches and await subscription.caught_up())
                    async with self._moved:
                        self.version += bool(batches)
                        self._moved.notify_all()
        finally:
            await subscription.close()

    async def wait(self, version: int, *, timeout: float) -> int:
        """Wait until something was folded after `version`; returns the version of now."""
        try:
            async with asyncio.timeout(timeout), self._moved:
                await self._moved.wait_for(lambda: self.version != version)
        except TimeoutError:
            pass
        return self.version

    async def has_read(self, positions: Sequence[Position], *, timeout: float) -> bool:
        """Wait until what lies before these positions is folded. False when `timeout` seconds did
        not do."""

        def past() -> bool:
            return all(
                self._read.get(Partition(p.topic, p.partition), 0) >= p.offset for p in positions
            )

        try:
            async with asyncio.timeout(timeout), self._moved:
                await self._moved.wait_for(past)
        except TimeoutError:
            return False
        return True

    async def catch_up(self, *, timeout: float = 2.0) -> bool:
        """Read to the log's present end: before something is refused because it is not known.

        Callers that come while one is under way share the next one, so that a flood of misses asks
        the log no more often than one after the other. False when `timeout` seconds did not do.
        """
        if self._catching_up is None or self._catching_up.done():
            self._catching_up = asyncio.create_task(self._catch_up(timeout))
        return await asyncio.shield(self._catching_up)

    async def _catch_up(self, timeout: float) -> bool:
        try:
            async with asyncio.timeout(timeout):
                wanted: dict[Partition, int] = {}
                for topic in self._topics:
                    for number, (first, end) in (await self._log.ends(topic)).items():
                        if end > first:
                            wanted[Partition(topic, number)] = end
                async with self._moved:
                    await self._moved.wait_for(
                        lambda: all(self._read.get(p, 0) >= end for p, end in wanted.items())
                    )
        except (TimeoutError, LogUnreachable):
            return False
        return True

    def _fold_all(self, records: Sequence[Any]) -> None:
        for record in records:
            try:
                event = codec.decode(record.topic, record.value)
            except Unreadable as error:
                self.unreadable += 1
                self._logger.error(
                    "record_unreadable",
                    view=self._name,
                    topic=record.topic,
                    partition=record.partition,
                    offset=record.offset,
                    detail=str(error),
                )
                continue
            self._fold(event, record.partition)
