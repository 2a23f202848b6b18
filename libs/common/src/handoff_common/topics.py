"""The topics: what each holds, its key, who writes and reads it, and how it is kept.

Partition counts are fixed at creation. `delete` topics are kept for ever (`retention.ms=-1`); in a
`compact` topic the last record of each key stays.
"""

from dataclasses import dataclass
from typing import Any, Literal

from handoff_common import events


@dataclass(frozen=True, slots=True)
class Topic:
    """`events` is the union that its records decode to."""

    name: str
    key: str
    cleanup: Literal["delete", "compact"]
    events: Any
    written_by: tuple[str, ...]
    read_by: tuple[str, ...]


CONNECTIONS = Topic(
    "handoff.connections.v1",
    "connection id",
    "delete",
    events.ConnectionEvent | events.ParkedDecision,
    ("edge", "metering's orphan closer"),
    ("metering",),
)
EDGES = Topic(
    "handoff.edges.v1",
    "edge id, tick/<partition>, or refusals/<edge id>/<start>/<hour>/<part>",
    "compact",
    events.EdgeEvent,
    ("edge", "metering's orphan closer"),
    ("metering",),
)
SERVICES = Topic(
    "handoff.services.v1",
    "service id",
    "compact",
    events.ServiceSnapshot,
    ("config",),
    ("edge", "metering", "billing"),
)
CUSTOMERS = Topic(
    "handoff.customers.v1",
    "customer id",
    "compact",
    events.CustomerSnapshot,
    ("config",),
    ("edge", "billing"),
)
ACCESS = Topic(
    "handoff.access.v1",
    "token id",
    "compact",
    events.AccessSnapshot,
    ("config",),
    ("config", "metering", "billing"),
)
CONTROLS = Topic(
    "handoff.controls.v1",
    "customer/<id> or connection/<id>",
    "compact",
    events.Control,
    ("metering", "billing"),
    ("edge",),
)
USAGE = Topic(
    "handoff.usage.v1",
    "<customer>/<service>/<region>/<hour>/<slice>, or progress/<slice>/<partition>",
    "compact",
    events.UsageEvent,
    ("metering",),
    ("billing",),
)
DELIVERY = Topic(
    "handoff.delivery.v1",
    "<customer>/<region>/<hour>/<source>",
    "compact",
    events.DeliveryUsage,
    ("billing's ingest API",),
    ("billing",),
)
INVOICES = Topic(
    "handoff.invoices.v1",
    "customer id",
    "delete",
    events.InvoiceFinalized,
    ("billing",),
    ("other teams", "verify-invoice"),
)

# In the embedded log a topic's number is its place in this list: append, never insert.
TOPICS: dict[str, Topic] = {
    topic.name: topic
    for topic in (
        CONNECTIONS,
        EDGES,
        SERVICES,
        CUSTOMERS,
        ACCESS,
        CONTROLS,
        USAGE,
        DELIVERY,
        INVOICES,
    )
}

PARTITIONS = 24
PARTITIONS_EMBEDDED = 4
