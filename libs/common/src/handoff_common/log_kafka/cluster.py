"""What the cluster says of its topics: partitions, identities, ends. Every call has a time-out."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, for_code

from handoff_common.errors import LogError, LogUnreachable
from handoff_common.log_kafka.protocol import TopicsRequest
from handoff_common.telemetry import get_logger

T = TypeVar("T")


class TopicInfo(NamedTuple):
    identity: str
    partitions: int
    replication: int


class Cluster:
    """Connects when first asked, anew after a failure. timeout: seconds that a call may take."""

    def __init__(self, bootstrap: str, *, timeout: float) -> None:
        self._bootstrap = bootstrap
        self._timeout = timeout
        self._topics: dict[str, TopicInfo] = {}
        self._client: AIOKafkaClient | None = None
        self._consumer: AIOKafkaConsumer | None = None
        self._turn = asyncio.Lock()
        self._logger = get_logger("log")

    async def topic(self, name: str) -> TopicInfo:
        """Raises LogUnreachable; LogError where there is no such topic."""
        if name not in self._topics:
            found = await self.topics([name])
            if name not in found:
                raise LogError(
                    f"Kafka at {self._bootstrap} has no topic {name}; "
                    "make the topics with `python -m handoff_common.log_kafka create`"
                )
            # Fixed for the life of a topic.
            self._topics[name] = found[name]
        return self._topics[name]

    async def topics(self, names: Sequence[str]) -> dict[str, TopicInfo]:
        """Those of the topics that are there. Raises LogUnreachable."""

        async def ask() -> dict[str, TopicInfo]:
            client = await self._connected()
            node = client.get_random_node()
            answer = await client.send(node, TopicsRequest(list(names)))
            found: dict[str, TopicInfo] = {}
            for code, name, topic_id, _, partitions, *_ in answer.topics:
                if code == 0:
                    replication = min(len(partition[4]) for partition in partitions)
                    found[name] = TopicInfo(str(topic_id), len(partitions), replication)
                elif code != 3:  # UNKNOWN_TOPIC_OR_PARTITION: it is not there
                    raise for_code(code)(name)
            return found

        return await self._bounded(ask)

    async def ends(self, topic: str) -> Mapping[int, tuple[int, int]]:
        """Partition → (first offset kept, next offset). Raises LogUnreachable."""
        partitions = [
            TopicPartition(topic, number) for number in range((await self.topic(topic)).partitions)
        ]

        async def ask() -> dict[int, tuple[int, int]]:
            if self._consumer is None:
                consumer = AIOKafkaConsumer(
                    bootstrap_servers=self._bootstrap,
                    request_timeout_ms=int(self._timeout * 1000),
                    enable_auto_commit=False,
                )
                try:
                    await consumer.start()
                except BaseException:
                    await consumer.stop()
                    raise
                self._consumer = consumer
            firsts = await self._consumer.beginning_offsets(partitions)
            nexts = await self._consumer.end_offsets(partitions)
            return {p.partition: (firsts[p], nexts[p]) for p in partitions}

        return await self._bounded(ask)

    async def close(self) -> None:
        client, self._client = self._client, None
        consumer, self._consumer = self._consumer, None
        for part in (client and client.close(), consumer and consumer.stop()):
            if part is not None:
                try:
                    async with asyncio.timeout(self._timeout):
                        await part
                except (TimeoutError, KafkaError) as error:
                    self._logger.warning("log_not_closed", detail=repr(error))

    async def _connected(self) -> AIOKafkaClient:
        if self._client is None:
            client = AIOKafkaClient(
                bootstrap_servers=self._bootstrap,
                request_timeout_ms=int(self._timeout * 1000),
            )
            try:
                await client.bootstrap()
            except BaseException:
                await client.close()
                raise
            self._client = client
        return self._client

    async def _bounded(self, ask: Callable[[], Awaitable[T]]) -> T:
        # One at a time: after a failure the connections are made anew, and not by several at once.
        try:
            async with asyncio.timeout(self._timeout), self._turn:
                return await ask()
        except (KafkaError, OSError, TimeoutError) as error:
            await self.close()
            raise LogUnreachable(f"Kafka at {self._bootstrap} does not answer: {error!r}") from None
