"""UTC months as text: `2026-11` ↔ the month's start in epoch milliseconds. Pure."""

import re
from datetime import UTC, datetime

from handoff_common import minutes
from handoff_common.clock import from_ms, to_ms

_MONTH = re.compile(r"(\d{4})-(0[1-9]|1[0-2])", re.ASCII)
FIRST_YEAR, LAST_YEAR = 1970, 9998


def month_ms(text: str) -> int:
    """Start of the month. Raises ValueError for anything but `YYYY-MM` within 1970–9998."""
    match = _MONTH.fullmatch(text)
    if match is None or not FIRST_YEAR <= int(match[1]) <= LAST_YEAR:
        raise ValueError(f"{text!r} is not a UTC month such as '2026-11'")
    return minutes.month_bounds(int(match[1]), int(match[2]))[0]


def month_text(ms: int) -> str:
    """The month that holds the instant, as `2026-11`."""
    return from_ms(ms).strftime("%Y-%m")


def instant_ms(text: str) -> int:
    """An RFC 3339 instant with a time zone. Raises ValueError."""
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError(f"{text!r} bears no time zone")
    return to_ms(instant.astimezone(UTC))
