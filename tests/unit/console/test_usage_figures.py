"""The usage page's figures: sums of what the APIs answered, by period."""

import csv as readers
import io
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from handoff_client.metering import ConcurrencyRow
from handoff_client.usage import Row
from handoff_console.connection_view import flows_of
from handoff_console.periods import Range
from handoff_console.usage_figures import bytes_chart, csv, figures_of, minutes_chart, rounded

START = datetime(2026, 11, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 3, 12, tzinfo=UTC)
DAYS = Range("day", START, START + timedelta(days=3))


def row(day: int, region: str, minutes: int, sent: int, service_id: str = "s1") -> Row:
    return Row(
        start=START + timedelta(days=day),
        service_id=service_id,
        region=region,
        minutes=minutes,
        opened=1,
        closed=1,
        lost=0,
        req_header_bytes=7,
        req_body_bytes=7,
        resp_header_bytes=0,
        resp_body_bytes=sent,
        bereq_header_bytes=0,
        bereq_body_bytes=sent,
        beresp_header_bytes=7,
        beresp_body_bytes=7,
    )


def peak(day: int, peak_: int, average: str) -> ConcurrencyRow:
    return ConcurrencyRow(
        start=START + timedelta(days=day), opened=0, closed=0, peak=peak_, average=Decimal(average)
    )


def test_periods_without_usage_are_zero_and_bandwidth_is_what_the_edge_sent() -> None:
    rows = [row(0, "usa", 5, 10), row(0, "usa", 2, 1, "s2"), row(2, "europe", 1, 50)]
    figures = figures_of(DAYS, rows, [peak(0, 4, "1.5"), peak(2, 1, "0.25")], NOW)
    assert [one.minutes for one in figures.periods] == [7, 0, 1]
    assert [one.total_bytes for one in figures.periods] == [22, 0, 100]
    assert [one.peak for one in figures.periods] == [4, 0, 1]
    assert [one.average for one in figures.periods] == [Decimal("1.5"), 0, Decimal("0.25")]
    assert figures.regions == ["europe", "usa"]
    assert figures.total("opened") == 3 and figures.region_total("usa") == 22
    assert minutes_chart(figures)["series"][0]["values"] == [7.0, 0.0, 1.0]
    billed = [flow.total for flow in flows_of(rows[0]) if flow.billed]
    assert sum(billed) == 20


def test_a_chart_draws_four_digits() -> None:
    counts = (0, 7, 9_999, 10_004, 123_456, 999_950_000, 123_456_789_012)
    drawn = [0, 7, 9_999, 10_000, 123_500, 1_000_000_000, 123_500_000_000]
    assert [rounded(count) for count in counts] == drawn
    rows = [row(0, "usa", 5, 123_456)]
    chart = bytes_chart(figures_of(DAYS, rows, None, NOW))
    assert chart["series"][0]["values"] == [246_900, 0, 0]


def test_months_are_made_of_days_weighed_by_their_lengths() -> None:
    months = Range("month", START, datetime(2026, 12, 1, tzinfo=UTC))
    # Two whole days and a half: (1 * 2 + 6 * 0.5) / 2.5
    rows = [peak(0, 3, "1"), peak(1, 9, "1"), peak(2, 8, "6")]
    figures = figures_of(months, [], rows, NOW)
    assert (figures.periods[0].peak, figures.periods[0].average) == (9, Decimal(2))


def test_concurrency_that_cannot_be_told_is_empty_and_not_zero() -> None:
    figures = figures_of(DAYS, [row(0, "usa", 5, 10)], None, NOW)
    assert figures.periods[0].peak is None
    lines = list(readers.DictReader(io.StringIO(csv(figures, "chat"), newline="")))
    assert [line["peak_open"] for line in lines] == ["", "", ""]


def test_the_csv_has_the_same_numbers() -> None:
    rows = [row(0, "usa", 5, 10**18), row(1, "europe", 2, 3)]
    figures = figures_of(DAYS, rows, [peak(0, 4, "1.125")], NOW)
    lines = list(readers.DictReader(io.StringIO(csv(figures, "=evil"), newline="")))
    assert lines[0] == {
        "start": "2026-11-01T00:00:00Z",
        "service": "'=evil",
        "minutes": "5",
        "opened": "1",
        "closed": "1",
        "lost": "0",
        "peak_open": "4",
        "average_open": "1.125",
        "bytes": str(2 * 10**18),
        "bytes_usa": str(2 * 10**18),
        "bytes_europe": "0",
    }


def test_a_chart_has_no_more_series_than_colours() -> None:
    rows = [row(0, f"r{n}", 1, 10 + n) for n in range(7)]
    chart = bytes_chart(figures_of(DAYS, rows, None, NOW))
    assert [one["label"] for one in chart["series"]] == ["r6", "r5", "r4", "4 others"]
    total = sum(value for one in chart["series"] for value in one["values"])
    assert total == sum(2 * (10 + n) for n in range(7))
