"""Time as an argument. Instants are integers: nanoseconds (`_ns`) or milliseconds (`_ms`) since the
Unix epoch, UTC. No float stands for an instant or a duration that is billed."""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


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


def to_ms(instant: datetime) -> int:
    """Milliseconds since the epoch, rounded down; `instant` must bear a time zone."""
    return (instant - EPOCH) // _MILLISECOND


def from_ms(ms: int) -> datetime:
    return EPOCH + ms * _MILLISECOND


def rfc3339(ms: int) -> str:
    """`2026-11-01T00:00:00Z`, with milliseconds only where there are any."""
    instant = from_ms(ms)
    text = instant.strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{ms % 1000:03d}Z" if ms % 1000 else f"{text}Z"
