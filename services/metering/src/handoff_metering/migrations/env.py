"""Alembic's entry: the connection is handed in by `handoff_common.database.migrate`."""

from handoff_common.database import run_migrations
from handoff_metering.tables import metadata

run_migrations(metadata)
