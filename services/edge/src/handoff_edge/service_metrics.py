"""What is measured of each service, and of no more services than a setting says: all others are one
sum."""

from collections.abc import Callable, Iterable, Iterator
from heapq import nlargest
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

DIRECTIONS: Final = ("from_client", "to_client", "to_origin", "from_origin")
OTHER: Final = "other"


class OpenByService(Collector):
    """Open connections of the services that have the most of them; the others are one sum.

    open_: (service id, connections) of each service that has any, asked at each scrape.
    """

    def __init__(self, open_: Callable[[], Iterable[tuple[str, int]]], most: int) -> None:
        self._open = open_
        self._most = most

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "handoff_edge_service_connections_open",
            "Connections open now of the services that have the most; `other`: of all others",
            labels=["service"],
        )
        named, others = largest(self._open(), self._most)
        for service, count in named.items():
            family.add_metric([service], count)
        family.add_metric([OTHER], others)
        yield family


def largest(counts: Iterable[tuple[str, int]], most: int) -> tuple[dict[str, int], int]:
    """The `most` largest, and the sum of the others. Among equals the name decides."""
    all_ = list(counts)
    named = dict(nlargest(most, all_, key=lambda item: (item[1], item[0])))
    return named, sum(count for _, count in all_) - sum(named.values())


class Totals:
    """Of one service since the process began. body: bytes, as `DIRECTIONS` names them."""

    __slots__ = ("accepted", "body", "refused")

    def __init__(self) -> None:
        self.accepted = 0
        self.refused = 0
        self.body = [0] * len(DIRECTIONS)


class ServiceTotals(Collector):
    """The totals of the `most` services that came first; the others are one sum. A total must never
    go down, so a service keeps its place while the process lives."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._named: dict[str, Totals] = {}
        self._others = Totals()

    def of(self, service_id: str) -> Totals:
        """Where the service's are counted."""
        found = self._named.get(service_id)
        if found is None:
            if len(self._named) >= self._most:
                return self._others
            found = self._named[service_id] = Totals()
        return found

    def collect(self) -> Iterator[CounterMetricFamily]:
        accepted = _family("connections_accepted", "Connections accepted")
        refused = _family("refused", "Handshakes of it that led to no connection")
        body = _family(
            "body_bytes", "Bytes relayed by ended connections and checkpoints", "direction"
        )
        for service, totals in [*self._named.items(), (OTHER, self._others)]:
            accepted.add_metric([service], totals.accepted)
            refused.add_metric([service], totals.refused)
            for direction, count in zip(DIRECTIONS, totals.body, strict=True):
                body.add_metric([service, direction], count)
        yield from (accepted, refused, body)


def _family(name: str, what: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(
        f"handoff_edge_service_{name}",
        f"{what}, by the services that came first; `{OTHER}`: of all others",
        labels=["service", *labels],
    )
