"""What stands behind an invoice: the rows of each line, read from the content; and what came after
it. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

from handoff_billing.instants import instant_ms
from handoff_billing.invoice import line_document
from handoff_billing.money import ZERO, exact, text
from handoff_billing.pricebook import BANDWIDTH, MINUTES
from handoff_billing.rating import Line, total
from handoff_billing.usage import Delivered, Totals, UsageKey
from handoff_common.events import COUNTER_NAMES, Counters
from handoff_common.instants import rfc3339
from handoff_common.minutes import next_month

UsageRows = Mapping[UsageKey, Totals]


@dataclass(frozen=True, slots=True)
class Late:
    """What a final invoice's month would be more (or less) with what has come since. lines: kind,
    product, region, the difference of raw quantity and of amount; only where there is one."""

    amount: str
    lines: Sequence[Mapping[str, str]]


def late_usage(billed: Sequence[Mapping[str, Any]], now: Sequence[Line]) -> Late:
    """`billed`: line documents of the final invoice; `now`: the same month rated again."""
    current = [line_document(line) for line in now]
    keys = dict.fromkeys(_line_key(line) for line in (*billed, *current))
    changes = []
    with exact():
        for key in keys:
            raw, amount = 0, ZERO
            for sign, lines in ((1, current), (-1, billed)):
                for line in lines:
                    if _line_key(line) == key:
                        raw += sign * int(line["raw_quantity"])
                        amount += sign * Decimal(line["amount"])
            if raw or amount:
                kind, product, region = key
                changes.append(
                    {
                        "kind": kind,
                        "product": product,
                        "region": region,
                        "raw_quantity": str(raw),
                        "amount": text(amount),
                    }
                )
        before = sum((Decimal(line["amount"]) for line in billed), ZERO)
        return Late(text(total(now) - before), changes)


def _line_key(line: Mapping[str, Any]) -> tuple[str, str, str]:
    return line["kind"], line["product"], line["region"]


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


def connections_query(customer_id: str, month_ms: int, line: Mapping[str, Any]) -> str | None:
    """The path at metering that lists the connections behind a line; None where a line is not about
    connections."""
    if line["kind"] not in ("usage", "outage"):
        return None
    query = {
        "customer_id": customer_id,
        "region": line["region"],
        "from": rfc3339(month_ms),
        "to": rfc3339(next_month(month_ms)),
    }
    return f"/v1/connections?{urlencode(query)}"
