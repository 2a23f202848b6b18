"""What was decided about parked records, and which slices have yet to publish what they hold.

Both are added beside what is there: the previous release goes on without knowing of them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "parked_decisions",
        sa.Column("partition", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("offset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("decision", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("decided_by", sa.Text(), nullable=False),
        sa.Column("decided_ms", sa.BigInteger(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("partition", "offset", name=op.f("pk_parked_decisions")),
    )
    with op.batch_alter_table("slices") as slices:
        slices.add_column(
            sa.Column("unpublished", sa.Boolean(), nullable=False, server_default=sa.false())
        )


def downgrade() -> None:
    with op.batch_alter_table("slices") as slices:
        slices.drop_column("unpublished")
    op.drop_table("parked_decisions")
