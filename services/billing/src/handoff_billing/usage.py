"""What is rated: WebSocket usage per service, region and hour, and other delivery bytes. Pure.

Counts are integers: minutes, bytes, connections. Hours are epoch milliseconds of a UTC hour's
start.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from handoff_common.events import Counters


class UsageKey(NamedTuple):
    service_id: str
    region: str
    hour_ms: int


class Totals(NamedTuple):
    """Owed minutes, the eight byte counters, and connections opened, closed and lost (ended by the
    edge's own outage) within one hour."""

    minutes: int = 0
    counters: Counters = Counters()
    opened: int = 0
    closed: int = 0
    lost: int = 0

    def plus(self, other: "Totals") -> "Totals":
        return Totals(
            self.minutes + other.minutes,
            self.counters.plus(other.counters),
            self.opened + other.opened,
            self.closed + other.closed,
            self.lost + other.lost,
        )

    @property
    def priced_bytes(self) -> int:
        """What the edge sent, to clients and to origins."""
        counters = self.counters
        return (
            counters.resp_header_bytes
            + counters.resp_body_bytes
            + counters.bereq_header_bytes
            + counters.bereq_body_bytes
        )


class Delivered(NamedTuple):
    """Delivery bytes that are not WebSocket traffic, as another team's `source` reported them."""

    region: str
    hour_ms: int
    source: str
    bytes: int


Usage = Mapping[UsageKey, Totals]

NOTHING = Totals()


def summed(rows: Iterable[tuple[UsageKey, Totals]]) -> dict[UsageKey, Totals]:
    """Rows of all slices added up per key; keys with nothing in them are left out, so that a row
    that a rebuild set to zero and a row that never was are the same."""
    found: dict[UsageKey, Totals] = {}
    for key, totals in rows:
        found[key] = found[key].plus(totals) if key in found else totals
    return {key: found[key] for key in sorted(found) if found[key] != NOTHING}
