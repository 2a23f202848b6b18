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

import asyncpg
import pytest
from sqlalchemy.engine import make_url

Engine = Literal["sqlite", "postgres"]
ENGINES: Final[tuple[Engine, ...]] = ("sqlite", "postgres")
_on_postgres: dict[Path, str] = {}
_made: dict[Path, list[str]] = {}


def server() -> str:
    """URL of the Postgres that the tests use, as a superuser: `HANDOFF_TEST_POSTGRES`."""
    url = os.environ.get("HANDOFF_TEST_POSTGRES", "")
    if not url:
        raise RuntimeError(
            "tests on Postgres need a server: set HANDOFF_TEST_POSTGRES=postgresql://user@host:port/"
        )
    return url


@pytest.fixture(params=ENGINES, autouse=True)
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Engine]:
    """On which engine the databases of this test are."""
    on: Engine = request.param
    if on == "postgres":
        _on_postgres[tmp_path] = server()
    try:
        yield on
    finally:
        await drop_databases(tmp_path)
        _on_postgres.pop(tmp_path, None)


async def database_url(folder: Path, name: str) -> str:
    """SQLAlchemy URL of the folder's database of this name, which is made where there is none."""
    at = _on_postgres.get(folder)
    if at is None:
        return f"sqlite+aiosqlite:///{folder / name}.db"
    unique = f"{name}_{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}_{os.getpid()}"
    made = _made.setdefault(folder, [])
    if unique not in made:
        await _run(at, f'CREATE DATABASE "{unique}"')
        made.append(unique)
    url = make_url(at).set(drivername="postgresql+asyncpg", database=unique)
    return url.render_as_string(hide_password=False)


async def drop_databases(folder: Path) -> None:
    """The folder's databases are gone, as when a disk is lost. Nothing may be connected that should
    go on."""
    for file in folder.glob("*.db*"):
        if not file.name.startswith("log.db"):
            file.unlink()
    for name in _made.pop(folder, []):
        await _run(_on_postgres[folder], f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


async def _run(url: str, statement: str) -> None:
    plain = make_url(url).set(drivername="postgresql", database="postgres")
    connection = await asyncpg.connect(plain.render_as_string(hide_password=False), timeout=10)
    try:
        await connection.execute(statement)
    finally:
        await connection.close(timeout=10)
