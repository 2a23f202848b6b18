"""The database of one service: engine, transactions, positions, bulk upserts, migrations.

One query style for Postgres and SQLite: SQLAlchemy core. On SQLite, write transactions begin
IMMEDIATE and take turns, so that none fails with "database is locked"; reads go beside them (WAL).
Every wait has a time-out (`Limits`), and a database that does not answer is one exception,
`DatabaseAway`: loops try again (`away.until_back`), HTTP answers 503. Bulk writes are in `bulk`.
"""

import asyncio
import hashlib
import re
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from importlib.resources import as_file, files
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Dialect,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    bindparam,
    event,
    func,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.types import TypeDecorator, TypeEngine

from handoff_common.away import back_off, why_away
from handoff_common.clock import Clock
from handoff_common.errors import DatabaseAway, PositionConflict
from handoff_common.instants import to_ms
from handoff_common.log import Partition
from handoff_common.settings import DatabaseSettings

if TYPE_CHECKING:
    from alembic.config import Config

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
"""Naming of constraints, for every service's MetaData."""

Tx = AsyncConnection
"""An open transaction of a `Database`, as callers pass it to the store."""


class ExactDecimal(TypeDecorator[Decimal]):
    """A Decimal that comes back as it went in: NUMERIC on Postgres, text on SQLite."""

    impl = Numeric
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "sqlite":
            return dialect.type_descriptor(Text())
        return dialect.type_descriptor(Numeric(asdecimal=True))

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Any:
        if value is None or dialect.name != "sqlite":
            return value
        return format(value, "f")

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        return None if value is None else Decimal(value)


@dataclass(frozen=True, slots=True)
class Limits:
    """How long anything may wait, in seconds, and how many connections there are.

    acquire: for a connection of the pool, or a turn. connect: to open one. statement: for one
    statement on the server; the client gives up a little later, for a server that has vanished.
    lock: for a row or table lock. idle: an open transaction that does nothing is ended by the
    server, so that a worker that hangs holds no locks.
    """

    pool: int = 8
    acquire: float = 30.0
    connect: float = 5.0
    statement: float = 30.0
    lock: float = 10.0
    idle: float = 60.0

    @classmethod
    def of(cls, settings: DatabaseSettings) -> "Limits":
        return cls(
            pool=settings.database_pool,
            acquire=settings.database_acquire_timeout,
            connect=settings.database_connect_timeout,
            statement=settings.database_statement_timeout,
            lock=settings.database_lock_timeout,
            idle=settings.database_idle_timeout,
        )


class _LettingGo(sqlite3.Connection):
    """A connection that ends its transaction when it is closed.

    SQLite keeps a closed connection, and the lock that it holds, for as long as a cursor of it is
    alive; where a task was cancelled inside a statement, its traceback may keep one.
    """

    def close(self) -> None:
        with suppress(sqlite3.Error):
            self.rollback()
        super().close()


_SQLITE: Final[dict[str, Any]] = {"connect_args": {"factory": _LettingGo}}

_VANISHED_AFTER: Final = 5.0
"""Seconds that the client waits beyond the server's own statement time-out."""


class Database:
    """One service's database. Opens its first connection when first used.

    url: `sqlite+aiosqlite:///path` or `postgresql+asyncpg://…`. name: what the server's list of
    connections calls this process.
    """

    def __init__(self, url: str, *, limits: Limits | None = None, name: str = "handoff") -> None:
        self.limits = limits or Limits()
        self.is_sqlite = url.startswith("sqlite")
        self.away: str | None = None
        self._url, self._name = url, name
        options = _SQLITE if self.is_sqlite else _postgres_options(self.limits, name)
        # What a statement was given stays out of the text of its failure, and so out of logs: it
        # may be a hash, or what somebody wrote.
        self.engine: AsyncEngine = create_async_engine(url, hide_parameters=True, **options)
        self._turn = asyncio.Lock()
        if self.is_sqlite:
            event.listen(self.engine.sync_engine, "connect", _prepare_sqlite)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A write transaction: commits at the end, rolls back on any exception.

        Raises DatabaseAway; it may have been committed all the same, where the answer was lost.
        """
        if not self.is_sqlite:
            async with self._connected() as connection, connection.begin():
                yield connection
            return
        async with asyncio.timeout(self.limits.acquire):
            await self._turn.acquire()
        try:
            async with self.engine.connect() as connection:
                await connection.exec_driver_sql("BEGIN IMMEDIATE")
                yield connection
                await connection.commit()
        finally:
            self._turn.release()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A consistent view for reading; nothing is written. Raises DatabaseAway."""
        async with self._connected() as connection:
            if self.is_sqlite:
                await connection.exec_driver_sql("BEGIN")
            else:
                connection = await connection.execution_options(
                    isolation_level="REPEATABLE READ", postgresql_readonly=True
                )
            yield connection
            await connection.rollback()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncConnection]:
        """A connection beside the pool and without a transaction: what its session holds ends with
        the block. Postgres only. Raises DatabaseAway when it cannot be opened."""
        options = _session_options(self.limits, self._name)
        engine = create_async_engine(self._url, isolation_level="AUTOCOMMIT", **options)
        try:
            async with self._answering():
                connection = await engine.connect()
            try:
                yield connection
            finally:
                await connection.close()
        finally:
            await engine.dispose()

    async def close(self) -> None:
        await self.engine.dispose()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AsyncConnection]:
        """A connection of the pool, which goes back there only where the server answered by it: the
        driver may take one whose server went between two statements for whole, and for busy for
        ever."""
        async with self._answering(), self.engine.connect() as connection:
            try:
                yield connection
            except Exception as error:
                if not self.is_sqlite and why_away(error) is not None:
                    await connection.invalidate(error)
                raise

    @asynccontextmanager
    async def _answering(self) -> AsyncIterator[None]:
        """Names what does not answer, and remembers it: `away` is why, None since it answered."""
        try:
            yield
        except Exception as error:
            why = None if self.is_sqlite else why_away(error)
            if why is None:
                raise
            self.away = why
            raise DatabaseAway(why) from error
        self.away = None


def _postgres_options(limits: Limits, name: str) -> dict[str, Any]:
    return {
        "pool_size": limits.pool,
        "max_overflow": 0,
        "pool_timeout": limits.acquire,
        # After a restart of the server every pooled connection is dead: one is tried before use.
        "pool_pre_ping": True,
        "pool_use_lifo": True,
        **_connection_options(limits, name),
    }


def _session_options(limits: Limits, name: str) -> dict[str, Any]:
    return {"poolclass": NullPool, **_connection_options(limits, name)}


def _connection_options(limits: Limits, name: str) -> dict[str, Any]:
    def ms(seconds: float) -> str:
        return str(max(1, round(seconds * 1000)))

    return {
        "connect_args": {
            "timeout": limits.connect,
            "command_timeout": limits.statement + _VANISHED_AFTER,
            "server_settings": {
                "application_name": name,
                "statement_timeout": ms(limits.statement),
                "lock_timeout": ms(limits.lock),
                "idle_in_transaction_session_timeout": ms(limits.idle),
                # Short statements only: compiling one costs more than running it.
                "jit": "off",
            },
        },
    }


async def lock_name(tx: AsyncConnection, name: str) -> None:
    """Wait until no other transaction holds the name, and hold it until this one ends.

    On SQLite write transactions take turns anyway.
    """
    if tx.dialect.name != "sqlite":
        await tx.execute(select(func.pg_advisory_xact_lock(name_number(name))))


async def try_lock_name(tx: AsyncConnection, name: str) -> bool:
    """Hold the name until this transaction ends, unless another holds it."""
    if tx.dialect.name == "sqlite":
        return True
    return bool(await tx.scalar(select(func.pg_try_advisory_xact_lock(name_number(name)))))


def among(tx: AsyncConnection, column: Column[Any], values: Sequence[Any]) -> ColumnElement[bool]:
    """Whether the column is one of the values: one parameter on Postgres, however many they are."""
    if tx.dialect.name == "sqlite":
        return column.in_(values)
    return column == func.any(bindparam(None, list(values), type_=postgresql.ARRAY(column.type)))


def inserting(tx: AsyncConnection) -> Callable[..., Any]:
    """The dialect's INSERT that knows ON CONFLICT."""
    return sqlite.insert if tx.dialect.name == "sqlite" else postgresql.insert


async def time_of(tx: AsyncConnection, clock: Clock) -> int:
    """Now, epoch ms, as every process that shares the database sees it: the server's on Postgres,
    this process's on SQLite, which is one process's."""
    if tx.dialect.name == "sqlite":
        return clock.now_ms()
    return to_ms((await tx.execute(select(func.clock_timestamp()))).scalar_one())


def name_number(name: str) -> int:
    """The signed 64-bit number by which Postgres knows an advisory lock."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # Transactions are begun by hand: the driver's own habit of beginning late would let two
    # writers meet.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "busy_timeout=30000",
        "temp_store=MEMORY",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def projection_tables(metadata: MetaData) -> tuple[Table, Table]:
    """The tables that every projecting service has: (`positions`, `parked`)."""
    positions = Table(
        "positions",
        metadata,
        Column("projection", String(64), primary_key=True),
        Column("topic", String(128), primary_key=True),
        Column("partition", Integer, primary_key=True, autoincrement=False),
        Column("identity", String(64), nullable=False),
        Column("next_offset", BigInteger, nullable=False),
    )
    parked = Table(
        "parked",
        metadata,
        Column("topic", String(128), primary_key=True),
        Column("partition", Integer, primary_key=True, autoincrement=False),
        Column("offset", BigInteger, primary_key=True, autoincrement=False),
        Column("projection", String(64), primary_key=True),
        Column("key", Text, nullable=False),
        Column("value", LargeBinary, nullable=False),
        Column("appended_ms", BigInteger, nullable=False),
        Column("kind", String(32), nullable=False),
        Column("detail", Text, nullable=False),
        Column("customer_id", String(64)),
        Column("parked_ms", BigInteger, nullable=False),
    )
    return positions, parked


async def load_positions(
    tx: AsyncConnection, table: Table, projection: str, topics: Sequence[str]
) -> dict[Partition, tuple[str, int]]:
    """Partition → (identity of the topic it was read from, next offset)."""
    rows = await tx.execute(
        select(table.c.topic, table.c.partition, table.c.identity, table.c.next_offset).where(
            table.c.projection == projection, table.c.topic.in_(topics)
        )
    )
    return {Partition(r.topic, r.partition): (r.identity, r.next_offset) for r in rows}


async def move_position(
    tx: AsyncConnection,
    table: Table,
    projection: str,
    partition: Partition,
    *,
    identity: str,
    expected: int | None,
    next_offset: int,
) -> None:
    """Compare-and-set: from `expected` (None: no row yet) to `next_offset`.

    Raises PositionConflict where the row is not as expected: another worker took over.
    """
    if expected is None:
        result = await tx.execute(
            inserting(tx)(table)
            .values(
                projection=projection,
                topic=partition.topic,
                partition=partition.number,
                identity=identity,
                next_offset=next_offset,
            )
            .on_conflict_do_nothing()
        )
    else:
        result = await tx.execute(
            update(table)
            .where(
                table.c.projection == projection,
                table.c.topic == partition.topic,
                table.c.partition == partition.number,
                table.c.next_offset == expected,
            )
            .values(next_offset=next_offset)
        )
    if result.rowcount != 1:
        raise PositionConflict(f"{projection}: {partition.topic}[{partition.number}] is elsewhere")


_MIGRATE_ATTEMPTS: Final = 12


async def migrate(db: Database, package: str, *, attempts: int = _MIGRATE_ATTEMPTS) -> None:
    """Bring the database to the newest revision of `package`'s migrations.

    Safe beside the previous release and beside itself: one migrates at a time, in one transaction,
    under the lock and statement time-outs, so that a statement that waits for others' locks gives
    up rather than makes others wait; then it is tried again, a bounded number of times.
    Raises DatabaseAway when that did not do.
    """
    with as_file(files(package) / "migrations") as folder:
        for failures in range(attempts):
            try:
                await _migrate(db, package, str(folder))
                return
            except DatabaseAway as error:
                if failures + 1 == attempts:
                    raise
                await back_off(error, failures, what=f"migrate {package}")


async def _migrate(db: Database, package: str, folder: str) -> None:
    if db.is_sqlite:
        async with db.engine.connect() as connection:
            await connection.run_sync(_upgrade, folder)
            await connection.commit()
        return
    async with db.transaction() as tx:
        await lock_name(tx, f"migrate {package}")
        await tx.run_sync(_upgrade, folder)


def _upgrade(connection: Connection, folder: str) -> None:
    # Who does not migrate starts without loading it.
    from alembic import command

    command.upgrade(alembic_config(folder, connection), "head")


def alembic_config(folder: str, connection: Connection) -> "Config":
    """What alembic needs to work on an open connection with the migrations in `folder`."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", folder)
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


_PARTITION: Final = re.compile(r".+_([0-9]{6}|rest)")


def is_ours(_: Any, name: str | None, kind: str, reflected: bool, compared: Any) -> bool:
    """For alembic's comparison: the partitions of a table are no tables of their own."""
    unknown = kind == "table" and reflected and compared is None
    return not (unknown and _PARTITION.fullmatch(name or ""))


def run_migrations(metadata: MetaData) -> None:
    """The body of each service's `migrations/env.py`."""
    from alembic import context

    context.configure(
        connection=context.config.attributes["connection"],
        target_metadata=metadata,
        render_as_batch=True,
        compare_type=True,
        include_object=is_ours,
    )
    with context.begin_transaction():
        context.run_migrations()
