"""The log on Apache Kafka. Implements `log.EventLog`; the only place that knows aiokafka.

`writer` appends, `reader` reads, `cluster` says what topics there are, `topics` makes and checks
them. Nothing connects before it is used, and everything connects again by itself: a service may
start and run while the broker is away, as far as it has something to work from.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from handoff_common.log import Message, Position, PositionSource
from handoff_common.log_kafka.cluster import Cluster
from handoff_common.log_kafka.reader import KafkaSubscription
from handoff_common.log_kafka.writer import Writer

SCHEME = "kafka://"


class KafkaLog:
    """bootstrap: `host:port[,host:port]`.

    timeout: seconds for a question to the cluster. append_timeout: seconds that an append may wait
    for its turn, and again for its acknowledgement.
    """

    def __init__(
        self, bootstrap: str, *, timeout: float = 10.0, append_timeout: float = 10.0
    ) -> None:
        self.bootstrap = bootstrap
        self._timeout = timeout
        self.cluster = Cluster(bootstrap, timeout=timeout)
        self._writer = Writer(bootstrap, partitions=self.partitions, timeout=append_timeout)
        self._moved = asyncio.Condition()
        self._subscriptions: set[KafkaSubscription] = set()
        self._notifying: asyncio.Task[None] | None = None

    @property
    def last_append_ms(self) -> int | None:
        """The broker's clock at its last acknowledgement, epoch ms."""
        return self._writer.last_append_ms

    async def append(self, topic: str, messages: Sequence[Message]) -> Sequence[Position]:
        return await self._writer.append(topic, messages)

    async def partitions(self, topic: str) -> int:
        return (await self.cluster.topic(topic)).partitions

    async def identity(self, topic: str) -> str:
        return (await self.cluster.topic(topic)).identity

    async def ends(self, topic: str) -> Mapping[int, tuple[int, int]]:
        return await self.cluster.ends(topic)

    def subscribe(
        self, topics: Sequence[str], *, group: str | None, positions: PositionSource
    ) -> KafkaSubscription:
        subscription = KafkaSubscription(
            self, topics, group=group, positions=positions, timeout=self._timeout
        )
        self._subscriptions.add(subscription)
        return subscription

    async def settled(self, positions: Sequence[Position], *, timeout: float) -> bool:
        def dealt_with() -> bool:
            return all(s.is_past(p) for p in positions for s in self._subscriptions)

        return await self._wait_for(dealt_with, timeout)

    async def close(self) -> None:
        for subscription in list(self._subscriptions):
            await subscription.close()
        await self._writer.close()
        await self.cluster.close()
        if self._notifying is not None:
            await self._notifying

    def notify(self) -> None:
        """Wake those who wait for readers."""
        if self._notifying is None or self._notifying.done():
            self._notifying = asyncio.create_task(self._notify())

    def unsubscribed(self, subscription: KafkaSubscription) -> None:
        self._subscriptions.discard(subscription)

    async def _notify(self) -> None:
        async with self._moved:
            self._moved.notify_all()

    async def _wait_for(self, condition: Callable[[], bool], timeout: float) -> bool:
        try:
            async with asyncio.timeout(timeout), self._moved:
                await self._moved.wait_for(condition)
        except TimeoutError:
            return False
        return True
