"""Copies the journal to the log: in order, in batches, from where it stood, however long it takes.

It owns what this edge may say of its delivery. A record is forgotten by the journal only behind its
acknowledgement, so a crash repeats a little and loses nothing. While the log is away the journal
grows; beyond its bound no new connection is taken, and those that are open go on.

It vouches for an instant only when the journal's end of that moment has been acknowledged: each
call of `standing` leaves such a mark, and the newest mark that was passed is what counts.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import msgspec

from handoff_common import codec
from handoff_common.clock import Clock
from handoff_common.errors import LogCorrupt, LogError, Unreadable
from handoff_common.events import ConnectionAccepted, ConnectionClosed, EdgeWatermark
from handoff_common.instants import from_ms, to_ms
from handoff_common.log import EventLog, Message, Partition, Position, Record, Spool
from handoff_common.telemetry import get_logger
from handoff_common.topics import CONNECTIONS, EDGES
from handoff_edge.delivery import UNKNOWN, Standing
from handoff_edge.metrics import Metrics

_BATCH = 5_000
_MARKS = 4_096
_LOOK_SECONDS = 1.0
_RETRY_FIRST_SECONDS = 0.1
_RETRY_MOST_SECONDS = 5.0
MAX_SKEW_MS = 60_000
_PUBLISHED = "published/"
"""Key prefix of the last watermark that the log has acknowledged, as the journal holds it."""


class Forwarder:
    """Implements `delivery.Delivery`. Loops: `forward`, `announce`, `forget`.

    journal: has one partition. max_bytes: of the journal, beyond which `refusal` says so.
    appended_at: the log's own clock at its last acknowledgement, epoch ms; None where it has none.
    """

    def __init__(
        self,
        journal: Spool,
        log: EventLog,
        clock: Clock,
        metrics: Metrics,
        *,
        max_bytes: int,
        appended_at: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._journal = journal
        self._log = log
        self._clock = clock
        self._metrics = metrics
        self._max_bytes = max_bytes
        self._appended_at = appended_at
        self._logger = get_logger("forwarder")
        self._source = Partition(CONNECTIONS.name, 0)
        self._next = 0
        self._forgotten = 0
        self._accepted = 0
        self._closed = 0
        self._positions: dict[int, int] | None = None
        self._marks: list[tuple[int, int]] = []
        self._through_ms = 0
        self._waiting: EdgeWatermark | None = None
        self._announce = asyncio.Event()
        self._moved = asyncio.Condition()
        self._acknowledged = False
        self._skew_ms = 0
        self._bytes = 0
        self._failing = ""

    # --- Delivery ---

    async def start(self) -> None:
        journal = self._journal
        first, end = (await journal.ends(CONNECTIONS.name))[0]
        self._next = self._forgotten = first
        held, released = await journal.totals(CONNECTIONS.name)
        self._accepted, self._closed = held, released
        at = first
        while at < end:
            records, at = await journal.records(self._source, at, _BATCH)
            accepted, closed = _count(records)
            self._accepted -= accepted
            self._closed -= closed
        published = (await journal.held(EDGES.name)).get(_PUBLISHED + journal.owner_id)
        if published is not None:
            with suppress(Unreadable):
                data = codec.decode(EDGES.name, published).data
                self._through_ms = to_ms(data.through)
                # Nobody waits for an edge that has ended: it must be heard of again first.
                self._acknowledged = not data.ended
        self._bytes = await journal.size()
        with suppress(LogError):
            # Later, where the log is away.
            await self._learn_positions()

    def appended(self, positions: Sequence[Position], *, accepted: int, closed: int) -> None:
        """Nothing: it counts what the log acknowledges."""

    def standing(self, through_ms: int) -> Standing:
        end = self._journal.head(self._source)
        if self._marks and self._marks[-1][0] == end:
            self._marks[-1] = (end, through_ms)
        else:
            self._marks.append((end, through_ms))
        if len(self._marks) > _MARKS:
            # Coarser, not later: a mark that is left out is passed with the next one.
            del self._marks[1::2]
        passed = 0
        for passed_end, passed_ms in self._marks:
            if passed_end > self._next:
                break
            self._through_ms = max(self._through_ms, passed_ms)
            passed += 1
        del self._marks[:passed]
        positions = dict(self._positions or {})
        return Standing(self._through_ms, positions, self._accepted, self._closed, end - self._next)

    async def publish(self, event: EdgeWatermark, alive_ms: int) -> None:
        data = msgspec.structs.replace(event.data, through=from_ms(alive_ms))
        alive = msgspec.structs.replace(event, data=data)
        message = Message(event.data.edge_id, codec.encode(alive), keep="hold")
        await self._journal.append(EDGES.name, [message])
        if self._positions is not None:
            # Without positions a reader would take an edge's word before it has delivered.
            self._waiting = event
            self._announce.set()

    async def delivered(self, *, timeout: float) -> bool:
        end = self._journal.head(self._source)
        try:
            async with asyncio.timeout(timeout), self._moved:
                await self._moved.wait_for(
                    lambda: (
                        self._positions is not None and self._next >= end and self._waiting is None
                    )
                )
        except TimeoutError:
            return False
        # Whoever asks is about to end, and what is still held the next start would tell again.
        with suppress(LogError):
            await self.trim()
        return True

    @property
    def problems(self) -> list[str]:
        found = []
        if abs(self._skew_ms) > MAX_SKEW_MS:
            found.append(
                f"clock: {self._skew_ms} ms off the log's; at most {MAX_SKEW_MS} ms are allowed"
            )
        if self.refusal:
            found.append(self.refusal)
        return found

    @property
    def refusal(self) -> str:
        if not self._acknowledged:
            return UNKNOWN
        if self._failing:
            return f"journal: {self._failing}"
        if self._bytes > self._max_bytes:
            return f"journal: full, {self._bytes} bytes of {self._max_bytes} wait for the log"
        return ""

    # --- Loops ---

    async def forward(self) -> None:
        """Send what the journal holds, for ever."""
        delay = _RETRY_FIRST_SECONDS
        while True:
            try:
                if self._positions is None:
                    await self._learn_positions()
                if await self._forward_batch():
                    delay = _RETRY_FIRST_SECONDS
                    continue
            except LogCorrupt as error:
                # Nothing behind it may overtake it. What is open goes on; a person must look.
                if self._failing != str(error):
                    self._logger.error("journal_unreadable", detail=str(error))
                self._failing = str(error)
                await asyncio.sleep(_RETRY_MOST_SECONDS)
                continue
            except LogError as error:
                self._logger.warning("forwarding_held", detail=str(error), retry_in=delay)
                await asyncio.sleep(delay)
                delay = min(2 * delay, _RETRY_MOST_SECONDS)
                continue
            await self._journal.wait_for(
                lambda: self._journal.head(self._source) > self._next, _LOOK_SECONDS
            )

    async def announce(self) -> None:
        """Send the newest watermark, for ever. One that a newer one has replaced is not sent."""
        while True:
            await self._announce.wait()
            self._announce.clear()
            event = self._waiting
            if event is None:
                continue
            text = codec.encode(event)
            try:
                await self._log.append(EDGES.name, [Message(event.data.edge_id, text)])
                await self._acknowledge(event, text)
            except LogError as error:
                self._logger.warning("watermark_held", detail=str(error))
                await asyncio.sleep(_RETRY_FIRST_SECONDS)
                self._announce.set()
                continue
            async with self._moved:
                if self._waiting is event:
                    self._waiting = None
                self._moved.notify_all()

    async def forget(self) -> None:
        """Let the journal forget what was acknowledged, and look at its size, once a second: not in
        step with the batches, since each is a commit to the disk that new connections wait for."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                await self.trim()
            except LogError as error:
                self._logger.error("journal_not_trimmed", detail=str(error))

    async def trim(self) -> None:
        if self._next > self._forgotten:
            until = self._next
            await self._journal.forget(self._source, until)
            self._forgotten = until
        self._bytes = await self._journal.size()
        self._metrics.journal_bytes.set(self._bytes)
        self._metrics.unforwarded.set(self._journal.head(self._source) - self._next)

    # --- Parts ---

    async def _learn_positions(self) -> None:
        # Nothing that a former process has delivered lies behind the log's present ends.
        ends: Mapping[int, tuple[int, int]] = await self._log.ends(CONNECTIONS.name)
        async with self._moved:
            self._positions = {number: end for number, (_, end) in ends.items() if end}
            # Where there is nothing to forward, nothing else tells whoever waits for it.
            self._moved.notify_all()

    async def _forward_batch(self) -> bool:
        """One batch; False where there was none."""
        if self._journal.head(self._source) <= self._next:
            return False
        records, following = await self._journal.records(self._source, self._next, _BATCH)
        if records:
            positions = await self._log.append(
                CONNECTIONS.name, [Message(record.key, record.value) for record in records]
            )
            self._acknowledge_records(records, positions)
        self._failing = ""
        async with self._moved:
            self._next = following
            self._moved.notify_all()
        return True

    def _acknowledge_records(
        self, records: Sequence[Record], positions: Sequence[Position]
    ) -> None:
        assert self._positions is not None
        for _, partition, offset in positions:
            self._positions[partition] = max(offset, self._positions.get(partition, 0))
        accepted, closed = _count(records)
        self._accepted += accepted
        self._closed += closed
        self._metrics.forwarded.inc(len(records))
        self._measure_skew()

    async def _acknowledge(self, event: EdgeWatermark, text: bytes) -> None:
        self._measure_skew()
        key = _PUBLISHED + event.data.edge_id
        await self._journal.append(EDGES.name, [Message(key, text, keep="hold")])
        self._acknowledged = True

    def _measure_skew(self) -> None:
        appended_ms = self._appended_at()
        if appended_ms is not None:
            self._skew_ms = self._clock.now_ms() - appended_ms
            self._metrics.clock_skew.set(self._skew_ms / 1000)


def _count(records: Sequence[Record]) -> tuple[int, int]:
    """(accepted, closed) among the records. One that this release cannot read is forwarded as it
    is and counts as neither."""
    accepted = closed = 0
    for record in records:
        with suppress(Unreadable):
            event = codec.decode(record.topic, record.value)
            accepted += isinstance(event, ConnectionAccepted)
            closed += isinstance(event, ConnectionClosed)
    return accepted, closed
