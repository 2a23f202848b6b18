"""How long a client waits for being refused. Pure.

A refusal tells clients when to come again, and many come again at once: those of a service that has
been disabled, or is at its limit, would keep the edge busy with saying no, and others' handshakes
would wait for that. Who asks for one service more often than that is refused slowly: each of its
clients then tries about once a second, and the processor is there for the others.
"""

from collections import Counter
from collections.abc import Hashable


class Patience:
    """at_once: refusals of one service within a second that nobody waits for. seconds: how long the
    clients behind those wait. most: how many may wait at a time, all services together; clients
    beyond that are answered at once, since what waits takes a socket and memory."""

    def __init__(self, *, at_once: int, seconds: float, most: int) -> None:
        self._at_once = at_once
        self._seconds = seconds
        self._most = most
        self._since_ms = 0
        self._refused: Counter[Hashable] = Counter()
        self.waiting = 0

    def enter(self, whose: Hashable, now_ms: int) -> float:
        """Count a refusal. Seconds that its client waits; where there are any it has been counted
        as waiting, and `leave` counts it out."""
        if not 0 <= now_ms - self._since_ms < 1000:
            self._since_ms = now_ms
            self._refused.clear()
        self._refused[whose] += 1
        if self._refused[whose] <= self._at_once or self.waiting >= self._most:
            return 0.0
        self.waiting += 1
        return self._seconds

    def leave(self) -> None:
        self.waiting -= 1
