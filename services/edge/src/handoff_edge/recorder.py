"""The journal as the edge uses it: what happened is durable, in order, and never lost while the
process lives.

`accepted` is awaited: nobody sees a 101 before. Those that come while an append is under way share
the next one. All later events of a connection go through one queue that a single loop empties, a
batch per append; an append that fails is tried again. The queue is bounded: per connection at most
one ordinary checkpoint waits (a newer one takes its place), one for a month's end, and one
`closed`.

It also knows `through`: the instant before which everything that happened here is in the journal.
What of that is in the log that others read, its `delivery` says.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

from handoff_common import codec
from handoff_common.clock import Clock
from handoff_common.errors import HandoffError, LogError
from handoff_common.events import (
    ConnectionAccepted,
    ConnectionBytes,
    ConnectionClosed,
    ConnectionEvent,
    EdgeWatermark,
    WatermarkData,
)
from handoff_common.instants import from_ms, to_ms
from handoff_common.log import JournaledLog, Message
from handoff_common.minutes import month_of
from handoff_common.telemetry import get_logger
from handoff_common.topics import CONNECTIONS
from handoff_edge.connection import Place
from handoff_edge.delivery import Delivery
from handoff_edge.metrics import Metrics

_BATCH = 1_000
_LAST_LOOK_SECONDS = 0.05
_RETRY_FIRST_SECONDS = 0.05
_RETRY_MOST_SECONDS = 2.0


class JournalUnavailable(HandoffError):
    """`accepted` could not be made durable: there is no connection."""

    code = "journal_unavailable"


@dataclass(slots=True)
class _Waiting:
    event: ConnectionEvent
    instant_ms: int
    replaceable: bool


@dataclass(slots=True, eq=False)
class _Accepting:
    """An `accepted` on its way. done: its caller waits for that; where it is done before the append
    is, it was given up, and `undo` makes the events that end the connection."""

    message: Message
    instant_ms: int
    undo: Callable[[], Sequence[ConnectionEvent]]
    done: "asyncio.Future[None]"

    def expire(self) -> None:
        """Give it up, unless the next turns of the loop bring its end: where the loop was late, in
        a storm of clients, that may be waiting to be seen."""
        if not self.done.done():
            self.done.get_loop().call_later(_LAST_LOOK_SECONDS, self._give_up)

    def _give_up(self) -> None:
        if not self.done.done():
            self.done.set_exception(TimeoutError())


class Recorder:
    """One per journal. `start` first; then `run` is its loop.

    delivery: how the journal reaches the log.
    append_timeout: seconds that an append may take before it counts as failed.
    """

    def __init__(
        self,
        log: JournaledLog,
        delivery: Delivery,
        place: Place,
        clock: Clock,
        metrics: Metrics,
        *,
        append_timeout: float = 5.0,
    ) -> None:
        self._log = log
        self._delivery = delivery
        self._place = place
        self._clock = clock
        self._metrics = metrics
        self._append_timeout = append_timeout
        self._logger = get_logger("recorder")
        self._queue: dict[str, list[_Waiting]] = {}
        self._in_flight: list[_Waiting] = []
        self._accepting: dict[str, _Accepting] = {}
        self._to_accept: dict[str, _Accepting] = {}
        """Those of `_accepting` that no append has taken yet."""
        self._appending: asyncio.Task[None] | None = None
        self._append_began: float | None = None
        self._establishing: dict[str, int] = {}
        self._work = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()
        self._open: set[str] = set()
        self._swept_month = month_of(clock.now_ms())
        self._failing = ""
        self._ended = False

    async def start(self) -> None:
        """Take over what a former process has left. Called behind recovery, before any event."""
        await self._delivery.start()
        self._swept_month = month_of(self._clock.now_ms())

    @property
    def problems(self) -> list[str]:
        """Why new handoffs cannot be recorded now; empty when they can."""
        if self._failing:
            return [f"journal: {self._failing}"]
        return self._delivery.problems

    @property
    def refusal(self) -> str:
        """Why nothing could be accepted now; empty where it may be tried. An append that hangs is
        waited for by those who are there, and by nobody who comes."""
        began = self._append_began
        if began is not None and asyncio.get_running_loop().time() - began > self._append_timeout:
            return f"an append takes longer than {self._append_timeout} s"
        return self._delivery.refusal

    @property
    def open_connections(self) -> int:
        """Connections whose `accepted` is durable and whose `closed` is not."""
        return len(self._open)

    @property
    def backlog(self) -> int:
        """Events stamped and not yet durable."""
        queued = sum(len(waiting) for waiting in self._queue.values())
        return queued + len(self._in_flight) + len(self._accepting)

    async def accept(
        self, event: ConnectionAccepted, undo: Callable[[], Sequence[ConnectionEvent]]
    ) -> None:
        """Make `accepted` durable.

        undo: makes the events that end the connection, for an append that came through after it had
        been given up; whoever gave it up has told the client that there is no connection.
        Raises JournalUnavailable. Cancelling it counts as giving up.
        """
        if refusal := self.refusal:
            raise JournalUnavailable(refusal)
        key = event.data.connection_id
        message = Message(key, codec.encode(event), keep="hold")
        loop = asyncio.get_running_loop()
        accepting = _Accepting(message, to_ms(event.time), undo, loop.create_future())
        self._accepting[key] = accepting
        self._establishing[key] = accepting.instant_ms
        self._settled.clear()
        self._to_accept[key] = accepting
        if self._appending is None:
            self._appending = asyncio.create_task(self._append_accepting())
        started = self._clock.now_ns()
        timer = loop.call_later(self._append_timeout, accepting.expire)
        try:
            await accepting.done
        except asyncio.CancelledError:
            self._withdraw(accepting)
            if not accepting.done.cancelled() and accepting.done.exception() is None:
                # It became durable in the same moment.
                self._undo(accepting)
            raise
        except TimeoutError:
            self._withdraw(accepting)
            self._failed(f"an append took longer than {self._append_timeout} s")
            raise JournalUnavailable(self._failing) from None
        except LogError as error:
            self._failed(str(error))
            raise JournalUnavailable(str(error)) from None
        finally:
            timer.cancel()
            self._metrics.append_seconds.observe((self._clock.now_ns() - started) / 1e9)
        self._failing = ""

    def established(self, connection_id: str) -> None:
        """The connection is among those that a month's start checkpoints."""
        self._establishing.pop(connection_id, None)

    def record(self, events: Sequence[ConnectionEvent]) -> None:
        """Queue later events of a connection; they are appended in this order."""
        for event in events:
            self._enqueue(event)
            if isinstance(event, ConnectionClosed):
                self.established(event.data.connection_id)
        if events:
            self._settled.clear()
            self._work.set()

    def month_swept(self, month_ms: int) -> None:
        """Every connection open at `month_ms`, the start of a month, has its checkpoint queued."""
        self._swept_month = max(self._swept_month, month_ms)

    def through(self) -> int:
        """Everything of this edge before this instant (epoch ms) is in the journal."""
        now_ms = self._clock.now_ms()
        instants = [now_ms, *(accepting.instant_ms for accepting in self._accepting.values())]
        instants += [waiting.instant_ms for waiting in self._in_flight]
        for queued in self._queue.values():
            instants += [waiting.instant_ms for waiting in queued]
        month = month_of(now_ms)
        # A connection that is just being opened was not there to be swept: it still owes the
        # checkpoint of the month in which it was accepted.
        if month > min([self._swept_month, *self._establishing.values()]):
            instants.append(month - 1)
        return min(instants)

    async def watermark(self, *, ended: bool = False) -> EdgeWatermark:
        """Publish how far this edge has come. Raises LogError or TimeoutError."""
        self._ended = self._ended or ended
        now_ms = self._clock.now_ms()
        alive_ms = self.through()
        standing = self._delivery.standing(alive_ms)
        backlog = self.backlog + standing.backlog
        # `through` was read a moment after now.
        age_ms = max(0, now_ms - standing.through_ms)
        event = EdgeWatermark(
            id=f"{self._place.edge_id}-{now_ms}",
            source=self._place.source,
            subject=self._place.edge_id,
            time=from_ms(now_ms),
            data=WatermarkData(
                edge_id=self._place.edge_id,
                region=self._place.region,
                pop=self._place.pop,
                through=from_ms(standing.through_ms),
                positions={str(number): end for number, end in sorted(standing.positions.items())},
                open_connections=len(self._open),
                accepted_total=standing.accepted,
                closed_total=standing.closed,
                journal_backlog=backlog,
                journal_age_ms=age_ms,
                ended=ended,
            ),
        )
        self._metrics.backlog.set(backlog)
        self._metrics.backlog_age.set(age_ms / 1000)
        async with asyncio.timeout(self._append_timeout):
            await self._delivery.publish(event, alive_ms)
        self._failing = ""
        return event

    async def publish_watermarks(self, interval: float) -> None:
        """The loop that publishes one every `interval` seconds."""
        while True:
            await asyncio.sleep(interval)
            if self._ended:
                # The last word was said; another would take it back.
                continue
            try:
                await self.watermark()
            except (LogError, TimeoutError) as error:
                self._failed(f"watermark: {error}")

    async def run(self) -> None:
        """The loop that empties the queue."""
        delay = _RETRY_FIRST_SECONDS
        while True:
            await self._work.wait()
            batch = self._take()
            if not batch:
                self._work.clear()
                continue
            while not await self._append_batch(batch):
                await asyncio.sleep(delay)
                delay = min(delay * 2, _RETRY_MOST_SECONDS)
            delay = _RETRY_FIRST_SECONDS
            self._settle()

    async def flushed(self, *, timeout: float) -> bool:
        """Wait until everything recorded is durable; False when `timeout` seconds did not do."""
        try:
            async with asyncio.timeout(timeout):
                await self._settled.wait()
        except TimeoutError:
            return False
        return True

    async def _append_accepting(self) -> None:
        """Append what is to be accepted, as much as there is at once, until there is none."""
        loop = asyncio.get_running_loop()
        while batch := list(islice(self._to_accept.values(), _BATCH)):
            for accepting in batch:
                del self._to_accept[accepting.message.key]
            self._append_began = loop.time()
            try:
                messages = [accepting.message for accepting in batch]
                positions = await self._log.append(CONNECTIONS.name, messages)
            except Exception as error:
                for accepting in batch:
                    self._not_accepted(accepting, error)
            else:
                self._delivery.appended(positions, accepted=len(batch), closed=0)
                for accepting in batch:
                    self._accepted(accepting)
            self._settle()
        self._append_began = None
        self._appending = None

    def _withdraw(self, accepting: _Accepting) -> None:
        """It was given up: where no append has taken it, it need not be written and ended."""
        key = accepting.message.key
        if self._to_accept.pop(key, None) is not None:
            del self._accepting[key]
            self._establishing.pop(key, None)
            self._settle()

    def _accepted(self, accepting: _Accepting) -> None:
        key = accepting.message.key
        del self._accepting[key]
        self._open.add(key)
        if accepting.done.done():
            self._undo(accepting)
        else:
            accepting.done.set_result(None)

    def _not_accepted(self, accepting: _Accepting, error: Exception) -> None:
        key = accepting.message.key
        del self._accepting[key]
        self._establishing.pop(key, None)
        if not accepting.done.done():
            accepting.done.set_exception(error)

    def _undo(self, accepting: _Accepting) -> None:
        """It is durable, and was given up."""
        self._establishing.pop(accepting.message.key, None)
        self.record(accepting.undo())

    def _settle(self) -> None:
        if not self._queue and not self._in_flight and not self._accepting:
            self._settled.set()

    def _enqueue(self, event: ConnectionEvent) -> None:
        queued = self._queue.setdefault(event.data.connection_id, [])
        instant_ms = to_ms(event.time)
        # A checkpoint at a month's end is stamped with the month's last millisecond and must stay:
        # its counters belong to that month.
        ordinary = isinstance(event, ConnectionBytes) and month_of(instant_ms) == month_of(
            instant_ms + 1
        )
        if queued and queued[-1].replaceable:
            # The older checkpoint says nothing that the newer event does not say, but for its hour.
            queued.pop()
        queued.append(_Waiting(event, instant_ms, ordinary))

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        while self._queue and len(batch) < _BATCH:
            key = next(iter(self._queue))
            batch += self._queue.pop(key)
        self._in_flight = batch
        return batch

    async def _append_batch(self, batch: list[_Waiting]) -> bool:
        messages = [
            Message(
                waiting.event.data.connection_id,
                codec.encode(waiting.event),
                keep="release" if isinstance(waiting.event, ConnectionClosed) else "hold",
            )
            for waiting in batch
        ]
        # No time-out: an append that was given up may still come through, and would come twice.
        try:
            positions = await self._log.append(CONNECTIONS.name, messages)
        except LogError as error:
            self._failed(str(error))
            return False
        closed = [w.event for w in batch if isinstance(w.event, ConnectionClosed)]
        self._delivery.appended(positions, accepted=0, closed=len(closed))
        self._open.difference_update(event.data.connection_id for event in closed)
        self._in_flight = []
        self._failing = ""
        return True

    def _failed(self, why: str) -> None:
        if not self._failing:
            self._logger.error("journal_failing", detail=why)
        self._failing = why
        self._metrics.append_failures.inc()
