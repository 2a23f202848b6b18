"""One place that gives a test its databases: SQLite files, or databases on a real Postgres.

A test's data folder names them: `await database_url(tmp_path, "metering")` is the same database
each time within one test, and a fresh one in the next. A folder of tests whose `conftest.py`
imports the fixture `engine` runs every test on each engine; what was made is dropped at its end.
"""

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, Literal

import pytest

from support import originals
from support.parts.postgres import Address

Engine = Literal["sqlite", "postgres"]
ENGINES: Final[tuple[Engine, ...]] = ("sqlite", "postgres")
_on_postgres: dict[Path, Address] = {}
_made: dict[Path, list[str]] = {}


@pytest.fixture(params=ENGINES, autouse=True)
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Engine]:
    """On which engine the databases of this test are."""
    on: Engine = request.param
    if on == "postgres":
        use_postgres(tmp_path, request.getfixturevalue("postgres_shared"))
    try:
        yield on
    finally:
        await drop_databases(tmp_path)
        _on_postgres.pop(tmp_path, None)


def use_postgres(folder: Path, server: Address) -> None:
    """From now on the folder's databases are on this server."""
    _on_postgres[folder] = server


async def database_url(folder: Path, name: str) -> str:
    """SQLAlchemy URL of the folder's database of this name, which is made where there is none: for
    a service by its name with its tables, for any other name empty."""
    package = originals.PACKAGES.get(name.partition("_")[0])
    at = _on_postgres.get(folder)
    if at is None:
        file = folder / f"{name}.db"
        if package is not None:
            await originals.copy_file(package, file)
        return f"sqlite+aiosqlite:///{file}"
    unique = f"{name}_{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}_{os.getpid()}"
    made = _made.setdefault(folder, [])
    if unique not in made:
        if package is None:
            await at.create_database(unique)
        else:
            await originals.copy_database(at, package, unique)
        made.append(unique)
    return at.url(unique)


async def drop_databases(folder: Path) -> None:
    """The folder's databases are gone, as when a disk is lost. Nothing may be connected that should
    go on."""
    for file in folder.glob("*.db*"):
        if not file.name.startswith("log.db"):
            file.unlink()
    for name in _made.pop(folder, []):
        await _on_postgres[folder].drop_database(name)
