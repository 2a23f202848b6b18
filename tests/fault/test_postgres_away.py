"""Postgres is killed under running services: nothing is lost or billed twice, no process ends.

The server is a real one of this test's own, durable, killed with SIGKILL and restarted on its data.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, Table
from sqlalchemy.ext.asyncio import AsyncConnection

from handoff_common.bulk import copy
from handoff_common.database import Database, Limits
from handoff_common.errors import DatabaseAway
from handoff_common.minutes import HOUR_MS
from support.databases import drop_databases, use_postgres
from support.metering_edge import Edge, carried
from support.metering_system import MONTH_END, System, system, until
from support.parts.postgres import Database as Server
from support.parts.proxy import Proxy
from support.parts.waiting import eventually

pytestmark = [pytest.mark.timeout(180), pytest.mark.xdist_group("fault-postgres")]
HOUR = MONTH_END - HOUR_MS
QUICK = Limits(pool=4, acquire=5, connect=2, statement=5, lock=3, idle=10)


async def exact(s: System, through_ms: int) -> None:
    """Wait until stored and published rows are what the log says."""
    expected = await s.expected(through_ms)

    async def is_so() -> bool:
        return await s.usage() == expected and await s.published() == expected

    await until(is_so, "stored and published rows are what the log says", seconds=60)


async def test_a_projection_goes_on_where_it_was_through_kills_of_the_server(
    tmp_path: Path, postgres: Server
) -> None:
    use_postgres(tmp_path, postgres.address)
    async with system(tmp_path, metering_batch=7) as s:
        edge = Edge(s.log)
        async with s.metering() as service:

            async def says_so() -> bool:
                return any("database is away" in reason for reason in service.not_ready())

            async def is_ready() -> bool:
                return not service.not_ready()

            through = HOUR
            for round_ in range(4):
                scripts = [
                    edge.script(HOUR + n, f"c-{round_}-{n}", service_id=f"s-{n % 3}")
                    for n in range(40)
                ]
                await edge.append(*(script.accepted() for script in scripts))
                await postgres.kill()
                await edge.append(*(script.bytes(61_000, carried(3)) for script in scripts))
                through = HOUR + (round_ + 2) * 60_000
                await edge.vouch(through)
                await until(says_so, "it says that the database is away")
                await postgres.restart()
                await edge.append(*(script.closed(90_000, carried(5)) for script in scripts[::2]))
                await edge.vouch(through + 1_000)

            await exact(s, through + 1_000)
            await until(is_ready, "it is ready again")
        assert (await s.total()).opened == 160
    await drop_databases(tmp_path)


async def test_an_api_answers_503_while_the_server_is_away(
    tmp_path: Path, postgres: Server
) -> None:
    use_postgres(tmp_path, postgres.address)
    async with system(tmp_path) as s:
        token = await s.token("operator")
        async with s.metering(), s.client(token) as client:

            async def answers() -> bool:
                return (await client.get("/v1/usage")).status_code == 200

            await until(answers, "usage can be read")
            await postgres.kill()
            refused = await client.get("/v1/usage")
            assert refused.status_code == 503
            assert refused.headers["retry-after"] == "5"
            assert refused.headers["content-type"] == "application/problem+json"
            assert refused.json()["type"] == "urn:handoff:error:database_away"
            await postgres.restart()
            await until(answers, "usage can be read again")
    await drop_databases(tmp_path)


async def test_every_way_of_being_away_is_one_error(postgres: Server) -> None:
    await postgres.create_database("ways")
    url = postgres.url("ways")
    database = Database(url, limits=Limits(pool=2, acquire=0.2, connect=2, statement=0.2, lock=0.1))
    other = Database(url, limits=QUICK)
    async with other.transaction() as tx:
        await tx.exec_driver_sql("CREATE TABLE t (n int)")

    async def ask(statement: str) -> None:
        async with database.transaction() as tx:
            await tx.exec_driver_sql(statement)

    with pytest.raises(DatabaseAway, match="statement timeout"):
        await ask("SELECT pg_sleep(5)")
    async with other.transaction() as tx:
        await tx.exec_driver_sql("LOCK TABLE t")
        with pytest.raises(DatabaseAway, match="lock timeout"):
            await ask("SELECT * FROM t")
    with pytest.raises(DatabaseAway, match="terminating connection"):
        await ask("SELECT pg_terminate_backend(pg_backend_pid())")
    async with database.transaction(), database.transaction():
        with pytest.raises(DatabaseAway, match="QueuePool limit"):
            await ask("SELECT 1")
    await ask("SELECT 1")

    with pytest.raises(Exception, match="syntax error") as wrong:
        await ask("SELEC")
    assert not isinstance(wrong.value, DatabaseAway)

    await postgres.kill()
    with pytest.raises(DatabaseAway):
        await ask("SELECT 1")
    with pytest.raises(DatabaseAway, match="Refused"):
        await ask("SELECT 1")
    assert "Refused" in str(database.away)
    await postgres.restart()
    await ask("SELECT 1")
    assert (database.away, other.away) == (None, None)
    await database.close()
    await other.close()


T = Table("t", MetaData(), Column("n", Integer))


async def select(tx: AsyncConnection) -> None:
    await tx.exec_driver_sql("SELECT 1")


async def copy_in(tx: AsyncConnection) -> None:
    await copy(tx, T, ["n"], [(1,)])


async def last_word(postgres: Server, proxy: Proxy, pid: int) -> None:
    """What a server that is killed says to a connection has been read; that the connection has
    ended is not known yet. The driver takes a statement then for a second one at once."""
    proxy.hold_ends()
    before = proxy.to_client.carried
    await postgres.address.execute(f"SELECT pg_terminate_backend({pid})")

    async def said() -> bool | None:
        return proxy.to_client.carried > before or None

    await eventually(said, what="the server has said its last word", seconds=30)
    for _ in range(10):
        await asyncio.sleep(0)  # a turn of the loop, in which the driver reads it


@pytest.mark.parametrize("statement", [select, copy_in])
async def test_a_last_word_between_two_statements_is_a_server_that_is_away(
    postgres: Server, statement: Callable[[AsyncConnection], Awaitable[None]]
) -> None:
    await postgres.create_database("word")
    async with Proxy(postgres.address.port) as proxy:
        database = Database(postgres.url("word", port=proxy.port), limits=QUICK)
        async with database.transaction() as tx:
            await tx.run_sync(T.metadata.create_all)
            pid = (await tx.exec_driver_sql("SELECT pg_backend_pid()")).scalar_one()
        with pytest.raises(DatabaseAway):
            async with database.transaction() as tx:
                await statement(tx)
                await last_word(postgres, proxy, pid)
                await statement(tx)
        proxy.restore()
        for _ in range(2):
            async with database.transaction() as tx:
                await statement(tx)
                pid = (await tx.exec_driver_sql("SELECT pg_backend_pid()")).scalar_one()
            # The second time a connection in the pool: nobody need hear of that.
            await last_word(postgres, proxy, pid)
        proxy.restore()
        assert database.away is None
        await database.close()
