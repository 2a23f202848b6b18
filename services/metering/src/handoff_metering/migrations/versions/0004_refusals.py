"""What edges have refused, by hour.

Added beside what is there: the previous release goes on without knowing of it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "refusals",
        sa.Column("edge_id", sa.String(length=64), nullable=False),
        sa.Column("started_ms", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hour_ms", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("service_id", sa.String(length=64), nullable=False),
        sa.Column("cause", sa.String(length=64), nullable=False),
        sa.Column("customer_id", sa.String(length=64), nullable=False),
        sa.Column("refused", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "edge_id", "started_ms", "hour_ms", "service_id", "cause", name=op.f("pk_refusals")
        ),
    )
    op.create_index("ix_refusals_hour", "refusals", ["hour_ms"])
    op.create_index("ix_refusals_customer", "refusals", ["customer_id", "hour_ms"])


def downgrade() -> None:
    op.drop_table("refusals")
