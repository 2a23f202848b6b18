"""What a month will come to: its usage so far, and what the last week says of the hours left. Pure.

Of each region, minutes, WebSocket bytes and other delivery bytes are looked at by themselves:

- The hours that are complete count as they are.
- For the hours left, `weekly` takes of each the same hour of the last seven complete days: the
  weekly pattern. It is used where the customer's first use lies at least seven days back.
- Before that, `mean` takes the mean of the complete hours since the first use.
- What has been used already in hours that are not complete counts where it is more than that.

So the expected usage is never less than that so far, equals it at the month's end, is exact where
every hour is like the others, and never falls when something is used after the first use. (An
earlier first use may lower it: the mean is then over more hours.) Money is not computed here: the
expected usage is rated as that of an invoice, so tiers, terms and minimums apply to all of it.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple

from handoff_billing.usage import Delivered, Totals, Usage, UsageKey
from handoff_common.events import Counters
from handoff_common.minutes import DAY_MS, HOUR_MS, hour_of, next_month

WINDOW_MS: Final = 7 * DAY_MS
"""The complete hours that the hours left are taken from."""

Method = Literal["weekly", "mean", "no_history", "complete"]
"""`complete`: no hours are left. `no_history`: nothing is known to have been used in a complete
hour, so that what is expected is what there is."""

Counted = Literal["minutes", "websocket_bytes", "delivery_bytes"]
Series = Mapping[int, int]
"""Hour → count."""


class Forecast(NamedTuple):
    """usage, delivery: what is expected of the whole month, per region, to be rated."""

    method: Method
    usage: Usage
    delivery: Sequence[Delivered]


def reach(month_ms: int, through_ms: int) -> int:
    """The hour from which on `expect` has to know what was used: twice the window, so that a first
    use before the window is seen whatever hour of the day it was."""
    return min(month_ms, max(0, through_ms - 2 * WINDOW_MS))


def complete_through(month_ms: int, now_ms: int, vouched_ms: int | None) -> int:
    """The hour up to which the month's hours are complete: over, and vouched for by metering, where
    it has said something (`vouched_ms`)."""
    known_ms = now_ms if vouched_ms is None else min(now_ms, vouched_ms)
    return max(month_ms, min(hour_of(known_ms), next_month(month_ms)))


def expect(
    usage: Usage, delivery: Iterable[Delivered], *, month_ms: int, through_ms: int
) -> Forecast:
    """The usage that the month is expected to end with.

    usage, delivery: by hour, from `reach` on to the month's end, services summed or not.
    through_ms: `complete_through`.
    """
    series: defaultdict[tuple[str, Counted], dict[int, int]] = defaultdict(dict)
    lost: defaultdict[str, int] = defaultdict(int)

    def add(region: str, what: Counted, hour_ms: int, count: int) -> None:
        if count:
            one = series[region, what]
            one[hour_ms] = one.get(hour_ms, 0) + count

    end_ms = next_month(month_ms)
    for key, totals in usage.items():
        add(key.region, "minutes", key.hour_ms, totals.minutes)
        add(key.region, "websocket_bytes", key.hour_ms, totals.priced_bytes)
        if month_ms <= key.hour_ms < end_ms:
            lost[key.region] += totals.lost
    for row in delivery:
        add(row.region, "delivery_bytes", row.hour_ms, row.bytes)
    first_ms = min((hour for one in series.values() for hour in one), default=through_ms)
    method = _method(first_ms, through_ms, end_ms)
    expected = {
        key: _expected(one, method, max(first_ms, through_ms - WINDOW_MS), month_ms, through_ms)
        for key, one in series.items()
    }
    regions = sorted({region for region, _ in series} | lost.keys())
    return Forecast(
        method,
        {
            UsageKey("", region, month_ms): Totals(
                expected.get((region, "minutes"), 0),
                # Rated alike, whichever of the counters that the edge sent holds them.
                Counters(resp_body_bytes=expected.get((region, "websocket_bytes"), 0)),
                lost=lost.get(region, 0),
            )
            for region in regions
        },
        [
            Delivered(region, month_ms, "", expected[region, "delivery_bytes"])
            for region in regions
            if (region, "delivery_bytes") in expected
        ],
    )


def _method(first_ms: int, through_ms: int, end_ms: int) -> Method:
    if through_ms >= end_ms:
        return "complete"
    if first_ms >= through_ms:
        return "no_history"
    return "weekly" if first_ms <= through_ms - WINDOW_MS else "mean"


def _expected(counts: Series, method: Method, since_ms: int, month_ms: int, through_ms: int) -> int:
    """since_ms: the first hour that the hours left are taken from."""
    end_ms = next_month(month_ms)
    before = sum(n for hour, n in counts.items() if month_ms <= hour < through_ms)
    begun = sum(n for hour, n in counts.items() if through_ms <= hour < end_ms)
    left = 0
    if method == "weekly":
        left = sum(
            counts.get(since_ms + (hour - since_ms) % WINDOW_MS, 0)
            for hour in range(through_ms, end_ms, HOUR_MS)
        )
    elif method == "mean":
        window = sum(n for hour, n in counts.items() if since_ms <= hour < through_ms)
        hours, known = (end_ms - through_ms) // HOUR_MS, (through_ms - since_ms) // HOUR_MS
        # To the nearest whole one, halves up.
        left = (2 * window * hours + known) // (2 * known)
    return before + max(begun, left)
