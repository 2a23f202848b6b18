"""Alembic's entry: works on the connection that `handoff_common.database.migrate` hands over."""

from handoff_common.database import run_migrations
from handoff_config.tables import metadata

run_migrations(metadata)
