"""The figures of the usage page, by period. Pure: rows of the APIs → tables, charts and CSV.

Figures are integers and decimals, exact; only what a chart draws are floats.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, NamedTuple

from handoff_client.metering import ConcurrencyRow
from handoff_client.usage import Row
from handoff_console.csv_text import Cell, csv_of
from handoff_console.filters import written
from handoff_console.periods import Range, after, filled, start_of

MOST_SERIES = 4
"""Lines of a chart; what is more is added up in the last one."""
_THOUSANDTH = Decimal("0.001")


class Period(NamedTuple):
    """bytes: region → as billed: what the edge sent. peak, average: of connections open at once;
    None where they cannot be told."""

    start: datetime
    minutes: int
    opened: int
    closed: int
    lost: int
    bytes: Mapping[str, int]
    peak: int | None = None
    average: Decimal | None = None

    @property
    def total_bytes(self) -> int:
        return sum(self.bytes.values())


class Open(NamedTuple):
    peak: int
    average: Decimal


class Figures(NamedTuple):
    """regions: with bandwidth, that with most of it first."""

    range: Range
    periods: Sequence[Period]
    regions: Sequence[str]

    def total(self, name: str) -> int:
        return sum(getattr(one, name) for one in self.periods)

    def region_total(self, region: str) -> int:
        return sum(one.bytes.get(region, 0) for one in self.periods)


def billed(row: Row) -> int:
    return (
        row.resp_header_bytes + row.resp_body_bytes + row.bereq_header_bytes + row.bereq_body_bytes
    )


def figures_of(
    range_: Range,
    rows: Iterable[Row],
    concurrency: Sequence[ConcurrencyRow] | None,
    now: datetime,
) -> Figures:
    """rows: usage by the range's period. concurrency: by day where the periods are
    months; None where it cannot be told. now: where the last row's period ends."""
    inside = filled(range_, rows, lambda row: row.start)
    opened = {} if concurrency is None else open_at_once(range_, concurrency, now)
    periods = []
    for start, found in inside.items():
        sent: dict[str, int] = {}
        for row in found:
            sent[row.region] = sent.get(row.region, 0) + billed(row)
        held = opened.get(start) if concurrency is not None else None
        if concurrency is not None and held is None:
            held = Open(0, Decimal(0))
        periods.append(
            Period(
                start,
                sum(row.minutes for row in found),
                sum(row.opened for row in found),
                sum(row.closed for row in found),
                sum(row.lost for row in found),
                {region: count for region, count in sorted(sent.items()) if count},
                held.peak if held else None,
                held.average if held else None,
            )
        )
    totals: dict[str, int] = {}
    for period in periods:
        for region, count in period.bytes.items():
            totals[region] = totals.get(region, 0) + count
    regions = sorted(totals, key=lambda region: (-totals[region], region))
    return Figures(range_, periods, regions)


def open_at_once(
    range_: Range, concurrency: Sequence[ConcurrencyRow], now: datetime
) -> dict[datetime, Open]:
    """Averages of several days are weighed by their lengths, the last of which ends now."""
    inside = filled(range_, concurrency, lambda row: start_of(row.start, range_.by))
    return {
        start: Open(max(row.peak for row in rows), _average(rows, range_, now))
        for start, rows in inside.items()
        if rows
    }


def _average(rows: Sequence[ConcurrencyRow], range_: Range, now: datetime) -> Decimal:
    if range_.by != "month":
        return rows[0].average
    area, length = Decimal(0), Decimal(0)
    for row in rows:
        ms = Decimal(int((min(after(row.start, "day"), now) - row.start).total_seconds() * 1000))
        area, length = area + row.average * ms, length + ms
    if not length:
        return Decimal(0)
    return (area / length).quantize(_THOUSANDTH, ROUND_HALF_UP).normalize() + 0


def chart(range_: Range, series: Sequence[tuple[str, str, Sequence[int | Decimal | None]]]) -> Any:
    """What `parts.chart` draws: (label, `line` or `bars`, a value for each period)."""
    return {
        "x": [int(at.timestamp()) for at in range_.starts],
        "series": [
            {
                "label": label,
                "kind": kind,
                "values": [None if value is None else _drawn(value) for value in values],
            }
            for label, kind, values in series
        ],
    }


def _drawn(value: int | Decimal) -> int | float:
    """As short as it can be written: a page may have thousands."""
    return int(value) if value == int(value) else float(value)


def rounded(count: int) -> int:
    """To four digits that mean something: more cannot be seen in a chart, and take longer to
    load."""
    return round(count, min(0, 4 - len(str(abs(count)))))


def minutes_chart(figures: Figures) -> Any:
    return chart(figures.range, [("Minutes", "bars", [one.minutes for one in figures.periods])])


def open_chart(figures: Figures) -> Any:
    return chart(
        figures.range,
        [
            ("Peak", "line", [one.peak for one in figures.periods]),
            ("Average", "line", [one.average for one in figures.periods]),
        ],
    )


def bytes_chart(figures: Figures) -> Any:
    """One series per region, in figures that are rounded; where there are too many, the smaller
    ones together."""
    shown, rest = figures.regions, figures.regions[:0]
    if len(shown) > MOST_SERIES:
        shown, rest = shown[: MOST_SERIES - 1], shown[MOST_SERIES - 1 :]
    kind = "bars" if len(shown) == 1 else "line"
    series: list[tuple[str, str, list[int | Decimal | None]]] = [
        (region, kind, [rounded(one.bytes.get(region, 0)) for one in figures.periods])
        for region in shown
    ]
    if rest:
        together: list[int | Decimal | None] = [
            rounded(sum(one.bytes.get(region, 0) for region in rest)) for one in figures.periods
        ]
        series.append((f"{len(rest)} others", kind, together))
    return chart(figures.range, series) | {"unit": "B"}


def csv(figures: Figures, service: str) -> str:
    """The numbers of all tables. service: its name, or what stands for all of them."""
    header = ["start", "service", "minutes", "opened", "closed", "lost", "peak_open"]
    header += ["average_open", "bytes", *(f"bytes_{region}" for region in figures.regions)]

    def line(one: Period) -> list[Cell]:
        return [
            written(one.start),
            service,
            one.minutes,
            one.opened,
            one.closed,
            one.lost,
            one.peak,
            one.average,
            one.total_bytes,
            *(one.bytes.get(region, 0) for region in figures.regions),
        ]

    return csv_of(header, (line(one) for one in figures.periods))
