"""Migrations beside each other and beside a release that holds locks."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from handoff_common.database import Database, Limits, lock_name, migrate
from handoff_common.errors import DatabaseAway
from support.databases import database_url, drop_databases, use_postgres
from support.parts.postgres import Address

PACKAGES = ("handoff_billing", "handoff_config", "handoff_metering")


@pytest.fixture
async def url(tmp_path: Path, postgres_shared: Address) -> AsyncIterator[str]:
    use_postgres(tmp_path, postgres_shared)
    yield await database_url(tmp_path, "service")
    await drop_databases(tmp_path)


@pytest.mark.parametrize("package", PACKAGES)
async def test_replicas_that_start_at_once_migrate_one_after_another(
    url: str, package: str
) -> None:
    replicas = [Database(url) for _ in range(4)]
    await asyncio.gather(*(migrate(database, package) for database in replicas))
    for database in replicas:
        await database.close()


async def test_a_migration_gives_up_rather_than_wait_and_can_be_run_again(url: str) -> None:
    other = Database(url)
    hasty = Database(url, limits=Limits(lock=0.05))
    async with other.transaction() as tx:
        await lock_name(tx, "migrate handoff_config")
        with pytest.raises(DatabaseAway, match="lock timeout"):
            await migrate(hasty, "handoff_config", attempts=2)
    await migrate(hasty, "handoff_config")
    await hasty.close()
    await other.close()
