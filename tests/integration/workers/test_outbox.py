"""One outbox table that several processes send: each event once, in whatever order committed."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from handoff_common.database import Database, migrate
from handoff_common.log import Message
from handoff_common.log_sqlite import SqliteLog
from handoff_common.outbox import Outbox, enqueue
from handoff_common.topics import CONTROLS
from handoff_config.tables import outbox as table
from support.databases import database_url, drop_databases, use_postgres
from support.parts.postgres import Address


@pytest.fixture
async def log(tmp_path: Path, postgres_shared: Address) -> AsyncIterator[SqliteLog]:
    use_postgres(tmp_path, postgres_shared)
    opened = await SqliteLog.open(tmp_path / "log.db")
    yield opened
    await opened.close()
    await drop_databases(tmp_path)


async def test_a_smaller_id_that_is_committed_later_is_sent_too(
    tmp_path: Path, log: SqliteLog
) -> None:
    database = Database(await database_url(tmp_path, "outbox"))
    await migrate(database, "handoff_config")
    first, second = (Outbox(database, table, log) for _ in range(2))
    loops = [asyncio.create_task(outbox.run()) for outbox in (first, second)]
    async with database.transaction() as late:
        await enqueue(late, table, [(CONTROLS.name, Message("a", b"{}"))])
        async with database.transaction() as tx:
            await enqueue(tx, table, [(CONTROLS.name, Message(f"b{n}", b"{}")) for n in range(60)])
        assert await first.flushed(timeout=20) is not None
        assert await sent(log) == 60
    # Its id is smaller than the greatest one sent: it is waited for, and sent, all the same.
    assert await second.flushed(timeout=20) is not None
    assert await sent(log) == 61
    for loop in loops:
        loop.cancel()
    await asyncio.gather(*loops, return_exceptions=True)
    await database.close()


async def sent(log: SqliteLog) -> int:
    return sum(end for _, end in (await log.ends(CONTROLS.name)).values())
