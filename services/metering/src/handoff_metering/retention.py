"""Which month a connection belongs to, and when that month is over for good. Pure.

A connection belongs to the UTC month in which its id was made: ids are UUIDv7, and those sort as
text by the time that they begin with, so a month is a range of ids (docs/adr/0012-postgres.md). An
id of another form belongs to no month and is never retired.

A month is retired when it has been over for `keep` months. From then on a record about one of its
connections that is not open is parked, whether or not its row still stands: what is folded depends
on the log alone, never on when somebody tidied up. Rows go at the earliest a month later, so that a
projection that lags by less still finds them.
"""

from collections.abc import Iterator

from handoff_common.errors import Unreadable
from handoff_common.events import ConnectionEvent
from handoff_common.minutes import DAY_MS, month_of, next_month
from handoff_metering.usage import ConnectionState

_SHORTEST_MONTH_MS = 28 * DAY_MS
AHEAD = 2
"""Months after the present one for which there is room already."""


def began_ms(connection_id: str) -> int | None:
    """When the id was made; None where it is not a UUIDv7 in its canonical form."""
    if len(connection_id) != 36 or connection_id[8] != "-" or connection_id[13:15] != "-7":
        return None
    digits = connection_id[:8] + connection_id[9:13]
    if not set(digits) <= set("0123456789abcdef"):
        return None
    return int(digits, 16)


def first_id(month_ms: int) -> str:
    """What every id of the month and of later ones is greater than, as text of the C locale."""
    digits = f"{month_ms:012x}"
    return f"{digits[:8]}-{digits[8:]}"


def first_recent(appended_ms: int, keep: int) -> str:
    """Of ids from here on, none is of a month that was retired at that instant: a quick look."""
    return first_id(appended_ms - keep * _SHORTEST_MONTH_MS)


def retired(
    state: ConnectionState | None, event: ConnectionEvent, appended_ms: int, keep: int
) -> Unreadable | None:
    """Why an event must not be folded any more, or None. state: of its connection, where known."""
    data = event.data
    began = began_ms(data.connection_id)
    if began is None or (state is not None and state.is_open):
        return None
    if not is_over(month_of(began), appended_ms, keep):
        return None
    return Unreadable(
        "retired",
        f"its connection is of a month that ended more than {keep} months before the record",
        data.customer_id,
    )


def is_over(month_ms: int, now_ms: int, keep: int) -> bool:
    """Whether a month has been over for `keep` months."""
    end = next_month(month_ms)
    for _ in range(keep):
        end = next_month(end)
    return now_ms >= end


def may_go(month_ms: int, now_ms: int, keep: int) -> bool:
    """Whether the rows of a month's closed connections may be dropped."""
    return is_over(month_ms, now_ms, keep + 1)


def first_kept(now_ms: int, keep: int) -> int:
    """Start of the oldest month that may not go yet."""
    return next(wanted(now_ms, keep + 1))


def wanted(now_ms: int, keep: int) -> Iterator[int]:
    """The months that rows are kept of, and those ahead, ascending."""
    month = month_of(now_ms)
    for _ in range(keep):
        month = month_of(month - 1)
    for _ in range(keep + 1 + AHEAD):
        yield month
        month = next_month(month)
