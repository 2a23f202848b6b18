"""The open connections: each a sans-IO connection joined to its tunnel in the relay.

Owns the strong references (what nobody refers to can vanish, and a `closed` with it), the indexes
by which connections are found, and the one place where an end becomes a `closed` event.
"""

import asyncio
import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from handoff_common.clock import Clock
from handoff_common.events import Counters, Limits, Reason
from handoff_common.telemetry import get_logger
from handoff_edge.connection import Connection
from handoff_edge.metrics import Metrics
from handoff_edge.recorder import Recorder
from handoff_relay import End, Relay, RelayLimits, Stream, Tunnel

_NOTHING = Counters()
_JITTER = 0.1
"""A maximum duration is cut by up to this share, so that connections that began together do not end
together."""


@dataclass(slots=True, eq=False)
class Open:
    """One open connection. on_gone: told of its end. ending: the timer of an end that is due, None
    where none is. ending_reason: what it was set for. idle: it had no byte between its last two
    checkpoints. changed_ns: when it was last noticed that it had one."""

    connection: Connection
    tunnel: Tunnel = field(init=False)
    on_gone: Callable[["Open", End], None]
    release: Callable[[], None]
    metered: Counters
    ending: asyncio.TimerHandle | None = None
    ending_reason: Reason | None = None
    idle: bool = False
    changed_ns: int = 0

    def ended(self, end: End) -> None:
        """The relay's report."""
        self.on_gone(self, end)

    def moved(self, counters: Counters) -> bool:
        """Whether a byte of a body went either way since the last checkpoint."""
        delta = counters.minus(self.metered)
        return any(
            (
                delta.req_body_bytes,
                delta.resp_body_bytes,
                delta.bereq_body_bytes,
                delta.beresp_body_bytes,
            )
        )

    def counters(self) -> Counters:
        return self.connection.counters(self.tunnel.counters())


class Tunnels:
    """See the module.

    slots: into how many equal parts connections are divided, by their id, for checkpoints.
    close_grace: seconds that peers have to finish after a Close frame.
    workers: processes that share a service's bytes per second, each an equal part.
    """

    def __init__(
        self,
        relay: Relay,
        recorder: Recorder,
        clock: Clock,
        metrics: Metrics,
        *,
        slots: int = 60,
        close_grace: float = 5.0,
        workers: int = 1,
    ) -> None:
        self._relay = relay
        self._workers = workers
        self._close_grace_ms = max(1, int(close_grace * 1000))
        self._recorder = recorder
        self._clock = clock
        self._metrics = metrics
        metrics.open.set_function(lambda: len(self._open))
        self._logger = get_logger("edge")
        self._open: dict[str, Open] = {}
        self._services: dict[tuple[str, str], dict[str, Open]] = {}
        self._idle = 0
        self._slots: list[dict[str, Open]] = [{} for _ in range(slots)]
        self._empty = asyncio.Event()
        self._empty.set()
        self._on_gone = self._ended
        """Bound once: each connection refers to it."""

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Open]:
        return iter(list(self._open.values()))

    def get(self, connection_id: str) -> Open | None:
        return self._open.get(connection_id)

    def slot(self, number: int) -> list[Open]:
        """The connections of one slot."""
        return list(self._slots[number].values())

    def services(self) -> list[tuple[str, str]]:
        """(service id, customer id) of every service that has open connections."""
        return list(self._services)

    def counts(self) -> Iterator[tuple[str, int]]:
        """(service id, connections) of every service that has open ones."""
        return ((service_id, len(there)) for (service_id, _), there in self._services.items())

    def of_service(self, service_id: str, customer_id: str) -> list[Open]:
        return list(self._services.get((service_id, customer_id), {}).values())

    def start(
        self,
        connection: Connection,
        client: Stream,
        origin: Stream,
        *,
        to_origin: bytes,
        to_client: bytes,
        client_eof: bool,
        limits: Limits,
        release: Callable[[], None],
    ) -> None:
        """Hand both sockets to the relay; from here on the connection ends through its report.

        Raises RuntimeError where the relay is closed; the sockets then still are the caller's.
        """
        opened = Open(connection, self._on_gone, release, _NOTHING, changed_ns=self._clock.now_ns())
        opened.tunnel = self._relay.start(
            client,
            origin,
            to_origin=to_origin,
            to_client=to_client,
            client_eof=client_eof,
            limits=relay_limits(
                limits, connection.service_id, self._close_grace_ms, workers=self._workers
            ),
            on_end=opened.ended,
        )
        connection.establish()
        connection_id = connection.connection_id
        self._open[connection_id] = opened
        self._slots[self._slot(connection_id)][connection_id] = opened
        key = (connection.service_id, connection.customer_id)
        self._services.setdefault(key, {})[connection_id] = opened
        self._empty.clear()
        self.month_end(opened)
        self._recorder.established(connection_id)

    def checkpoint(self, opened: Open) -> None:
        """Record what changed since the last checkpoint, if anything did."""
        counters = opened.counters()
        moved = self._meter(opened, counters)
        if moved:
            opened.changed_ns = self._clock.now_ns()
        self._set_idle(opened, idle=not moved)
        self._recorder.record(opened.connection.checkpoint(self._clock.now_ns(), counters))

    def month_end(self, opened: Open) -> None:
        """Record the checkpoint that a month's start demands, where it was not made yet."""
        self._recorder.record(opened.connection.month_end(self._clock.now_ns(), opened.counters()))

    async def wait_empty(self, *, timeout: float) -> bool:
        try:
            async with asyncio.timeout(timeout):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Cut what is left; every end has been recorded when this returns."""
        await self._relay.close(cause=Reason.DRAINED)

    def _ended(self, opened: Open, end: End) -> None:
        connection = opened.connection
        connection_id = connection.connection_id
        del self._open[connection_id]
        del self._slots[self._slot(connection_id)][connection_id]
        key = (connection.service_id, connection.customer_id)
        del self._services[key][connection_id]
        if not self._services[key]:
            del self._services[key]
        if opened.ending is not None:
            opened.ending.cancel()
        if not self._open:
            self._empty.set()
        # What is owed for the connection comes first: a fault in a metric must not cost a `closed`.
        counters = connection.counters(end.counters)
        reason = Reason(end.cause)
        now_ns = self._clock.now_ns()
        self._recorder.record(
            connection.close(
                now_ns,
                counters,
                reason=reason,
                closed_by="lost" if reason is Reason.EDGE_CRASHED else end.closed_by,
                close_code=end.close_code,
            )
        )
        opened.release()
        self._meter(opened, counters)
        self._metrics.count_closed(reason, end.close_code)
        self._set_idle(opened, idle=False)
        self._logger.info(
            "closed",
            connection_id=connection_id,
            service_id=connection.service_id,
            customer_id=connection.customer_id,
            reason=reason,
            closed_by=end.closed_by,
            close_code=end.close_code,
            duration_ms=(now_ns - connection.accepted_ns) // 1_000_000,
            messages_from_client=end.messages.from_client,
            messages_from_origin=end.messages.from_origin,
            **counters._asdict(),
        )

    def _slot(self, connection_id: str) -> int:
        return zlib.crc32(connection_id.encode()) % len(self._slots)

    def _meter(self, opened: Open, counters: Counters) -> bool:
        """Count what was relayed since it was last asked; whether anything was."""
        delta = counters.minus(opened.metered)
        opened.metered = counters
        body = (
            delta.req_body_bytes,
            delta.resp_body_bytes,
            delta.bereq_body_bytes,
            delta.beresp_body_bytes,
        )
        if not any(body):
            return False
        of_service = self._metrics.services.of(opened.connection.service_id).body
        for number, count in enumerate(body):
            if count > 0:
                self._metrics.directions[number].inc(count)
                of_service[number] += count
        return True

    def _set_idle(self, opened: Open, *, idle: bool) -> None:
        if opened.idle is not idle:
            opened.idle = idle
            self._idle += 1 if idle else -1
            self._metrics.idle.set(self._idle)


def relay_limits(
    limits: Limits, service_id: str, close_grace_ms: int, *, workers: int = 1
) -> RelayLimits:
    """A service's limits as the relay of one of `workers` takes them. Zero, which the relay
    refuses, becomes the least that it takes."""
    longest = limits.max_duration_ms
    if longest is not None:
        longest = max(1, int(longest * (1 - _JITTER * random.random())))  # noqa: S311
    pace = limits.max_bytes_per_second
    return RelayLimits(
        idle_ms=max(1, limits.idle_timeout_ms),
        half_closed_ms=max(1, limits.half_closed_timeout_ms),
        max_duration_ms=longest,
        bytes_per_second=None if pace is None else max(1, pace // workers),
        pace_key=service_id,
        close_grace_ms=close_grace_ms,
    )
