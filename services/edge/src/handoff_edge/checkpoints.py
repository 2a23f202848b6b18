"""When open connections are checkpointed: once an interval each, spread evenly; all of them at the
start of a UTC month; all of them at a drain.

A wheel of slots, one a second: a connection belongs to a slot by its id, so connections that began
together are not written together.
"""

import asyncio

from handoff_common.clock import Clock
from handoff_common.minutes import month_of, next_month
from handoff_edge.recorder import Recorder
from handoff_edge.tunnels import Open, Tunnels

_AT_ONCE = 500
"""Connections between two turns of the event loop."""


class Checkpoints:
    def __init__(
        self, tunnels: Tunnels, recorder: Recorder, clock: Clock, *, interval: int
    ) -> None:
        self._tunnels = tunnels
        self._recorder = recorder
        self._clock = clock
        self._interval = interval
        self._second = clock.now_ms() // 1000
        self._month = month_of(clock.now_ms())

    async def run(self) -> None:
        """The loop: a turn each second, and one at the very start of a month."""
        while True:
            now_ms = self._clock.now_ms()
            await asyncio.sleep(min(1000, next_month(now_ms) - now_ms + 1) / 1000)
            await self.turn()

    async def turn(self) -> None:
        """Do what has become due since the last turn."""
        now_ms = self._clock.now_ms()
        month = month_of(now_ms)
        if month > self._month:
            await self._end_month(month)
        second = now_ms // 1000
        passed = min(second - self._second, self._interval)
        due = {(second - back) % self._interval for back in range(passed)}
        self._second = second
        for slot in due:
            await self._each(self._tunnels.slot(slot))

    async def all(self) -> None:
        """Checkpoint every open connection whose counters changed."""
        await self._each(list(self._tunnels))

    async def _end_month(self, month: int) -> None:
        # Connections accepted meanwhile belong to the new month; those that end meanwhile write
        # their month's end themselves.
        for count, opened in enumerate(list(self._tunnels), 1):
            if self._tunnels.get(opened.connection.connection_id) is opened:
                self._tunnels.month_end(opened)
            if count % _AT_ONCE == 0:
                await asyncio.sleep(0)
        self._month = month
        self._recorder.month_swept(month)

    async def _each(self, due: list[Open]) -> None:
        for count, opened in enumerate(due, 1):
            if self._tunnels.get(opened.connection.connection_id) is opened:
                self._tunnels.checkpoint(opened)
            if count % _AT_ONCE == 0:
                await asyncio.sleep(0)
