"""Connections and their events by month of the connection's id, on Postgres.

The key of an event begins with its connection on both engines. Rows are copied; on Postgres they
lie in the partition for what belongs to no month until the months' partitions are made, which takes
them over.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_CONNECTION_INDEXES = (
    "CREATE INDEX ix_connections_due ON connections (slice, edge_id, next_minute_ms) "
    "WHERE next_minute_ms IS NOT NULL",
    "CREATE INDEX ix_connections_customer ON connections "
    "(customer_id, accepted_ms DESC, connection_id DESC)",
    "CREATE INDEX ix_connections_service ON connections "
    "(service_id, accepted_ms DESC, connection_id DESC)",
)
_BY_TIME = "CREATE INDEX ix_connection_events_time ON connection_events (service_id, time_ms)"
_BY_CONNECTION = (
    "CREATE INDEX ix_connection_events_connection ON connection_events "
    '(connection_id, slice, "offset")'
)
_NEW_KEY = '(connection_id, slice, "offset")'
_OLD_KEY = '(slice, "offset")'


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        _events_on_sqlite(["connection_id", "slice", "offset"])
        op.execute(_BY_TIME)
        return
    for table, key in (("connections", "(connection_id)"), ("connection_events", _NEW_KEY)):
        op.execute(f'ALTER TABLE {table} ALTER COLUMN connection_id TYPE VARCHAR(64) COLLATE "C"')
        op.execute(f"ALTER TABLE {table} RENAME TO {table}_before")
        # Without its key and its indexes, whose names the new table takes.
        op.execute(f"CREATE TABLE {table} (LIKE {table}_before) PARTITION BY RANGE (connection_id)")
        op.execute(f"CREATE TABLE {table}_rest PARTITION OF {table} DEFAULT")
        op.execute(f"INSERT INTO {table} SELECT * FROM {table}_before")  # noqa: S608
        op.execute(f"DROP TABLE {table}_before")
        op.execute(f"ALTER TABLE {table} ADD CONSTRAINT pk_{table} PRIMARY KEY {key}")
    for statement in (*_CONNECTION_INDEXES, _BY_TIME):
        op.execute(statement)


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        _events_on_sqlite(["slice", "offset"])
        op.execute(_BY_TIME)
        op.execute(_BY_CONNECTION)
        return
    for table, key in (("connections", "(connection_id)"), ("connection_events", _OLD_KEY)):
        op.execute(f"ALTER TABLE {table} RENAME TO {table}_before")
        op.execute(f"CREATE TABLE {table} (LIKE {table}_before)")
        op.execute(f"INSERT INTO {table} SELECT * FROM {table}_before")  # noqa: S608
        op.execute(f"DROP TABLE {table}_before")
        op.execute(f"ALTER TABLE {table} ALTER COLUMN connection_id TYPE VARCHAR(64)")
        op.execute(f"ALTER TABLE {table} ADD CONSTRAINT pk_{table} PRIMARY KEY {key}")
    for statement in (*_CONNECTION_INDEXES, _BY_TIME, _BY_CONNECTION):
        op.execute(statement)


def _events_on_sqlite(key: list[str]) -> None:
    """The table once more, with another key; SQLite cannot change one."""
    op.execute("ALTER TABLE connection_events RENAME TO connection_events_before")
    for index in ("ix_connection_events_time", "ix_connection_events_connection"):
        op.execute(f"DROP INDEX IF EXISTS {index}")
    columns: list[sa.Column[Any]] = [
        sa.Column("connection_id", sa.String(length=64), nullable=False),
        sa.Column("slice", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("service_id", sa.String(length=64), nullable=False),
        sa.Column("region", sa.String(length=32), nullable=False),
        sa.Column("event_id", sa.String(length=160), nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("time_ms", sa.BigInteger(), nullable=False),
        sa.Column("elapsed_ms", sa.BigInteger(), nullable=False),
        sa.Column("counters", sa.Text(), nullable=False),
        sa.Column("added", sa.Text(), nullable=True),
        sa.Column("effect", sa.String(length=8), nullable=False),
    ]
    op.create_table(
        "connection_events",
        *columns,
        sa.PrimaryKeyConstraint(*key, name=op.f("pk_connection_events")),
        sqlite_with_rowid=False,
    )
    names = ", ".join(f'"{column.name}"' for column in columns)
    op.execute(
        f"INSERT INTO connection_events ({names}) "  # noqa: S608
        f"SELECT {names} FROM connection_events_before"
    )
    op.execute("DROP TABLE connection_events_before")
