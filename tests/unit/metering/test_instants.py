"""Instants as clients of the statistics API write them."""

from datetime import UTC, datetime

import pytest

from handoff_common.instants import from_ms, to_ms
from handoff_metering import instants

NOW = to_ms(datetime(2026, 3, 31, 15, 30, 12, tzinfo=UTC))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1774900000", datetime.fromtimestamp(1_774_900_000, UTC)),
        ("0", datetime(1970, 1, 1, tzinfo=UTC)),
        ("2026-03-01", datetime(2026, 3, 1, tzinfo=UTC)),
        ("2026-03-01T12:30:00Z", datetime(2026, 3, 1, 12, 30, tzinfo=UTC)),
        ("2026-03-01 12:30", datetime(2026, 3, 1, 12, 30, tzinfo=UTC)),
        ("2026-03-01T12:30:00+02:00", datetime(2026, 3, 1, 10, 30, tzinfo=UTC)),
        ("2026-03-01T12:30:00 02:00", datetime(2026, 3, 1, 10, 30, tzinfo=UTC)),
        ("now", datetime(2026, 3, 31, 15, 30, 12, tzinfo=UTC)),
        (" Today ", datetime(2026, 3, 31, tzinfo=UTC)),
        ("yesterday", datetime(2026, 3, 30, tzinfo=UTC)),
        ("1 day ago", datetime(2026, 3, 30, 15, 30, 12, tzinfo=UTC)),
        ("2 hours ago", datetime(2026, 3, 31, 13, 30, 12, tzinfo=UTC)),
        ("an hour ago", datetime(2026, 3, 31, 14, 30, 12, tzinfo=UTC)),
        ("45 minutes ago", datetime(2026, 3, 31, 14, 45, 12, tzinfo=UTC)),
        ("45 min ago", datetime(2026, 3, 31, 14, 45, 12, tzinfo=UTC)),
        ("3 weeks ago", datetime(2026, 3, 10, 15, 30, 12, tzinfo=UTC)),
        ("last week", datetime(2026, 3, 24, 15, 30, 12, tzinfo=UTC)),
        ("1 month ago", datetime(2026, 2, 28, 15, 30, 12, tzinfo=UTC)),
        ("last month", datetime(2026, 2, 28, 15, 30, 12, tzinfo=UTC)),
        ("2 years ago", datetime(2024, 3, 31, 15, 30, 12, tzinfo=UTC)),
        ("900 years ago", datetime(1970, 1, 1, tzinfo=UTC)),
    ],
)
def test_what_clients_write_is_understood(text: str, expected: datetime) -> None:
    assert from_ms(instants.parse(text, NOW)) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "soon", "-1", "1.5", "1e9", "9" * 12, "tomorrow", "ago", "last", "1 fortnight ago"),
        *("2026-13-01", "2026-02-30", "2026-03-01T25:00:00Z", "last year month"),
    ],
)
def test_all_else_is_refused_saying_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="allowed: epoch seconds"):
        instants.parse(text, NOW)
