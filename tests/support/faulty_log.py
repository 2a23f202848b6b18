"""An embedded log whose appends to one topic can be made to fail or to hang."""

import asyncio
from collections.abc import Mapping, Sequence

from handoff_common.errors import LogWriteFailed
from handoff_common.log import Message, Position, PositionSource, Subscription, Totals
from handoff_common.log_sqlite import SqliteLog


class Faulty:
    """See the module. failing: appends to the topic fail. gate: while it is cleared, they hang.
    attempts: appends so far, to any topic."""

    def __init__(self, log: SqliteLog, topic: str) -> None:
        self._log = log
        self._topic = topic
        self.failing = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.attempts = 0

    async def append(self, topic: str, messages: Sequence[Message]) -> Sequence[Position]:
        self.attempts += 1
        if topic == self._topic:
            await self.gate.wait()
            if self.failing:
                raise LogWriteFailed("disk full")
        return await self._log.append(topic, messages)

    @property
    def owner_id(self) -> str:
        return self._log.owner_id

    async def held(self, topic: str) -> Mapping[str, bytes]:
        return await self._log.held(topic)

    async def totals(self, topic: str) -> Totals:
        return await self._log.totals(topic)

    async def partitions(self, topic: str) -> int:
        return await self._log.partitions(topic)

    async def identity(self, topic: str) -> str:
        return await self._log.identity(topic)

    async def ends(self, topic: str) -> Mapping[int, tuple[int, int]]:
        return await self._log.ends(topic)

    def subscribe(
        self, topics: Sequence[str], *, group: str | None, positions: PositionSource
    ) -> Subscription:
        return self._log.subscribe(topics, group=group, positions=positions)

    async def settled(self, positions: Sequence[Position], *, timeout: float) -> bool:
        return await self._log.settled(positions, timeout=timeout)

    async def close(self) -> None:
        await self._log.close()
