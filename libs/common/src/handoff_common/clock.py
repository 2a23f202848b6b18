"""Where now comes from: a clock is an argument, made once by whoever puts a process together."""

import time
from datetime import datetime
from typing import Protocol

from handoff_common.instants import from_ms, to_ms


class Clock(Protocol):
    """One timeline for instants and durations: it never goes back and never steps."""

    def now_ns(self) -> int: ...

    def now_ms(self) -> int: ...

    def now(self) -> datetime: ...


class SystemClock:
    """Wall time read once, then carried on by the boot-time clock.

    A step of the machine's clock (an operator, a leap smear, a wrong NTP server) neither lengthens
    nor shortens an open connection, since its start and its end are read from one timeline; slewing
    is followed, and time asleep counts. Ends when the process does.
    """

    def __init__(self) -> None:
        self._clock_id = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
        self._offset_ns = time.time_ns() - time.clock_gettime_ns(self._clock_id)

    def now_ns(self) -> int:
        return self._offset_ns + time.clock_gettime_ns(self._clock_id)

    def now_ms(self) -> int:
        return self.now_ns() // 1_000_000

    def now(self) -> datetime:
        return from_ms(self.now_ms())


class ManualClock:
    """A clock that tests move by hand."""

    def __init__(self, start: datetime) -> None:
        self._ns = to_ms(start) * 1_000_000

    def now_ns(self) -> int:
        return self._ns

    def now_ms(self) -> int:
        return self._ns // 1_000_000

    def now(self) -> datetime:
        return from_ms(self.now_ms())

    def advance(self, *, seconds: int = 0, ms: int = 0, ns: int = 0) -> None:
        self._ns += seconds * 1_000_000_000 + ms * 1_000_000 + ns
