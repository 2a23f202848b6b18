"""Appends to Kafka: one bounded writer, one round at a time.

A round takes whatever is waiting, makes one batch per partition and awaits all acknowledgements
(`acks=all`, idempotent). Batches are handed over whole (`send_batch`): a tenth of the CPU of a
`send` per record, and their place is known from the base offset.

aiokafka's idempotent producer never gives a batch up while the broker is away, and its `stop` hangs
with it. So a round has a deadline; a producer that has missed it, or has failed for good, is ended
and the next round makes a new one. What such a round sent may be in the log or not: whoever appends
again must not mind a repeat.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from handoff_common.errors import LogWriteFailed
from handoff_common.log import Message, Position
from handoff_common.partitioner import partition_of
from handoff_common.telemetry import get_logger

_PENDING_APPENDS = 10_000
_MESSAGES_PER_ROUND = 20_000
_BATCH_BYTES = 900_000
"""Below the brokers' default of the largest batch, 1 MiB."""
_LARGEST_BYTES = _BATCH_BYTES - 4_096
_STOP_SECONDS = 2.0
_BACK_OFF_SECONDS = 0.2


class _Append(NamedTuple):
    """since: when it began to wait, by the monotonic clock."""

    topic: str
    messages: Sequence[Message]
    done: "asyncio.Future[list[Position]]"
    since: float


class _Place(NamedTuple):
    """Where a message is: its append and its index there."""

    append: int
    message: int


class Writer:
    """last_append_ms: the broker's clock at its last acknowledgement.

    partitions: topic → how many. timeout: seconds that an append may wait for its round, and
    that a round may take."""

    def __init__(
        self, bootstrap: str, *, partitions: Callable[[str], Awaitable[int]], timeout: float
    ) -> None:
        self._bootstrap = bootstrap
        self._partitions = partitions
        self._timeout = timeout
        self._pending: asyncio.Queue[_Append] = asyncio.Queue(_PENDING_APPENDS)
        self._producer: AIOKafkaProducer | None = None
        self._task: asyncio.Task[None] | None = None
        self._ended = False
        self.last_append_ms: int | None = None
        self._logger = get_logger("log")

    async def append(self, topic: str, messages: Sequence[Message]) -> list[Position]:
        """Raises LogWriteFailed; then part of it may be in the log all the same."""
        if not messages:
            return []
        if self._ended:
            raise LogWriteFailed("the log is closed")
        for message in messages:
            if len(message.key) + len(message.value) > _LARGEST_BYTES:
                raise LogWriteFailed(
                    f"{topic}: a record of {len(message.value)} bytes is larger than "
                    f"{_LARGEST_BYTES}"
                )
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="kafka-writer")
        done: asyncio.Future[list[Position]] = asyncio.get_running_loop().create_future()
        try:
            self._pending.put_nowait(_Append(topic, messages, done, time.monotonic()))
        except asyncio.QueueFull:
            raise LogWriteFailed(f"{_PENDING_APPENDS} appends are waiting for Kafka") from None
        # A round goes on when one of its callers gives up: it carries others' messages too.
        return await asyncio.shield(done)

    async def close(self) -> None:
        """Ends the loop; appends that are waiting fail."""
        self._ended = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        while not self._pending.empty():
            _fail(self._pending.get_nowait(), "the log is closed")
        await self._drop_producer()

    async def _run(self) -> None:
        while True:
            appends = [await self._pending.get()]
            count = len(appends[0].messages)
            while count < _MESSAGES_PER_ROUND and not self._pending.empty():
                appends.append(self._pending.get_nowait())
                count += len(appends[-1].messages)
            oldest = time.monotonic() - self._timeout
            for append in appends:
                if append.since < oldest:
                    _fail(append, f"waited longer than {self._timeout} s for Kafka")
            if appends := [append for append in appends if append.since >= oldest]:
                await self._round(appends)

    async def _round(self, appends: list[_Append]) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                results = await self._send(appends)
        except Exception as error:
            # Whatever it is: those who wait must hear of it, and the next round must come.
            reason = repr(error) if str(error) else f"not acknowledged within {self._timeout} s"
            self._logger.warning("append_failed", detail=reason, appends=len(appends))
            for append in appends:
                _fail(append, reason)
            await self._drop_producer()
            await asyncio.sleep(_BACK_OFF_SECONDS)
            return
        except BaseException:
            for append in appends:
                _fail(append, "the log is closed")
            raise
        for append, positions in zip(appends, results, strict=True):
            if not append.done.done():
                append.done.set_result(positions)

    async def _send(self, appends: Sequence[_Append]) -> list[list[Position]]:
        producer = await self._connected()
        waiting: dict[tuple[str, int], list[tuple[Message, _Place]]] = {}
        for at, append in enumerate(appends):
            partitions = await self._partitions(append.topic)
            for index, message in enumerate(append.messages):
                number = message.partition
                if number is None:
                    number = partition_of(message.key, partitions)
                waiting.setdefault((append.topic, number), []).append((message, _Place(at, index)))
        results: list[list[Position | None]] = [[None] * len(a.messages) for a in appends]
        sending = [
            asyncio.create_task(self._send_partition(producer, topic, number, messages, results))
            for (topic, number), messages in waiting.items()
        ]
        try:
            await asyncio.gather(*sending)
        finally:
            for task in sending:
                task.cancel()
            await asyncio.gather(*sending, return_exceptions=True)
        return [[position for position in one if position is not None] for one in results]

    async def _send_partition(
        self,
        producer: AIOKafkaProducer,
        topic: str,
        number: int,
        messages: Sequence[tuple[Message, _Place]],
        results: list[list[Position | None]],
    ) -> None:
        start = 0
        while start < len(messages):
            batch = producer.create_batch()
            end = start
            while end < len(messages):
                message = messages[end][0]
                if (
                    batch.append(key=message.key.encode(), value=message.value, timestamp=None)
                    is None
                ):
                    break
                end += 1
            batch.close()
            sent = await producer.send_batch(batch, topic, partition=number)
            acknowledged = await sent
            base = acknowledged.offset
            self.last_append_ms = acknowledged.timestamp
            for step, (_, place) in enumerate(messages[start:end]):
                results[place.append][place.message] = Position(topic, number, base + step + 1)
            start = end

    async def _connected(self) -> AIOKafkaProducer:
        if self._producer is None:
            producer = AIOKafkaProducer(
                bootstrap_servers=self._bootstrap,
                acks="all",
                enable_idempotence=True,
                max_batch_size=_BATCH_BYTES,
                request_timeout_ms=int(max(1.0, self._timeout / 2) * 1000),
            )
            # Known before it has started: a start that hangs is dropped with it.
            self._producer = producer
            await producer.start()
        return self._producer

    async def _drop_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is None:
            return
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await producer.stop()
        except (TimeoutError, KafkaError, OSError):
            # It waits for its batches for ever. There is no public way to make it forget them;
            # left alone it would deliver them after what is appended meanwhile.
            sender = producer._sender.sender_task
            if sender is not None:
                sender.cancel()
            with contextlib.suppress(Exception):
                await producer.client.close()


def _fail(append: _Append, reason: str) -> None:
    if not append.done.done():
        append.done.set_exception(LogWriteFailed(reason))
        # The caller may have gone; that is no reason for a warning at exit.
        append.done.exception()
