"""Which tunnels draw on which pace, and who waits for one. Owns a timer."""

from asyncio import AbstractEventLoop, TimerHandle
from collections import deque
from collections.abc import Callable
from typing import Final

from handoff_relay.interface import RelayLimits
from handoff_relay.pace import Pace
from handoff_relay.pair import PairTunnel, Side

_TICK_S: Final = 0.02


class Pacing:
    """resume: called for a side whose turn has come; it is read at once, or waits again."""

    __slots__ = ("_loop", "_paces", "_resume", "_timer", "_waiting")

    def __init__(self, loop: AbstractEventLoop, resume: Callable[[Side], None]) -> None:
        self._loop = loop
        self._resume = resume
        self._paces: dict[str, Pace] = {}
        self._waiting: deque[Side] = deque()
        self._timer: TimerHandle | None = None

    def join(self, limits: RelayLimits, now_ns: int) -> Pace | None:
        rate, key = limits.bytes_per_second, limits.pace_key
        if rate is None:
            return None
        if not key:
            return Pace(rate, now_ns)
        pace = self._paces.get(key)
        if pace is None:
            pace = self._paces[key] = Pace(rate, now_ns)
        elif pace.rate != rate:
            pace.change(rate, now_ns)
        pace.holders += 1
        return pace

    def leave(self, tunnel: PairTunnel) -> None:
        key = tunnel.limits.pace_key
        if tunnel.pace is not None and key:
            tunnel.pace.holders -= 1
            if not tunnel.pace.holders:
                del self._paces[key]

    def wait(self, side: Side) -> None:
        """Not to be read until its turn comes."""
        assert side.tunnel.pace is not None
        side.paced = True
        side.tunnel.pace.waiting += 1
        self._waiting.append(side)
        if self._timer is None:
            self._timer = self._loop.call_later(_TICK_S, self._on_tick)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_tick(self) -> None:
        """Those that waited longest go first; each takes an equal share."""
        self._timer = None
        for _ in range(len(self._waiting)):
            side = self._waiting.popleft()
            assert side.tunnel.pace is not None
            side.tunnel.pace.waiting -= 1
            side.paced = False
            self._resume(side)
