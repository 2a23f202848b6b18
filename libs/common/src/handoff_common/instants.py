"""Instants as integers, as datetimes and as text. Pure: there is no clock here.

An instant is an integer of milliseconds (`_ms`) since the Unix epoch, UTC. No float stands for an
instant or a duration that is billed.
"""

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def to_ms(instant: datetime) -> int:
    """Milliseconds since the epoch, rounded down; `instant` must bear a time zone."""
    since = instant - EPOCH
    return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000


def from_ms(ms: int) -> datetime:
    return EPOCH + ms * _MILLISECOND


def rfc3339(ms: int) -> str:
    """`2026-11-01T00:00:00Z`, with milliseconds only where there are any."""
    text = from_ms(ms).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{ms % 1000:03d}Z" if ms % 1000 else f"{text}Z"
