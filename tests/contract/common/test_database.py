"""What `Database` promises of the file when tasks are cancelled in the middle of their work."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from handoff_common.database import Database

LONG = (
    "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n LIMIT 1"
)


async def test_a_cancelled_transaction_lets_go_of_the_file(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}")
    async with database.transaction() as tx:
        await tx.execute(text("CREATE TABLE t (a INTEGER)"))
        await tx.execute(text("INSERT INTO t VALUES (1), (2), (3)"))
    kept: list[Any] = []
    inside = asyncio.Event()

    async def work() -> None:
        async with database.transaction() as tx:
            await tx.execute(text("INSERT INTO t VALUES (4)"))
            driver: Any = (await tx.get_raw_connection()).driver_connection
            # A cursor that is not at its end, and that somebody keeps: a traceback does.
            cursor = await driver.execute("SELECT a FROM t")
            await cursor.fetchone()
            kept.append(cursor)
            inside.set()
            await tx.execute(text("SELECT 1"))
            driver._conn.set_progress_handler(lambda: stop.is_set(), 1_000)
            await tx.execute(text(LONG))

    stop = asyncio.Event()
    task = asyncio.create_task(work())
    await inside.wait()
    asyncio.get_running_loop().call_later(0.1, task.cancel)
    asyncio.get_running_loop().call_later(0.3, stop.set)
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(10), database.transaction() as tx:
        await tx.execute(text("INSERT INTO t VALUES (5)"))
    async with database.read() as tx:
        assert (await tx.scalars(text("SELECT a FROM t ORDER BY a"))).all() == [1, 2, 3, 5]
    assert kept
    await database.close()
