"""Instants and UTC months, as text and as epoch milliseconds. Pure: there is no clock here."""

import re
from datetime import UTC, datetime, timedelta

from handoff_common import minutes

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_MONTH = re.compile(r"(\d{4})-(0[1-9]|1[0-2])", re.ASCII)
_YEARS = range(1970, 9999)


def to_ms(instant: datetime) -> int:
    """Milliseconds since the epoch, rounded down; `instant` bears a time zone."""
    return (instant - _EPOCH) // _MILLISECOND


def from_ms(ms: int) -> datetime:
    return _EPOCH + ms * _MILLISECOND


def rfc3339(ms: int) -> str:
    """`2026-11-01T00:00:00Z`, with milliseconds only where there are any."""
    text = from_ms(ms).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{ms % 1000:03d}Z" if ms % 1000 else f"{text}Z"


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
