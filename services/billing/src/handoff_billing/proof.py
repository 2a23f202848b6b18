"""What stands behind an invoice: the rows of each line, read from the content; and what came after
it. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from handoff_billing.corrections import (
    Billed,
    Carried,
    Correction,
    Figures,
    LineKey,
    changes,
    figures_of,
    in_order,
)
from handoff_billing.instants import instant_ms
from handoff_billing.money import ZERO, exact, read, text
from handoff_billing.pricebook import BANDWIDTH, MINUTES
from handoff_billing.usage import Delivered, Totals, UsageKey
from handoff_common.events import COUNTER_NAMES, Counters
from handoff_common.instants import rfc3339
from handoff_common.minutes import HOUR_MS, next_month

UsageRows = Mapping[UsageKey, Totals]


@dataclass(frozen=True, slots=True)
class Late:
    """What a final invoice's month would be more (or less) with what has come since, and is not
    billed yet. lines: kind, product, region, the difference of raw quantity and of amount; only
    where there is one."""

    amount: str
    lines: Sequence[Mapping[str, str]]


def late_usage(correction: Correction) -> Late:
    """What a month's correction would come to now."""
    found = changes(correction)
    with exact():
        amount = sum((figures.amount for figures in found.values()), ZERO)
    lines = [
        {
            "kind": key.kind,
            "product": key.product,
            "region": key.region,
            "raw_quantity": str(figures.raw_quantity),
            "amount": text(figures.amount),
        }
        for key, figures in found.items()
    ]
    return Late(text(amount), lines)


def corrected_by(correction: Correction) -> list[tuple[str, str]]:
    """The invoices that have corrected a month, and by how much each."""
    with exact():
        return [
            (one.number, text(sum((f.amount for f in one.lines.values()), ZERO)))
            for one in correction.billed[1:]
        ]


def usage_of(document: Mapping[str, Any]) -> dict[UsageKey, Totals]:
    """The usage rows of a content document. Raises KeyError, TypeError or ValueError for anything
    but rows of `invoice.USAGE_COLUMNS`."""
    found: dict[UsageKey, Totals] = {}
    for service_id, region, hour, minutes, *counted in document["usage"]["rows"]:
        numbers = [int(number) for number in counted]
        counters, (opened, closed, lost) = Counters(*numbers[:8]), numbers[8:]
        found[UsageKey(service_id, region, instant_ms(hour))] = Totals(
            int(minutes), counters, opened, closed, lost
        )
    return found


def delivery_of(document: Mapping[str, Any]) -> list[Delivered]:
    """The delivery rows of a content document; raises as `usage_of` does."""
    return [
        Delivered(region, instant_ms(hour), source, int(count))
        for region, hour, source, count in document["delivery"]["rows"]
    ]


def billed_of(section: Mapping[str, Any]) -> list[Billed]:
    """What a correction in a content document says was billed before; raises as `usage_of` does."""
    found = []
    for one in section["billed"]:
        lines: dict[LineKey, Figures] = {}
        for line in one["lines"]:
            key = LineKey(line["kind"], line["product"], line["region"])
            in_order(key)
            lines[key] = figures_of(line)
        found.append(Billed(one["invoice"], lines))
    return found


def carried_of(document: Mapping[str, Any]) -> list[Carried]:
    """What a content document carries over; raises as `usage_of` does."""
    return [
        Carried(one["invoice"], instant_ms(one["period_start"]), read(one["amount"]))
        for one in document.get("carried", ())
    ]


def rows_behind(
    line: Mapping[str, Any], usage: UsageRows, delivery: Sequence[Delivered]
) -> tuple[list[tuple[UsageKey, Totals]], list[Delivered]]:
    """The rows that a line counts: those of its region that have some of what it is about. None for
    a line that is computed from the lines above it."""
    region = line["region"]

    def counts(totals: Totals) -> int:
        if line["kind"] == "outage":
            return totals.lost
        return totals.minutes if line["product"] == MINUTES.name else totals.priced_bytes

    if line["kind"] not in ("usage", "outage"):
        return [], []
    used = [(key, t) for key, t in sorted(usage.items()) if key.region == region and counts(t)]
    if line["product"] != BANDWIDTH.name:
        return used, []
    return used, [row for row in sorted(delivery) if row.region == region and row.bytes]


def month_behind(line: Mapping[str, Any], month_ms: int) -> tuple[int, Mapping[str, Any]]:
    """Which month's usage a line is about, and the line as that month's invoice would have it.

    month_ms: of the invoice on which the line stands.
    """
    if line["kind"] != "correction":
        return month_ms, line
    corrects = line["corrects"]
    return instant_ms(corrects["period_start"]), {**line, "kind": corrects["kind"]}


def rows_in(
    document: Mapping[str, Any], line: Mapping[str, Any]
) -> tuple[list[tuple[UsageKey, Totals]], list[Delivered]]:
    """The rows in a content document that a line of it counts; for a correction, those of the
    corrected month as the correction counts them."""
    month = document
    if line["kind"] == "correction":
        number = line["corrects"]["invoice"]
        month = next(one for one in document["corrections"] if one["invoice"] == number)
    _, line = month_behind(line, 0)
    return rows_behind(line, usage_of(month), delivery_of(month))


def usage_row(key: UsageKey, totals: Totals) -> dict[str, str | int]:
    """A usage row as JSON, counts as integers."""
    return {
        "service_id": key.service_id,
        "region": key.region,
        "hour": rfc3339(key.hour_ms),
        "minutes": totals.minutes,
        **dict(zip(COUNTER_NAMES, totals.counters, strict=True)),
        "opened": totals.opened,
        "closed": totals.closed,
        "lost": totals.lost,
    }


def delivery_row(row: Delivered) -> dict[str, str | int]:
    return {
        "region": row.region,
        "hour": rfc3339(row.hour_ms),
        "source": row.source,
        "bytes": row.bytes,
    }


def row_connections(customer_id: str, key: UsageKey) -> str:
    """The path at metering that lists the connections behind a usage row; their
    `minutes_in_range` add up to the row's minutes."""
    query = {
        "customer_id": customer_id,
        "service_id": key.service_id,
        "region": key.region,
        "from": rfc3339(key.hour_ms),
        "to": rfc3339(key.hour_ms + HOUR_MS),
    }
    return f"/v1/connections?{urlencode(query)}"


def connections_query(customer_id: str, month_ms: int, line: Mapping[str, Any]) -> str | None:
    """The path at metering that lists the connections behind a line; None where a line is not about
    connections. A correction is about those of the month that it corrects."""
    month_ms, line = month_behind(line, month_ms)
    if line["kind"] not in ("usage", "outage"):
        return None
    query = {
        "customer_id": customer_id,
        "region": line["region"],
        "from": rfc3339(month_ms),
        "to": rfc3339(next_month(month_ms)),
    }
    return f"/v1/connections?{urlencode(query)}"
