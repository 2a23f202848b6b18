"""On Postgres, `connections` and `connection_events` are partitioned by the month of the
connection's id: makes the months' partitions, and drops those that are over.

Rows of no month, or of one that had no partition in time, lie in `…_rest`; making a month's
partition takes them over. On SQLite nothing is partitioned and all of this does nothing.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from handoff_common.database import Tx, lock_name
from handoff_common.instants import from_ms, to_ms
from handoff_common.minutes import next_month
from handoff_metering import retention

TABLES: Final = ("connections", "connection_events")
_LOCK_MS: Final = 2_000
"""A partition is added or dropped under a lock that all readers and writers wait behind."""


async def make(tx: Tx, months: Sequence[int]) -> list[int]:
    """See that there is a partition for each month; the months for which one was made."""
    if tx.dialect.name == "sqlite":
        return []
    await _alone(tx)
    there = set(await made(tx))
    missing = [month for month in months if month not in there]
    for month in missing:
        for table in TABLES:
            await _add(tx, table, month)
    return missing


async def made(tx: Tx) -> list[int]:
    """The months that have partitions, ascending."""
    if tx.dialect.name == "sqlite":
        return []
    rows = await tx.exec_driver_sql(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = 'connections'::regclass AND c.relname ~ '^connections_[0-9]{6}$'"
    )
    return sorted(_month_of(name) for (name,) in rows)


async def drop_over(tx: Tx, now_ms: int, keep: int) -> tuple[list[int], list[int]]:
    """Drop the partitions of months that may go: (dropped, held back by an open connection)."""
    if tx.dialect.name == "sqlite":
        return [], []
    await _alone(tx)
    dropped, held = [], []
    over = [month for month in await made(tx) if retention.may_go(month, now_ms, keep)]
    if over:
        # What a drop locks, taken before the look: nobody opens a connection in between, and
        # nobody who writes already is waited for with another lock in hand.
        await tx.exec_driver_sql(
            f"LOCK TABLE {', '.join(f'ONLY {table}' for table in TABLES)} IN ACCESS EXCLUSIVE MODE"
        )
    for month in over:
        name = _name("connections", month)
        still_open = await tx.exec_driver_sql(
            f"SELECT 1 FROM {name} WHERE next_minute_ms IS NOT NULL LIMIT 1"  # noqa: S608
        )
        if still_open.first() is not None:
            held.append(month)
            continue
        for table in TABLES:
            await tx.exec_driver_sql(f"DROP TABLE {_name(table, month)}")
        dropped.append(month)
    return dropped, held


async def _alone(tx: Tx) -> None:
    """One process at a time, and none that makes others wait for long."""
    await lock_name(tx, "metering months")
    await tx.exec_driver_sql(f"SET LOCAL lock_timeout = {_LOCK_MS}")


async def _add(tx: Tx, table: str, month: int) -> None:
    name, rest = _name(table, month), f"{table}_rest"
    first, past = retention.first_id(month), retention.first_id(next_month(month))
    inside = f"connection_id >= '{first}' AND connection_id < '{past}'"
    await tx.exec_driver_sql(f"LOCK TABLE {rest} IN ACCESS EXCLUSIVE MODE")
    await tx.exec_driver_sql(f"CREATE TABLE {name} (LIKE {table} INCLUDING ALL)")
    await tx.exec_driver_sql(
        f"WITH moved AS (DELETE FROM {rest} WHERE {inside} RETURNING *) "  # noqa: S608
        f"INSERT INTO {name} SELECT * FROM moved"
    )
    await tx.exec_driver_sql(
        f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ('{first}') TO ('{past}')"
    )


def _name(table: str, month: int) -> str:
    return f"{table}_{from_ms(month):%Y%m}"


def _month_of(name: str) -> int:
    return to_ms(datetime.strptime(name[-6:], "%Y%m").replace(tzinfo=UTC))
