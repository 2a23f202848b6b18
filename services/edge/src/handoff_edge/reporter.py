"""Tells the log what was refused: at most every few seconds, and only what has changed.

It goes straight to the log that others read, past the journal: nothing here is billed, so the last
seconds may be lost at a kill, and no handshake ever waits for it.
"""

import asyncio
from collections.abc import Callable

from handoff_common import codec
from handoff_common.clock import Clock
from handoff_common.errors import LogError
from handoff_common.log import EventLog, Message
from handoff_common.telemetry import get_logger
from handoff_common.topics import EDGES
from handoff_edge.connection import Place
from handoff_edge.metrics import Metrics
from handoff_edge.refusals import Owner, Tally, event_of, key_of

_AT_ONCE = 10
"""Events in one append: encoding them takes a few milliseconds, in which nothing else runs."""


class Reporter:
    """One per process. `run` is its loop.

    owner_of: host → whose it is by the configuration of now, None where no service has it.
    interval: seconds between two reports. timeout: seconds that the log may take for one append.
    """

    def __init__(
        self,
        log: EventLog,
        place: Place,
        clock: Clock,
        metrics: Metrics,
        owner_of: Callable[[str], Owner | None],
        *,
        interval: float,
        timeout: float,
    ) -> None:
        self._log = log
        self._place = place
        self._clock = clock
        self._metrics = metrics
        self._owner_of = owner_of
        self._interval = interval
        self._timeout = timeout
        self._started_ms = clock.now_ms()
        self._tally = Tally()
        self._changed = asyncio.Event()
        self._turn = asyncio.Lock()
        self._failing = False
        self._logger = get_logger("reporter")

    def refused(self, cause: str, *, host: str | None = None, owner: Owner | None = None) -> None:
        """Count one handshake that led to no connection. Waits for nothing.

        host: what was asked for, where that is known. owner: where it has been decided already.
        """
        self._metrics.count_refused(cause)
        if owner is None and host is not None:
            owner = self._owner_of(host)
        if owner is not None:
            self._metrics.services.of(owner.service_id).refused += 1
        self._tally.add(self._clock.now_ms(), owner, cause)
        self._changed.set()

    async def run(self) -> None:
        """The loop: the first refusal after a quiet time is told at once."""
        while True:
            await self._changed.wait()
            try:
                await self.report()
                self._failing = False
            except (LogError, TimeoutError) as error:
                # All of it is told with the next one; while the log is away, that says the log.
                if not self._failing:
                    self._logger.warning("refusals_held", detail=str(error) or "timed out")
                self._failing = True
            await asyncio.sleep(self._interval)

    async def report(self) -> None:
        """Tell all that has changed. Raises LogError, TimeoutError; then it is told next time."""
        async with self._turn:
            self._changed.clear()
            now_ms = self._clock.now_ms()
            waiting = self._tally.take()
            try:
                while waiting:
                    messages = [
                        Message(
                            key_of(self._place.edge_id, self._started_ms, part),
                            codec.encode(event_of(self._place, self._started_ms, part, now_ms)),
                        )
                        for part in waiting[:_AT_ONCE]
                    ]
                    async with asyncio.timeout(self._timeout):
                        await self._log.append(EDGES.name, messages)
                    del waiting[:_AT_ONCE]
            except BaseException:
                self._tally.put_back(waiting)
                self._changed.set()
                raise
            self._tally.tidy(now_ms)
