"""The tables of metering. All but `outbox` and `leases` can be dropped and rebuilt from the log.

Instants are columns named `*_ms`: BigInteger, milliseconds since the Unix epoch, UTC. A slice is a
partition of `handoff.connections.v1`: one worker writes the rows of a slice at a time.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    desc,
    false,
)

from handoff_common.database import NAMING, projection_tables
from handoff_common.events import COUNTER_NAMES
from handoff_common.outbox import outbox_table

metadata = MetaData(naming_convention=NAMING)


# Ids sort by the time they were made only as bytes.
_IDENTIFIER = String(64).with_variant(String(64, collation="C"), "postgresql")


def _counters() -> list[Column[int]]:
    return [Column(name, BigInteger, nullable=False) for name in COUNTER_NAMES]


# The last state of each connection (`usage.ConnectionState`). `reason` is NULL while it is open.
# `next_minute_ms` is when its first unbilled minute starts, NULL when it is closed, so that what is
# due is found without looking at the rest.
#
# On Postgres it is partitioned by the month of the id: docs/adr/0012-postgres.md.
connections = Table(
    "connections",
    metadata,
    Column("connection_id", _IDENTIFIER, primary_key=True),
    Column("slice", Integer, nullable=False),
    Column("customer_id", String(64), nullable=False),
    Column("service_id", String(64), nullable=False),
    Column("region", String(32), nullable=False),
    Column("pop", String(32), nullable=False),
    Column("edge_id", String(64), nullable=False),
    Column("accepted_ms", BigInteger, nullable=False),
    Column("elapsed_ms", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),
    *_counters(),
    Column("minutes", BigInteger, nullable=False),
    Column("next_minute_ms", BigInteger),
    Column("bytes_hour_ms", BigInteger),
    Column("reason", String(32)),
    Column("closed_by", String(16)),
    Column("close_code", Integer),
    Column("end_elapsed_ms", BigInteger),
    Column("ended_ms", BigInteger),
    Column("domain", Text),
    Column("rule", Text),
    Column("backend", Text),
    Column("service_version", BigInteger),
    Column("subprotocol", Text),
    Column("tls", Boolean),
    Column("client_network", Text),
    Column("last_offset", BigInteger, nullable=False),
    postgresql_partition_by="RANGE (connection_id)",
)
Index(
    "ix_connections_due",
    connections.c.slice,
    connections.c.edge_id,
    connections.c.next_minute_ms,
    sqlite_where=connections.c.next_minute_ms.is_not(None),
    postgresql_where=connections.c.next_minute_ms.is_not(None),
)
Index(
    "ix_connections_customer",
    connections.c.customer_id,
    desc(connections.c.accepted_ms),
    desc(connections.c.connection_id),
)
Index(
    "ix_connections_service",
    connections.c.service_id,
    desc(connections.c.accepted_ms),
    desc(connections.c.connection_id),
)
# What ended in a time, whenever it began: `store.reports.instants`.
Index(
    "ix_connections_ended",
    connections.c.service_id,
    connections.c.ended_ms,
    sqlite_where=connections.c.ended_ms.is_not(None),
    postgresql_where=connections.c.ended_ms.is_not(None),
)

# Every event of every connection, as folded: what it said, and what it added to the bill. `added`
# is NULL when no byte was added; `effect` is `counted` or `stale`. Counters are JSON arrays in the
# order of COUNTER_NAMES: they are shown, never summed by the database.
connection_events = Table(
    "connection_events",
    metadata,
    Column("connection_id", _IDENTIFIER, primary_key=True),
    Column("slice", Integer, primary_key=True, autoincrement=False),
    Column("offset", BigInteger, primary_key=True, autoincrement=False),
    Column("service_id", String(64), nullable=False),
    Column("region", String(32), nullable=False),
    Column("event_id", String(160), nullable=False),
    Column("type", String(16), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("elapsed_ms", BigInteger, nullable=False),
    Column("counters", Text, nullable=False),
    Column("added", Text),
    Column("effect", String(8), nullable=False),
    sqlite_with_rowid=False,
    postgresql_partition_by="RANGE (connection_id)",
)
Index("ix_connection_events_time", connection_events.c.service_id, connection_events.c.time_ms)

# Totals per customer, service, region, UTC hour and slice. `revision` is the slice's at the last
# change.
usage = Table(
    "usage",
    metadata,
    Column("customer_id", String(64), primary_key=True),
    Column("service_id", String(64), primary_key=True),
    Column("region", String(32), primary_key=True),
    Column("hour_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("slice", Integer, primary_key=True, autoincrement=False),
    Column("minutes", BigInteger, nullable=False),
    *_counters(),
    Column("opened", BigInteger, nullable=False),
    Column("closed", BigInteger, nullable=False),
    Column("lost", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
)
Index("ix_usage_service", usage.c.service_id, usage.c.hour_ms)
Index("ix_usage_customer", usage.c.customer_id, usage.c.hour_ms)

# Bookkeeping of what a slice has published: docs/adr/0009-usage-row-versions.md. `rebuilding` is
# set from the drop of its tables until they are whole again; `unpublished` until all its rows have
# been published at once, so that no reader sees a generation that has not caught up.
slices = Table(
    "slices",
    metadata,
    Column("slice", Integer, primary_key=True, autoincrement=False),
    Column("generation", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("rebuilding", Boolean, nullable=False),
    Column("unpublished", Boolean, nullable=False, server_default=false()),
)

# What each edge's events have said so far, to stand beside the totals in its watermarks.
edge_totals = Table(
    "edge_totals",
    metadata,
    Column("slice", Integer, primary_key=True, autoincrement=False),
    Column("edge_id", String(64), primary_key=True),
    Column("accepted", BigInteger, nullable=False),
    Column("closed", BigInteger, nullable=False),
)

# Who may do what only one may do (`ticks`: own the orphan closer), until when.
leases = Table(
    "leases",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("holder", String(64), nullable=False),
    Column("until_ms", BigInteger, nullable=False),
)

# Handshakes that each process of an edge (`started_ms`: when it began) has refused, by UTC hour.
# The greatest count that it told stands; readers sum. Where no service was asked for, `service_id`
# and `customer_id` are empty.
refusals = Table(
    "refusals",
    metadata,
    Column("edge_id", String(64), primary_key=True),
    Column("started_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("hour_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("service_id", String(64), primary_key=True),
    Column("cause", String(64), primary_key=True),
    Column("customer_id", String(64), nullable=False),
    Column("refused", BigInteger, nullable=False),
)
Index("ix_refusals_hour", refusals.c.hour_ms)
Index("ix_refusals_customer", refusals.c.customer_id, refusals.c.hour_ms)

positions, parked = projection_tables(metadata)

# What was decided about records of `handoff.connections.v1` that had been parked, as the log says.
parked_decisions = Table(
    "parked_decisions",
    metadata,
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("offset", BigInteger, primary_key=True, autoincrement=False),
    Column("decision", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("decided_by", Text, nullable=False),
    Column("decided_ms", BigInteger, nullable=False),
    Column("event_id", Text, nullable=False),
)
outbox = outbox_table(metadata)

PROJECTED = (
    connections,
    connection_events,
    usage,
    edge_totals,
    refusals,
    positions,
    parked,
    parked_decisions,
)
"""What a rebuild drops and makes again."""
