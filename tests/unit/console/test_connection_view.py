"""What the page of one connection says of it."""

import pytest

from handoff_console.connection_view import ending

ASKED_AT = 1_764_000_000


@pytest.mark.parametrize(
    ("asked_at", "later_ms", "state"),
    [
        (None, 0, ""),
        (ASKED_AT, 0, "ending"),
        (ASKED_AT, 14_999, "ending"),
        (ASKED_AT, 15_000, "still open"),
        (1, 0, "still open"),
    ],
)
def test_an_end_that_does_not_come_is_given_up(
    asked_at: int | None, later_ms: int, state: str
) -> None:
    assert ending(asked_at, ASKED_AT * 1_000 + later_ms) == state
