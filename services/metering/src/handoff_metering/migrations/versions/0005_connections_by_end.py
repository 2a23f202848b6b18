"""Connections found by when they ended: how many were open at once is told from what began and what
ended in a time, without a look at all that began before.

Rows and columns stay as they are: the previous release goes on without knowing of the index.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "CREATE INDEX ix_connections_ended ON connections (service_id, ended_ms) "
        "WHERE ended_ms IS NOT NULL"
    )


def downgrade() -> None:
    op.execute("DROP INDEX ix_connections_ended")
