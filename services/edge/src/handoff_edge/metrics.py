"""What the edge measures. One set per edge, on a registry of its own."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from handoff_edge.service_metrics import DIRECTIONS, ServiceTotals

BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Of the histograms, in seconds."""

STAGES: Final = ("head", "decide", "connect", "origin_tls", "answer", "journal", "upgrade")
"""Of a handshake, in their order: from accept to the whole head; the decision; look-up and connect;
TLS with the origin; its answer; `accepted` in the journal; the 101 at the client. A stage that was
not passed is not counted."""


class Seconds:
    """Durations, counted by the bounds of `BOUNDS`. Only the event loop's thread counts: the
    library's own histogram takes a lock for each of its parts, which costs four times as much."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds


class Durations(Collector):
    """Shows `Seconds` as a histogram; with a label, one of each of its values."""

    def __init__(
        self, name: str, documentation: str, parts: Mapping[str, Seconds], *, label: str = ""
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._parts = parts
        self._labels = [label] if label else []

    def collect(self) -> Iterator[HistogramMetricFamily]:
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labels)
        bounds = [*map(floatToGoString, BOUNDS), "+Inf"]
        for value, seconds in self._parts.items():
            buckets = list(zip(bounds, accumulate(seconds.counts), strict=True))
            family.add_metric([value][: len(self._labels)], buckets, seconds.total)
        yield family


class Watch:
    """Of one handshake, from now on: called with the name of each stage as it is passed."""

    __slots__ = ("_last_ns", "_now_ns", "_stages")

    def __init__(self, stages: Mapping[str, Seconds], now_ns: Callable[[], int]) -> None:
        self._stages = stages
        self._now_ns = now_ns
        self._last_ns = now_ns()

    def __call__(self, stage: str) -> None:
        now_ns = self._now_ns()
        self._stages[stage].observe((now_ns - self._last_ns) / 1e9)
        self._last_ns = now_ns


def code_label(code: int | None) -> str:
    """Codes of the protocol's own; what applications make up (3000 to 4999) is one label."""
    if code is None:
        return "none"
    return str(code) if 1000 <= code <= 1015 else "other"


class Metrics:
    """Labels are bounded: codes, reasons and directions come from fixed tables. What a handshake or
    an end counts is found in a dictionary: the library's own look-up costs three times as much.

    services: how many of them have totals of their own.
    """

    def __init__(self, registry: CollectorRegistry, *, services: int = 0) -> None:
        self.registry = registry
        self.services = ServiceTotals(services)
        registry.register(self.services)
        self.open = Gauge(
            "handoff_edge_connections_open", "Connections open now", registry=registry
        )
        self.heads = Gauge(
            "handoff_edge_heads_waiting", "Clients whose head is not whole", registry=registry
        )
        self.accepted = Counter(
            "handoff_edge_connections_accepted", "Connections accepted", registry=registry
        )
        self.refused = Counter(
            "handoff_edge_refused",
            "Handshakes that led to no connection, by code",
            ["code"],
            registry=registry,
        )
        self.refused_slowly = Counter(
            "handoff_edge_refused_slowly",
            "Refusals that were held back, since too many asked for the same service",
            registry=registry,
        )
        self.closed = Counter(
            "handoff_edge_connections_closed",
            "Connections closed, by reason and by the close code that was said or told",
            ["reason", "close_code"],
            registry=registry,
        )
        self.idle = Gauge(
            "handoff_edge_connections_idle",
            "Open connections without a byte between their last two checkpoints",
            registry=registry,
        )
        self.bytes = Counter(
            "handoff_edge_body_bytes",
            "Bytes relayed by ended connections and checkpoints, by direction",
            ["direction"],
            registry=registry,
        )
        self.stages = {stage: Seconds() for stage in STAGES}
        self.handshake_seconds = Seconds()
        self.append_seconds = Seconds()
        for shown in (
            Durations(
                "handoff_edge_handshake_stage_seconds",
                "Seconds that a stage of a handshake took",
                self.stages,
                label="stage",
            ),
            Durations(
                "handoff_edge_handshake_seconds",
                "From the whole head to the 101 at the client",
                {"": self.handshake_seconds},
            ),
            Durations(
                "handoff_edge_journal_append_seconds",
                "Durable append of an accepted event",
                {"": self.append_seconds},
            ),
        ):
            registry.register(shown)
        self.append_failures = Counter(
            "handoff_edge_journal_append_failures", "Failed appends", registry=registry
        )
        self.backlog = Gauge(
            "handoff_edge_journal_backlog",
            "Events stamped and not yet in the log",
            registry=registry,
        )
        self.backlog_age = Gauge(
            "handoff_edge_journal_age_seconds", "Age of the oldest of them", registry=registry
        )
        self.journal_bytes = Gauge(
            "handoff_edge_journal_bytes", "Bytes that the journal holds", registry=registry
        )
        self.unforwarded = Gauge(
            "handoff_edge_journal_unforwarded",
            "Events in the journal that the log has not acknowledged",
            registry=registry,
        )
        self.forwarded = Counter(
            "handoff_edge_journal_forwarded",
            "Events that the log has acknowledged",
            registry=registry,
        )
        self.clock_skew = Gauge(
            "handoff_edge_clock_skew_seconds",
            "This edge's clock ahead of the log's, at the last acknowledgement",
            registry=registry,
        )
        self.unreadable = Gauge(
            "handoff_edge_journal_unreadable",
            "Held records that recovery could not read",
            registry=registry,
        )
        self.recovered = Counter(
            "handoff_edge_connections_recovered",
            "Connections of a former process that were closed at start",
            registry=registry,
        )
        self.relay_buffer = Gauge(
            "handoff_edge_relay_buffer_bytes",
            "Bytes that wait in the relay for a peer to take them",
            registry=registry,
        )
        self.certificate_ends = Gauge(
            "handoff_edge_certificate_not_after_seconds",
            "When the first served certificate ends, in seconds since 1970; 0: none is served",
            registry=registry,
        )
        self.certificates_unusable = Gauge(
            "handoff_edge_certificates_unusable",
            "1 while the folder of certificates cannot be used, and what it held before is served",
            registry=registry,
        )
        self.rulebook_age = Gauge(
            "handoff_edge_rulebook_age_seconds",
            "Since the rule book was last known to be current",
            registry=registry,
        )
        self._refused: dict[str, Counter] = {}
        self._closed: dict[tuple[str, int | None], Counter] = {}
        self.directions = tuple(self.bytes.labels(direction) for direction in DIRECTIONS)

    def count_refused(self, code: str) -> None:
        counter = self._refused.get(code)
        if counter is None:
            counter = self._refused[code] = self.refused.labels(code)
        counter.inc()

    def count_closed(self, reason: str, code: int | None) -> None:
        if code is not None and not 1000 <= code <= 1015:
            code = 0
        counter = self._closed.get((reason, code))
        if counter is None:
            counter = self.closed.labels(reason, code_label(code))
            self._closed[reason, code] = counter
        counter.inc()
