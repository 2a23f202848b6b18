"""Each service's migrations make what its tables say, on both engines, and can be taken back."""

from collections.abc import AsyncIterator, Callable
from importlib.resources import files
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, MetaData, inspect

from handoff_billing import tables as billing
from handoff_common.database import Database, alembic_config, is_ours, migrate
from handoff_config import tables as config
from handoff_metering import tables as metering
from support.databases import Engine, database_url

SERVICES = {
    "handoff_billing": billing.metadata,
    "handoff_config": config.metadata,
    "handoff_metering": metering.metadata,
}


@pytest.fixture
async def database(tmp_path: Path, engine: Engine) -> AsyncIterator[Database]:
    made = Database(await database_url(tmp_path, "service"))
    yield made
    await made.close()


def differences(metadata: MetaData) -> Callable[[Connection], object]:
    def found(connection: Connection) -> object:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "include_object": is_ours}
        )
        return compare_metadata(context, metadata)

    return found


@pytest.mark.parametrize("package", SERVICES)
async def test_migrations_make_what_the_tables_say(database: Database, package: str) -> None:
    await migrate(database, package)
    await migrate(database, package)
    async with database.engine.connect() as connection:
        assert await connection.run_sync(differences(SERVICES[package])) == []


@pytest.mark.parametrize("package", SERVICES)
async def test_migrations_can_be_taken_back(database: Database, package: str) -> None:
    def down(connection: Connection) -> list[str]:
        folder = str(files(package) / "migrations")
        command.downgrade(alembic_config(folder, connection), "base")
        return inspect(connection).get_table_names()

    await migrate(database, package)
    async with database.engine.connect() as connection:
        assert await connection.run_sync(down) == ["alembic_version"]
