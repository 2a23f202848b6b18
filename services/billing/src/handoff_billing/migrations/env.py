"""Alembic's entry: runs on the connection that `database.migrate` hands over."""

from handoff_billing.tables import metadata
from handoff_common.database import run_migrations

run_migrations(metadata)
