"""Databases with a service's newest tables and nothing in them, to be copied.

To migrate takes ten times as long as to copy what has been migrated, and each test of a service has
a database of its own. The migrations themselves have tests, on databases that are empty.
"""

import asyncio
import shutil
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Final

import asyncpg

from handoff_common.database import Database, migrate
from support.parts.postgres import Address

PACKAGES: Final = {
    "billing": "handoff_billing",
    "config": "handoff_config",
    "metering": "handoff_metering",
}
"""By the first word of a database's name."""

_files: dict[str, Path] = {}
_databases: dict[tuple[Address, str], str] = {}


async def copy_file(package: str, target: Path) -> None:
    """A migrated SQLite file, where there is none yet."""
    if target.exists():
        return
    if package not in _files:
        made = Path(tempfile.mkdtemp(prefix="handoff-original-")) / "original.db"
        await _migrated(f"sqlite+aiosqlite:///{made}", package)
        _files[package] = made
    shutil.copyfile(_files[package], target)


async def copy_database(at: Address, package: str, name: str) -> None:
    """A migrated database of this name on the server."""
    if (at, package) not in _databases:
        made = f"original_{uuid.uuid4().hex}"
        await at.create_database(made)
        await _migrated(at.url(made), package)
        _databases[at, package] = made
    await at.create_database(name, template=_databases[at, package])


def remove() -> None:
    """At the end of a process's tests. A server that is gone has taken its own along."""
    for file in _files.values():
        shutil.rmtree(file.parent, ignore_errors=True)
    _files.clear()
    asyncio.run(_drop())


async def _drop() -> None:
    for (at, _), name in _databases.items():
        with suppress(OSError, TimeoutError, asyncpg.PostgresError):
            await at.drop_database(name)
    _databases.clear()


async def _migrated(url: str, package: str) -> None:
    database = Database(url)
    try:
        await migrate(database, package)
    finally:
        await database.close()
