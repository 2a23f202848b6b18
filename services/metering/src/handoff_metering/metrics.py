"""Metering's own Prometheus metrics; the projection loop and HTTP shell bring theirs."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.events = Counter(
            "handoff_metering_events",
            "Connection events folded: counted, or stale",
            ["effect"],
            registry=registry,
        )
        self.accrual = Histogram(
            "handoff_metering_accrual_seconds",
            "Time to accrue one slice's open connections",
            registry=registry,
        )
        self.accrued = Counter(
            "handoff_metering_accrued_minutes",
            "Minutes billed to open connections by watermarks",
            registry=registry,
        )
        self.parked = Gauge(
            "handoff_metering_parked",
            "Undecided parked records of a slice",
            ["slice"],
            registry=registry,
        )
        self.orphans = Gauge(
            "handoff_metering_open_orphans",
            "Open connections of lost edges, of a slice",
            ["slice"],
            registry=registry,
        )
        self.lost_edges = Gauge(
            "handoff_metering_lost_edges", "Edges given up as lost", registry=registry
        )
        self.through = Gauge(
            "handoff_metering_through_seconds",
            "Low watermark of a slice, seconds since the epoch",
            ["slice"],
            registry=registry,
        )
        self.difference = Gauge(
            "handoff_metering_reconciliation_difference",
            "Events that edges say they delivered and that were not found",
            registry=registry,
        )
