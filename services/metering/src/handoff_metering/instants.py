"""Instants as callers write them, and as metering counts them. Pure: now is an argument.

Internally an instant is an integer, milliseconds since the Unix epoch, UTC. `parse` reads what
clients of the statistics API send: epoch seconds, RFC 3339 or ISO 8601 dates and times, and
relative text such as `1 day ago`, `yesterday`, `now`.
"""

import re
from datetime import UTC, datetime

from handoff_common.instants import from_ms, to_ms
from handoff_common.minutes import DAY_MS, HOUR_MS, MINUTE_MS, day_of, month_of, next_month

_LATEST_MS = 253_402_300_799_000
"""The last second of the year 9999: what a datetime can hold."""

ALLOWED = (
    "epoch seconds, an RFC 3339 time or date (2026-11-01, 2026-11-01T12:00:00Z; UTC where no zone "
    "is given), or relative text (now, today, yesterday, 2 hours ago, 1 day ago, last month)"
)

_UNITS = {"second": 1_000, "sec": 1_000, "minute": MINUTE_MS, "min": MINUTE_MS}
_UNITS |= {"hour": HOUR_MS, "day": DAY_MS, "week": 7 * DAY_MS}
_AGO = re.compile(r"(\d{1,9}|an?)\s+([a-z]+?)s?\s+ago")
_LAST = re.compile(r"last\s+([a-z]+)")
_DATED = re.compile(r"\d{4}-\d{2}-\d{2}.*")


def parse(text: str, now_ms: int) -> int:
    """The instant that `text` names, as epoch ms.

    Raises ValueError that says what is allowed.
    """
    words = " ".join(text.strip().lower().split())
    if re.fullmatch(r"\d{1,12}", words):
        found = int(words) * 1_000
    else:
        found = _relative(words, now_ms) if not _DATED.fullmatch(words) else _dated(text.strip())
    if not 0 <= found <= _LATEST_MS:
        raise ValueError(f"{text!r} is out of range; allowed: {ALLOWED}")
    return found


def _dated(text: str) -> int:
    try:
        instant = datetime.fromisoformat(text)
        # A `+` in a query string arrives as a space where the client did not encode it.
    except ValueError:
        try:
            instant = datetime.fromisoformat(re.sub(r" (\d{2}:?\d{2})$", r"+\1", text))
        except ValueError:
            raise ValueError(f"{text!r} is not a time; allowed: {ALLOWED}") from None
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    return to_ms(instant)


def _relative(words: str, now_ms: int) -> int:
    if words == "now":
        return now_ms
    if words == "today":
        return day_of(now_ms)
    if words == "yesterday":
        return day_of(now_ms) - DAY_MS
    ago = _AGO.fullmatch(words)
    last = _LAST.fullmatch(words)
    if ago or last:
        count = 1 if last or ago is None or ago[1].startswith("a") else int(ago[1])
        unit = last[1] if last else ago[2] if ago else ""
        if unit in _UNITS:
            return max(0, now_ms - count * _UNITS[unit])
        if unit == "month":
            return _months_before(now_ms, count)
        if unit == "year":
            return _months_before(now_ms, 12 * count)
    raise ValueError(f"{words!r} is not a time; allowed: {ALLOWED}")


def _months_before(now_ms: int, count: int) -> int:
    """The same day and time of an earlier month; its last day where it is shorter."""
    now = from_ms(now_ms)
    month = now.year * 12 + now.month - 1 - count
    if month < 1970 * 12:
        return 0
    first = to_ms(datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC))
    return min(first + now_ms - month_of(now_ms), next_month(first) - DAY_MS + now_ms % DAY_MS)
