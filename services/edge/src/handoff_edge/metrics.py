"""What the edge measures. One set per edge, on a registry of its own."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Labels are bounded: codes, reasons and directions come from fixed tables."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
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
        self.closed = Counter(
            "handoff_edge_connections_closed",
            "Connections closed, by reason",
            ["reason"],
            registry=registry,
        )
        self.bytes = Counter(
            "handoff_edge_body_bytes",
            "Bytes relayed by ended connections and checkpoints, by direction",
            ["direction"],
            registry=registry,
        )
        self.handshake_seconds = Histogram(
            "handoff_edge_handshake_seconds",
            "From the whole head to the 101 at the client",
            buckets=_SECONDS,
            registry=registry,
        )
        self.append_seconds = Histogram(
            "handoff_edge_journal_append_seconds",
            "Durable append of an accepted event",
            buckets=_SECONDS,
            registry=registry,
        )
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
        self.rulebook_age = Gauge(
            "handoff_edge_rulebook_age_seconds",
            "Since the rule book was last known to be current",
            registry=registry,
        )
