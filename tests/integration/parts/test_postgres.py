"""The server that tests use is real, and a kill -9 takes nothing from it that it committed."""

import asyncio
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from support.parts.postgres import Address, Database, PostgresServer, children
from support.parts.processes import alive
from support.parts.proxy import Proxy
from support.parts.waiting import eventually

# What asyncpg raises when its server goes away: InternalClientError too, where the loss is noticed
# between two statements.
LOST = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
pytestmark = [pytest.mark.timeout(120), pytest.mark.xdist_group("postgres")]


async def test_each_test_has_a_database_of_its_own(database_url: str) -> None:
    engine = create_async_engine(database_url)
    try:
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE t (n int)"))
            await connection.execute(text("INSERT INTO t VALUES (1)"))
            assert (await connection.execute(text("SELECT n FROM t"))).scalar_one() == 1
    finally:
        await engine.dispose()


async def test_a_database_is_dropped_under_its_users(postgres_shared: Address) -> None:
    await postgres_shared.create_database("short_lived")
    connection = await asyncpg.connect(postgres_shared.dsn("short_lived"))
    await postgres_shared.drop_database("short_lived")
    with pytest.raises(LOST):
        await connection.execute("SELECT 1")
    connection.terminate()


async def test_a_kill_takes_no_committed_row(postgres: Database) -> None:
    await postgres.create_database("rows")
    dsn = postgres.address.dsn("rows")
    connection = await asyncpg.connect(dsn)
    assert await connection.fetchval("SHOW fsync") == "on"
    await connection.execute("CREATE TABLE t (n int PRIMARY KEY)")
    committed: list[int] = []

    async def write() -> None:
        while True:
            await connection.execute("INSERT INTO t VALUES ($1)", len(committed))
            committed.append(len(committed))

    writing = asyncio.create_task(write())

    async def some() -> bool | None:
        assert not writing.done()
        return len(committed) >= 100 or None

    await eventually(some, "rows are committed")
    await postgres.kill()
    with pytest.raises(LOST):
        await writing
    connection.terminate()
    await postgres.restart()
    connection = await asyncpg.connect(dsn)
    found = [row["n"] for row in await connection.fetch("SELECT n FROM t ORDER BY n")]
    await connection.close()
    # The last commit may have been done without its answer.
    assert found[: len(committed)] == committed
    assert len(found) <= len(committed) + 1


async def test_a_killed_server_leaves_no_process_and_no_folder() -> None:
    server = PostgresServer()
    async with server:
        family = [server.pid, *children(server.pid)]
        assert len(family) > 3
        folder = server.folder
        await server.kill()
        assert not [pid for pid in family if alive(pid)]
    assert isinstance(folder, Path)
    assert not folder.exists()


async def test_an_orderly_stop_and_start(postgres: Database) -> None:
    await postgres.create_database("kept")
    assert await postgres.stop() == 0
    await postgres.restart()
    await postgres.address.execute("SELECT 1", "kept")


async def test_through_a_proxy(postgres_shared: Address) -> None:
    async with Proxy(postgres_shared.port) as proxy:
        engine = create_async_engine(postgres_shared.url(port=proxy.port), pool_pre_ping=True)
        try:
            async with engine.connect() as connection:
                assert (await connection.execute(text("SELECT 1"))).scalar_one() == 1
            await proxy.cut()
            with pytest.raises(OSError):
                async with engine.connect():
                    pass
            proxy.restore()
            async with engine.connect() as connection:
                assert (await connection.execute(text("SELECT 1"))).scalar_one() == 1
        finally:
            await engine.dispose()


@pytest.mark.parametrize("name", ["Upper", "a-b", "1st", 'quo"te', ""])
async def test_a_name_that_would_need_quoting_is_refused(
    postgres_shared: Address, name: str
) -> None:
    with pytest.raises(ValueError, match="lower-case"):
        await postgres_shared.create_database(name)


def test_an_address_with_odd_characters_comes_back_whole() -> None:
    address = Address("127.0.0.1", 5433, "us/er", "p@ss:/word")
    assert Address.parse(address.url("x")) == address
    with pytest.raises(ValueError, match="is not postgresql"):
        Address.parse("mysql://127.0.0.1/")
