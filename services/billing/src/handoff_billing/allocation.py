"""What each service costs: the lines of an invoice shared out over the services behind them. Pure.

A line is one amount for all services of a region, since tiers apply to their sum. It is shared by
usage in the currency's smallest unit: each service gets the whole units of its exact share, and
the units that are left go one each to the largest remainders, of equal ones to the service whose id
comes first. So the parts of a line add up to it, and those of all lines to the invoice.

Connection time is shared by minutes, bandwidth by bytes; the bytes of other delivery are a share of
their own that belongs to no service, and neither do lines that are not about usage.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple

from handoff_billing.money import ZERO, exact, read
from handoff_billing.pricebook import MINUTES
from handoff_billing.usage import Usage

DELIVERY: Final = "delivery"
"""The kind of what other delivery has in bandwidth lines."""


class ServiceCost(NamedTuple):
    """websocket_bytes: sent by the edge, to clients and to origins."""

    service_id: str
    minutes: int
    websocket_bytes: int
    amount: Decimal


class Costs(NamedTuple):
    """services: by id, each that has used something. unassigned: kind → amount, in the order of the
    lines; DELIVERY, or the kind of a line that is not about usage. All amounts add up to the total
    of the lines."""

    services: Sequence[ServiceCost]
    unassigned: Mapping[str, Decimal]


def shared(amount: Decimal, weights: Sequence[int], exponent: int) -> list[Decimal]:
    """An amount of a currency with `exponent` decimals in parts that are proportional to the
    weights but for less than one unit each, and add up to it exactly.

    weights: none negative, not all zero. Of equal remainders the earlier one gets the unit.

    >>> [str(part) for part in shared(Decimal("1.00"), [1, 1, 1], 2)]
    ['0.34', '0.33', '0.33']
    """
    with exact():
        units = int(amount.scaleb(exponent).to_integral_exact())
        sign, count, whole = (-1 if units < 0 else 1), abs(units), sum(weights)
        parts = [divmod(count * weight, whole) for weight in weights]
        left = count - sum(part for part, _ in parts)
        by_remainder = sorted(range(len(parts)), key=lambda at: (-parts[at][1], at))
        one_more = set(by_remainder[:left])
        return [
            Decimal(sign * (part + (at in one_more))).scaleb(-exponent)
            for at, (part, _) in enumerate(parts)
        ]


def allocate(lines: Iterable[Mapping[str, Any]], usage: Usage, exponent: int) -> Costs:
    """The costs of an invoice's services.

    lines: as `invoice.line_document` has them. usage: what the lines were rated from, per service
    and region; hours summed or not. exponent: the currency's.
    """
    minutes: defaultdict[str, int] = defaultdict(int)
    sent: defaultdict[str, int] = defaultdict(int)
    by_region: defaultdict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
    for key, totals in usage.items():
        minutes[key.service_id] += totals.minutes
        sent[key.service_id] += totals.priced_bytes
        before = by_region[key.region].get(key.service_id, (0, 0))
        by_region[key.region][key.service_id] = (
            before[0] + totals.minutes,
            before[1] + totals.priced_bytes,
        )
    amounts: dict[str, Decimal] = dict.fromkeys(sorted(minutes), ZERO)
    unassigned: dict[str, Decimal] = {}
    with exact():
        for line in lines:
            amount, kind = read(line["amount"]), line["kind"]
            if kind != "usage":
                unassigned[kind] = unassigned.get(kind, ZERO) + amount
                continue
            timed = line["product"] == MINUTES.name
            services = sorted(by_region[line["region"]].items())
            weights = [used[0] if timed else used[1] for _, used in services]
            # What no service has used of the line: the bytes of other delivery.
            other = int(line["raw_quantity"]) - sum(weights)
            *parts, rest = shared(amount, [*weights, other], exponent)
            for (service_id, _), part in zip(services, parts, strict=True):
                amounts[service_id] += part
            if other:
                unassigned[DELIVERY] = unassigned.get(DELIVERY, ZERO) + rest
    return Costs(
        [ServiceCost(name, minutes[name], sent[name], cost) for name, cost in amounts.items()],
        {kind: amount for kind, amount in unassigned.items() if amount},
    )
