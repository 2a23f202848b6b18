"""The database of one service: engine, transactions, positions, bulk upserts, migrations.

One query style for Postgres and SQLite: SQLAlchemy core. On SQLite, write transactions begin
IMMEDIATE and take turns, so that none fails with "database is locked"; reads go beside them (WAL).
Every wait has a time-out.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from importlib.resources import as_file, files
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Dialect,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    event,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.types import TypeDecorator, TypeEngine

from handoff_common.errors import PositionConflict
from handoff_common.log import Partition

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
"""Naming of constraints, for every service's MetaData."""

_VARIABLES_PER_STATEMENT = 30_000

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


class Database:
    """One service's database. Opens its first connection when first used.

    url: `sqlite+aiosqlite:///path` or `postgresql+asyncpg://…`.
    timeout: seconds that a transaction may wait for its connection or its turn.
    """

    def __init__(self, url: str, *, timeout: float = 30.0) -> None:
        self.timeout = timeout
        self.is_sqlite = url.startswith("sqlite")
        options: dict[str, Any] = {} if self.is_sqlite else {"pool_timeout": timeout}
        self.engine: AsyncEngine = create_async_engine(url, **options)
        self._turn = asyncio.Lock()
        if self.is_sqlite:
            event.listen(self.engine.sync_engine, "connect", _prepare_sqlite)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A write transaction: commits at the end, rolls back on any exception."""
        if not self.is_sqlite:
            async with self.engine.begin() as connection:
                yield connection
            return
        async with asyncio.timeout(self.timeout):
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
        """A consistent view for reading; nothing is written."""
        async with self.engine.connect() as connection:
            if self.is_sqlite:
                await connection.exec_driver_sql("BEGIN")
            else:
                connection = await connection.execution_options(
                    isolation_level="REPEATABLE READ", postgresql_readonly=True
                )
            yield connection
            await connection.rollback()

    async def close(self) -> None:
        await self.engine.dispose()


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


async def upsert(
    tx: AsyncConnection,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    *,
    keys: Sequence[str],
    update: Sequence[str],
) -> None:
    """Insert the rows; where `keys` already stand, set the columns of `update` to the new values.

    Rows must not repeat a key within one call. They are written in key order, so that two writers
    cannot deadlock. An empty `update` leaves existing rows alone.
    """
    if not rows:
        return
    insert = sqlite.insert if tx.dialect.name == "sqlite" else postgresql.insert
    ordered = sorted(rows, key=lambda row: tuple(row[key] for key in keys))
    statement: Any = insert(table)
    if update:
        changes = {name: statement.excluded[name] for name in update}
        statement = statement.on_conflict_do_update(index_elements=list(keys), set_=changes)
    else:
        statement = statement.on_conflict_do_nothing(index_elements=list(keys))
    step = max(1, _VARIABLES_PER_STATEMENT // max(1, len(ordered[0])))
    for start in range(0, len(ordered), step):
        await tx.execute(statement, [dict(row) for row in ordered[start : start + step]])


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
        insert = sqlite.insert if tx.dialect.name == "sqlite" else postgresql.insert
        result = await tx.execute(
            insert(table)
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


async def migrate(db: Database, package: str) -> None:
    """Bring the database to the newest revision of `package`'s migrations."""
    with as_file(files(package) / "migrations") as folder:
        async with db.engine.connect() as connection:
            await connection.run_sync(_upgrade, str(folder))
            await connection.commit()


def _upgrade(connection: Connection, folder: str) -> None:
    command.upgrade(alembic_config(folder, connection), "head")


def alembic_config(folder: str, connection: Connection) -> Config:
    """What alembic needs to work on an open connection with the migrations in `folder`."""
    config = Config()
    config.set_main_option("script_location", folder)
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def run_migrations(metadata: MetaData) -> None:
    """The body of each service's `migrations/env.py`."""
    from alembic import context

    context.configure(
        connection=context.config.attributes["connection"],
        target_metadata=metadata,
        render_as_batch=True,
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()
