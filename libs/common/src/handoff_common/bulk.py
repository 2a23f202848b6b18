"""Many rows at once: COPY on Postgres, one prepared statement on SQLite. Same meaning on both.

A merge on Postgres is COPY into a temporary table and one INSERT … SELECT … ON CONFLICT: a sixth of
the CPU of `unnest` in this process, and less on the server (docs/adr/0012-postgres.md). A few rows
take the plain statement on both engines.

Rows are written in the order of their keys, so that two writers cannot deadlock, and must not
repeat a key within one call.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import asyncpg
from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncConnection

from handoff_common.database import inserting

FEW = 50
"""Fewer rows than this are not worth a COPY."""

_VARIABLES_PER_STATEMENT = 30_000


async def upsert(
    tx: AsyncConnection,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    *,
    keys: Sequence[str],
    update: Sequence[str],
) -> None:
    """Insert the rows; where `keys` already stand, set the columns of `update` to the new values.

    An empty `update` leaves existing rows alone.
    """
    if not rows:
        return
    if tx.dialect.name != "sqlite" and len(rows) >= FEW:
        columns = tuple(rows[0])
        records = [tuple(row[name] for name in columns) for row in rows]
        await merge(tx, table, columns, records, keys=keys, update=update)
        return
    ordered = sorted(rows, key=lambda row: tuple(row[key] for key in keys))
    statement: Any = inserting(tx)(table)
    if update:
        changes = {name: statement.excluded[name] for name in update}
        statement = statement.on_conflict_do_update(index_elements=list(keys), set_=changes)
    else:
        statement = statement.on_conflict_do_nothing(index_elements=list(keys))
    step = max(1, _VARIABLES_PER_STATEMENT // max(1, len(ordered[0])))
    for start in range(0, len(ordered), step):
        await tx.execute(statement, [dict(row) for row in ordered[start : start + step]])


async def merge(
    tx: AsyncConnection,
    table: Table,
    columns: Sequence[str],
    records: Sequence[tuple[Any, ...]],
    *,
    keys: Sequence[str],
    update: Sequence[str],
) -> None:
    """`upsert` of tuples in the order of `columns`. Values are as the driver takes them: no column
    type of ours converts them.
    """
    if not records:
        return
    places = [columns.index(key) for key in keys]
    ordered = sorted(records, key=lambda record: [record[place] for place in places])
    plan = _plan(tx.dialect.name, table, tuple(columns), tuple(keys), tuple(update))
    if tx.dialect.name == "sqlite":
        await tx.exec_driver_sql(plan.insert, ordered)
        return
    connection = await driver(tx)
    await connection.execute(plan.make)
    await connection.copy_records_to_table(plan.beside, records=ordered, columns=list(columns))
    await connection.execute(plan.insert)
    # Empty again for the next merge of this transaction; its end would do the same.
    await connection.execute(plan.clear)


async def copy(
    tx: AsyncConnection, table: Table, columns: Sequence[str], records: Sequence[tuple[Any, ...]]
) -> None:
    """Insert rows that cannot be there yet, in the order given."""
    if not records:
        return
    if tx.dialect.name == "sqlite":
        plan = _plan("sqlite", table, tuple(columns), (), ())
        await tx.exec_driver_sql(plan.insert, list(records))
        return
    connection = await driver(tx)
    await connection.copy_records_to_table(table.name, records=records, columns=list(columns))


async def driver(tx: AsyncConnection) -> asyncpg.Connection:
    """asyncpg's own connection, in the transaction of `tx`."""
    raw = await tx.get_raw_connection()
    connection: asyncpg.Connection = raw.driver_connection
    if not connection.is_in_transaction():
        # SQLAlchemy begins with the first statement that passes through it.
        await tx.exec_driver_sql("SELECT 1")
    return connection


class _Plan:
    """The statements of a merge. beside: the temporary table's name; it lives as long as its
    connection."""

    def __init__(
        self,
        dialect: str,
        table: Table,
        columns: tuple[str, ...],
        keys: tuple[str, ...],
        update: tuple[str, ...],
    ) -> None:
        names = ", ".join(f'"{name}"' for name in columns)
        self.beside = f"incoming_{table.name}"
        target = f'INSERT INTO "{table.name}" ({names})'
        if dialect == "sqlite":
            values = f"VALUES ({', '.join('?' * len(columns))})"
        else:
            values = f'SELECT {names} FROM "{self.beside}"'  # noqa: S608  (our own names)
        changes = ", ".join(f'"{name}" = excluded."{name}"' for name in update)
        action = f"DO UPDATE SET {changes}" if update else "DO NOTHING"
        on = ", ".join(f'"{name}"' for name in keys)
        self.insert = f"{target} {values}" + (f" ON CONFLICT ({on}) {action}" if keys else "")
        self.make = (
            f'CREATE TEMPORARY TABLE IF NOT EXISTS "{self.beside}" (LIKE "{table.name}") '
            "ON COMMIT DELETE ROWS"
        )
        self.clear = f'TRUNCATE "{self.beside}"'


_plan = cache(_Plan)
