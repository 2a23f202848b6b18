"""Usage minutes and the UTC calendar they fall into. Pure, integers only.

Usage minute k (k = 0, 1, …) of a connection starts at `accepted + k * 60 s`. It is owed when it has
started before the connection's end, and minute 0 is always owed. A minute belongs to the UTC hour,
day and month in which it starts, so the months of a connection add up exactly to its rounded total.
All instants and durations are milliseconds; instants count from the Unix epoch.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def owed(elapsed_ms: int) -> int:
    """Minutes owed by a connection that lasted `elapsed_ms`: `max(1, ceil(elapsed / 60 s))`.

    >>> owed(0), owed(60_000), owed(60_001)
    (1, 1, 2)
    """
    return max(1, -(-elapsed_ms // MINUTE_MS))


def by_hour(accepted_ms: int, first: int, past: int) -> Iterator[tuple[int, int]]:
    """Where the minutes `first <= k < past` of a connection fall: `(hour_ms, minutes)`, ascending.

    Costs one step per hour touched, not per minute, so 40 days are 960 steps.
    """
    k = first
    while k < past:
        hour = hour_of(accepted_ms + k * MINUTE_MS)
        # The first minute that starts at or after the next hour; ceiling division.
        following = -((accepted_ms - hour - HOUR_MS) // MINUTE_MS)
        upto = min(past, following)
        yield hour, upto - k
        k = upto


def within(accepted_ms: int, minutes: int, from_ms: int, to_ms: int) -> range:
    """Of a connection's first `minutes` minutes, the numbers of those that start in
    `from_ms <= start < to_ms`. Ranges that follow each other share out every minute once.

    >>> within(0, 3, 60_000, 120_000), len(within(59_999, 1, 60_000, 120_000))
    (range(1, 2), 0)
    """
    # The first minute that starts at or after an instant; ceiling division.
    first = max(0, -((accepted_ms - from_ms) // MINUTE_MS))
    past = min(minutes, -((accepted_ms - to_ms) // MINUTE_MS))
    return range(first, max(first, past))


def hour_of(ms: int) -> int:
    """Start of the UTC hour that holds the instant."""
    return ms - ms % HOUR_MS


def day_of(ms: int) -> int:
    """Start of the UTC day that holds the instant."""
    return ms - ms % DAY_MS


def month_of(ms: int) -> int:
    """Start of the UTC month that holds the instant."""
    return _month_of_day(ms // DAY_MS)


@lru_cache(64)
def _month_of_day(days: int) -> int:
    date = _EPOCH + timedelta(days=days)
    return _ms(date.year, date.month)


def next_month(ms: int) -> int:
    """Start of the UTC month after the one that holds the instant."""
    date = _EPOCH + timedelta(milliseconds=ms)
    return _ms(date.year + date.month // 12, date.month % 12 + 1)


def month_bounds(year: int, month: int) -> tuple[int, int]:
    """`(start, end)` of a UTC month; the end is the next month's start.

    Raises ValueError for a month outside 1–12.
    """
    start = _ms(year, month)
    return start, next_month(start)


def _ms(year: int, month: int) -> int:
    return (datetime(year, month, 1, tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)
