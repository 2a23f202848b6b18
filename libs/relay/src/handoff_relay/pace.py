"""A limit in bytes per second, shared by everything that draws on it. Pure: time is an argument.

Integer arithmetic: the level is held in billionths of a byte, so no fraction is ever lost and the
bytes that pass in any span are at most `rate * span + burst`.
"""

from typing import Final

_BILLION: Final = 1_000_000_000
_BURSTS_PER_SECOND: Final = 4


class Pace:
    """rate: bytes per second, 1 or more; a quarter of a second's worth may pass at once.

    holders: how many tunnels draw on it. waiting: how many readers wait for it. The owner counts.
    """

    __slots__ = ("_filled_ns", "_level", "holders", "rate", "waiting")

    def __init__(self, rate: int, now_ns: int) -> None:
        self.rate = rate
        self.holders = 0
        self.waiting = 0
        self._filled_ns = now_ns
        self._level = self._full()

    def change(self, rate: int, now_ns: int) -> None:
        """From now on at another rate."""
        self.available(now_ns)
        self.rate = rate
        self._level = min(self._level, self._full())

    def available(self, now_ns: int) -> int:
        """Bytes that may pass now; 0 or less: none."""
        grown = self._level + (now_ns - self._filled_ns) * self.rate
        self._level = min(grown, self._full())
        self._filled_ns = now_ns
        return self._level // _BILLION

    def share(self, now_ns: int) -> int:
        """Bytes that one reader may take now, leaving as much to each that waits; 0: none."""
        available = self.available(now_ns)
        return max(available // (1 + self.waiting), 1) if available > 0 else 0

    def spend(self, size: int) -> None:
        """`size` bytes passed; more than were available make a debt."""
        self._level -= size * _BILLION

    def _full(self) -> int:
        return max(self.rate // _BURSTS_PER_SECOND, 1) * _BILLION
