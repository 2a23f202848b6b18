"""Who uses a database: any number of workers together, or one process alone that makes it anew.

Each worker holds the database's name shared for as long as its process runs, and whoever rebuilds
holds it alone; each refuses where the other is. On Postgres that is an advisory lock of a session
of its own, so it ends with the process, however that ends, and holds within one database only. On
SQLite nothing is held: one process owns the file, and says so by the lock of the embedded log.

Where the server was away the lock is gone, and is taken again; in between only what stands in the
tables can tell a worker that they are being made anew.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from handoff_common.away import until_back, why_away
from handoff_common.database import Database, Tx, name_number
from handoff_common.errors import DatabaseAway, DatabaseInUse

_LOOK_SECONDS = 2.0


class Occupancy:
    """A worker's share of a database. `enter` at its start, then `run` is its loop.

    name: of what uses the database, such as `metering`.
    """

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._name = name
        self._stack = AsyncExitStack()
        self._held: Tx | None = None

    async def enter(self) -> None:
        """Raises DatabaseInUse while it is being made anew, DatabaseAway."""
        if self._database.is_sqlite:
            return
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(self._database.session())
            if not await _try(session, "pg_try_advisory_lock_shared", self._name):
                raise DatabaseInUse(
                    f"the database of {self._name} is being rebuilt; start again when that has "
                    "ended, or on another database"
                )
            self._held = session
            self._stack = stack.pop_all()

    async def run(self) -> None:
        """Hold it; ends by DatabaseInUse where somebody took it while the server was away."""
        try:
            while True:
                await asyncio.sleep(_LOOK_SECONDS)
                if self._held is None:
                    continue
                try:
                    await self._held.exec_driver_sql("SELECT 1")
                except Exception as error:
                    if why_away(error) is None:
                        raise
                    await self.leave()
                    await until_back(self.enter, what="hold the database")
        finally:
            await self.leave()

    async def leave(self) -> None:
        self._held = None
        await self._stack.aclose()


@asynccontextmanager
async def alone(database: Database, name: str) -> AsyncIterator[None]:
    """The database without any worker, until the block is left.

    Raises DatabaseInUse, DatabaseAway.
    """
    if database.is_sqlite:
        yield
        return
    async with database.session() as session:
        if not await _try(session, "pg_try_advisory_lock", name):
            raise DatabaseInUse(
                f"workers of {name} run on this database, or another rebuild does; stop them, or "
                "name a fresh database in HANDOFF_DATABASE_URL and let them go on meanwhile"
            )
        yield


async def _try(session: Tx, function: str, name: str) -> bool:
    number = name_number(f"use {name}")
    try:
        found = await session.exec_driver_sql(f"SELECT {function}($1::bigint)", (number,))
    except Exception as error:
        why = why_away(error)
        if why is None:
            raise
        raise DatabaseAway(why) from error
    return bool(found.scalar())
