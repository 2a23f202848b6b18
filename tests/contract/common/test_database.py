"""What a transaction promises, whatever becomes of who began it."""

import asyncio
import sqlite3
from pathlib import Path

from sqlalchemy import text

from handoff_common.database import Database

ROWS = text(
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 3) SELECT x FROM c"
)


async def test_a_cancelled_transaction_leaves_no_lock(tmp_path: Path) -> None:
    """Also while somebody still looks at the exception, whose frames refer to a cursor."""
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'x'}.db")
    kept: list[object] = []
    try:
        for turns in range(60):
            begun = asyncio.Event()

            async def work(begun: asyncio.Event = begun) -> None:
                async with database.transaction() as tx:
                    while True:
                        begun.set()
                        await tx.execute(ROWS)

            task = asyncio.create_task(work())
            await begun.wait()
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError as error:
                kept.append(error)
            other = sqlite3.connect(tmp_path / "x.db", timeout=2.0, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            other.close()
    finally:
        kept.clear()
        await database.close()
