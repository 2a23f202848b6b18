"""How many connections were open at once, by period. Pure: a sweep over when they began and ended.

A connection is open at the instants `accepted <= t < ended`: one that ends as another begins is not
open beside it, and one that ends as it began never was. All is integers; only the text of an
average is rounded.
"""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple


class Bucket(NamedTuple):
    """One period of a range, in milliseconds since the epoch; the last may be cut off by its end.

    opened, closed: connections accepted and ended in it. peak: the most that were open at once.
    open_ms: milliseconds that connections were open in it, summed over connections.
    """

    start_ms: int
    end_ms: int
    opened: int
    closed: int
    peak: int
    open_ms: int

    @property
    def average(self) -> str:
        """How many were open on average: open_ms / length, as a decimal string of at most 3
        decimals, ties away from zero."""
        length = self.end_ms - self.start_ms
        thousandths = (2_000 * self.open_ms + length) // (2 * length)
        whole, rest = divmod(thousandths, 1_000)
        return f"{whole}.{rest:03d}".rstrip("0").rstrip(".")


def sweep(
    open_before: int,
    accepted: Iterable[int],
    ended: Iterable[int],
    *,
    from_ms: int,
    to_ms: int,
    period_ms: int,
) -> list[Bucket]:
    """Every period of `from_ms <= t < to_ms`, ascending, also those in which nothing changed.

    open_before: connections accepted before `from_ms` that had not ended before it.
    accepted, ended: the instants in the range at which one was accepted, and at which one ended, in
    any order; which connection it was does not matter.
    from_ms: the start of a period.
    """
    opened, closed = Counter(accepted), Counter(ended)
    instants = sorted(opened.keys() | closed.keys())
    buckets = []
    now_open, at = open_before, 0
    for start in range(from_ms, to_ms, period_ms):
        end = min(start + period_ms, to_ms)
        first, last = at, start
        open_ms = 0
        # An end at the very start of a period leaves nothing of its connection in it.
        peak = 0 if at < len(instants) and instants[at] == start else now_open
        while at < len(instants) and instants[at] < end:
            instant = instants[at]
            open_ms += now_open * (instant - last)
            now_open += opened[instant] - closed[instant]
            peak = max(peak, now_open)
            last = instant
            at += 1
        open_ms += now_open * (end - last)
        inside = instants[first:at]
        buckets.append(
            Bucket(
                start,
                end,
                sum(opened[instant] for instant in inside),
                sum(closed[instant] for instant in inside),
                peak,
                open_ms,
            )
        )
    return buckets
