"""Ranges of time in periods: which ones a page shows, and figures put into them. Pure, UTC.

A range goes from the start of a period to the start of another; a period in which nothing happened
is shown with zeros.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple, TypeVar, cast

from handoff_console.filters import BadFilter, instant

By = Literal["hour", "day", "month"]
T = TypeVar("T")

_SHOWN: Mapping[By, int] = {"hour": 24, "day": 30, "month": 12}
"""Periods of a page that names no range, the current one last."""
MOST: Mapping[By, int] = {"hour": 744, "day": 366, "month": 120}
"""The longest range: 31 days of hours, a year of days, ten years of months."""


class Range(NamedTuple):
    """from_ and to (exclusive) begin periods."""

    by: By
    from_: datetime
    to: datetime

    @property
    def starts(self) -> list[datetime]:
        found, at = [], self.from_
        while at < self.to:
            found.append(at)
            at = after(at, self.by)
        return found


def start_of(at: datetime, by: By) -> datetime:
    """The start of the period that holds an instant."""
    hour = at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    if by == "hour":
        return hour
    return hour.replace(hour=0) if by == "day" else hour.replace(hour=0, day=1)


def after(start: datetime, by: By) -> datetime:
    """The start of the next period."""
    if by == "hour":
        return start + timedelta(hours=1)
    if by == "day":
        return start + timedelta(days=1)
    return (start.replace(day=1) + timedelta(days=32)).replace(day=1)


def earlier(start: datetime, by: By, count: int) -> datetime:
    """The start of the period so many before."""
    if by == "hour":
        return start - timedelta(hours=count)
    if by == "day":
        return start - timedelta(days=count)
    month = start.year * 12 + start.month - 1 - count
    return start.replace(year=month // 12, month=month % 12 + 1)


def range_of(query: Mapping[str, str], now: datetime) -> Range:
    """What a query string asks for: whole periods that hold its `from` and what lies before its
    `to`. By default the last 24 hours, 30 days or 12 months. Raises BadFilter."""
    given = query.get("by") or "day"
    if given not in _SHOWN:
        raise BadFilter("by", f"by is {given[:40]!r}; it must be hour, day or month")
    by = cast("By", given)
    from_, to = instant("from", query.get("from")), instant("to", query.get("to"))
    end = after(start_of(now, by), by)
    if to is not None:
        whole = start_of(to, by)
        end = whole if whole == to else after(whole, by)
    begin = earlier(end, by, _SHOWN[by]) if from_ is None else start_of(from_, by)
    if begin >= end:
        raise BadFilter("from", "from does not lie before to")
    if earlier(end, by, MOST[by]) > begin:
        raise BadFilter("from", f"the range is longer than {MOST[by]} {by}s; choose longer periods")
    return Range(by, begin, end)


def years(range_: Range, now: datetime) -> list[Range]:
    """A range in parts of 12 months at most, without parts that lie ahead; one at least."""
    if range_.by != "month":
        return [range_]
    parts: list[Range] = []
    at = range_.from_
    while at < range_.to and (not parts or at <= now):
        end = min(earlier(at, "month", -12), range_.to)
        parts.append(Range(range_.by, at, end))
        at = end
    return parts


def filled(
    range_: Range, rows: Iterable[T], start: Callable[[T], datetime]
) -> dict[datetime, list[T]]:
    """Each period of the range with its rows, those of none left out."""
    found: dict[datetime, list[T]] = {at: [] for at in range_.starts}
    for row in rows:
        held = found.get(start(row).astimezone(UTC))
        if held is not None:
            held.append(row)
    return found


def label(at: datetime, by: By) -> str:
    """2026-11-24 15:00, 2026-11-24, 2026-11."""
    shape = {"hour": "%Y-%m-%d %H:%M", "day": "%Y-%m-%d", "month": "%Y-%m"}[by]
    return f"{at.astimezone(UTC):{shape}}"
