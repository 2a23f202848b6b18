"""UTC months and callers' instants, as text and as epoch milliseconds. Pure."""

import re
from datetime import datetime

from handoff_common import minutes
from handoff_common.instants import from_ms, to_ms

_MONTH = re.compile(r"(\d{4})-(0[1-9]|1[0-2])", re.ASCII)
_YEARS = range(1970, 9999)


def instant_ms(text: str) -> int:
    """An RFC 3339 instant with a time zone. Raises ValueError."""
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError(f"{text!r} bears no time zone")
    return to_ms(instant)


def month_ms(text: str) -> int:
    """Start of a month such as `2026-11`. Raises ValueError."""
    match = _MONTH.fullmatch(text)
    if match is None or int(match[1]) not in _YEARS:
        raise ValueError(f"{text!r} is not a UTC month such as '2026-11'")
    return minutes.month_bounds(int(match[1]), int(match[2]))[0]


def month_text(ms: int) -> str:
    """The month that holds the instant, as `2026-11`."""
    return from_ms(ms).strftime("%Y-%m")
