"""First tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "connection_events",
        sa.Column("slice", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("offset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("connection_id", sa.String(length=64), nullable=False),
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
        sa.PrimaryKeyConstraint("slice", "offset", name=op.f("pk_connection_events")),
        sqlite_with_rowid=False,
    )
    with op.batch_alter_table("connection_events", schema=None) as batch_op:
        batch_op.create_index(
            "ix_connection_events_connection", ["connection_id", "slice", "offset"], unique=False
        )
        batch_op.create_index("ix_connection_events_time", ["service_id", "time_ms"], unique=False)

    op.create_table(
        "connections",
        sa.Column("connection_id", sa.String(length=64), nullable=False),
        sa.Column("slice", sa.Integer(), nullable=False),
        sa.Column("customer_id", sa.String(length=64), nullable=False),
        sa.Column("service_id", sa.String(length=64), nullable=False),
        sa.Column("region", sa.String(length=32), nullable=False),
        sa.Column("pop", sa.String(length=32), nullable=False),
        sa.Column("edge_id", sa.String(length=64), nullable=False),
        sa.Column("accepted_ms", sa.BigInteger(), nullable=False),
        sa.Column("elapsed_ms", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("req_header_bytes", sa.BigInteger(), nullable=False),
        sa.Column("req_body_bytes", sa.BigInteger(), nullable=False),
        sa.Column("resp_header_bytes", sa.BigInteger(), nullable=False),
        sa.Column("resp_body_bytes", sa.BigInteger(), nullable=False),
        sa.Column("bereq_header_bytes", sa.BigInteger(), nullable=False),
        sa.Column("bereq_body_bytes", sa.BigInteger(), nullable=False),
        sa.Column("beresp_header_bytes", sa.BigInteger(), nullable=False),
        sa.Column("beresp_body_bytes", sa.BigInteger(), nullable=False),
        sa.Column("minutes", sa.BigInteger(), nullable=False),
        sa.Column("next_minute_ms", sa.BigInteger(), nullable=True),
        sa.Column("bytes_hour_ms", sa.BigInteger(), nullable=True),
        sa.Column("reason", sa.String(length=32), nullable=True),
        sa.Column("closed_by", sa.String(length=16), nullable=True),
        sa.Column("close_code", sa.Integer(), nullable=True),
        sa.Column("end_elapsed_ms", sa.BigInteger(), nullable=True),
        sa.Column("ended_ms", sa.BigInteger(), nullable=True),
        sa.Column("domain", sa.Text(), nullable=True),
        sa.Column("rule", sa.Text(), nullable=True),
        sa.Column("backend", sa.Text(), nullable=True),
        sa.Column("service_version", sa.BigInteger(), nullable=True),
        sa.Column("subprotocol", sa.Text(), nullable=True),
        sa.Column("tls", sa.Boolean(), nullable=True),
        sa.Column("client_network", sa.Text(), nullable=True),
        sa.Column("last_offset", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("connection_id", name=op.f("pk_connections")),
    )
    with op.batch_alter_table("connections", schema=None) as batch_op:
        batch_op.create_index(
            "ix_connections_customer",
            [
                "customer_id",
                sa.literal_column("accepted_ms DESC"),
                sa.literal_column("connection_id DESC"),
            ],
            unique=False,
        )
        batch_op.create_index(
            "ix_connections_due",
            ["slice", "edge_id", "next_minute_ms"],
            unique=False,
            sqlite_where=sa.text("next_minute_ms IS NOT NULL"),
            postgresql_where=sa.text("next_minute_ms IS NOT NULL"),
        )
        batch_op.create_index(
            "ix_connections_service",
            [
                "service_id",
                sa.literal_column("accepted_ms DESC"),
                sa.literal_column("connection_id DESC"),
            ],
            unique=False,
        )

    op.create_table(
        "edge_totals",
        sa.Column("slice", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("edge_id", sa.String(length=64), nullable=False),
        sa.Column("accepted", sa.BigInteger(), nullable=False),
        sa.Column("closed", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("slice", "edge_id", name=op.f("pk_edge_totals")),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("holder", sa.String(length=64), nullable=False),
        sa.Column("until_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "outbox",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("topic", sa.String(length=128), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=True),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "parked",
        sa.Column("topic", sa.String(length=128), nullable=False),
        sa.Column("partition", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("offset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("projection", sa.String(length=64), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("appended_ms", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("customer_id", sa.String(length=64), nullable=True),
        sa.Column("parked_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "topic", "partition", "offset", "projection", name=op.f("pk_parked")
        ),
    )
    op.create_table(
        "positions",
        sa.Column("projection", sa.String(length=64), nullable=False),
        sa.Column("topic", sa.String(length=128), nullable=False),
        sa.Column("partition", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("identity", sa.String(length=64), nullable=False),
        sa.Column("next_offset", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("projection", "topic", "partition", name=op.f("pk_positions")),
    )
    op.create_table(
        "slices",
        sa.Column("slice", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("rebuilding", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("slice", name=op.f("pk_slices")),
    )
    op.create_table(
        "usage",
        sa.Column("customer_id", sa.String(length=64), nullable=False),
        sa.Column("service_id", sa.String(length=64), nullable=False),
        sa.Column("region", sa.String(length=32), nullable=False),
        sa.Column("hour_ms", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("slice", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("minutes", sa.BigInteger(), nullable=False),
        sa.Column("req_header_bytes", sa.BigInteger(), nullable=False),
        sa.Column("req_body_bytes", sa.BigInteger(), nullable=False),
        sa.Column("resp_header_bytes", sa.BigInteger(), nullable=False),
        sa.Column("resp_body_bytes", sa.BigInteger(), nullable=False),
        sa.Column("bereq_header_bytes", sa.BigInteger(), nullable=False),
        sa.Column("bereq_body_bytes", sa.BigInteger(), nullable=False),
        sa.Column("beresp_header_bytes", sa.BigInteger(), nullable=False),
        sa.Column("beresp_body_bytes", sa.BigInteger(), nullable=False),
        sa.Column("opened", sa.BigInteger(), nullable=False),
        sa.Column("closed", sa.BigInteger(), nullable=False),
        sa.Column("lost", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "customer_id", "service_id", "region", "hour_ms", "slice", name=op.f("pk_usage")
        ),
    )
    with op.batch_alter_table("usage", schema=None) as batch_op:
        batch_op.create_index("ix_usage_customer", ["customer_id", "hour_ms"], unique=False)
        batch_op.create_index("ix_usage_service", ["service_id", "hour_ms"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("usage", schema=None) as batch_op:
        batch_op.drop_index("ix_usage_service")
        batch_op.drop_index("ix_usage_customer")

    op.drop_table("usage")
    op.drop_table("slices")
    op.drop_table("positions")
    op.drop_table("parked")
    op.drop_table("outbox")
    op.drop_table("leases")
    op.drop_table("edge_totals")
    with op.batch_alter_table("connections", schema=None) as batch_op:
        batch_op.drop_index("ix_connections_service")
        batch_op.drop_index(
            "ix_connections_due",
            sqlite_where=sa.text("next_minute_ms IS NOT NULL"),
            postgresql_where=sa.text("next_minute_ms IS NOT NULL"),
        )
        batch_op.drop_index("ix_connections_customer")

    op.drop_table("connections")
    with op.batch_alter_table("connection_events", schema=None) as batch_op:
        batch_op.drop_index("ix_connection_events_time")
        batch_op.drop_index("ix_connection_events_connection")

    op.drop_table("connection_events")
