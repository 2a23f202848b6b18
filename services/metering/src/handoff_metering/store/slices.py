"""Where the projection stands: positions, what slices have published, leases."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Row, Table, delete, func, select, update

from handoff_common.bulk import upsert
from handoff_common.database import Tx, load_positions
from handoff_common.topics import CONNECTIONS, USAGE
from handoff_metering import tables
from handoff_metering.errors import RebuildUnfinished

PROJECTION = "metering"


async def read_positions(tx: Tx) -> dict[int, int]:
    """Slice → next offset, as committed."""
    stored = await load_positions(tx, tables.positions, PROJECTION, [CONNECTIONS.name])
    return {partition.number: offset for partition, (_, offset) in stored.items()}


class Slice(NamedTuple):
    """unpublished: nothing of it goes out until all of it does."""

    generation: int
    revision: int
    unpublished: bool


async def make_slices(
    tx: Tx,
    numbers: Iterable[int],
    *,
    generation: int,
    unpublished: bool,
    rebuilding: bool = False,
) -> None:
    """Add the slices that are not there yet."""
    made = {
        "generation": generation,
        "revision": 0,
        "rebuilding": rebuilding,
        "unpublished": unpublished,
    }
    rows = [{"slice": number, **made} for number in numbers]
    await upsert(tx, tables.slices, rows, keys=["slice"], update=[])


async def lock_slice(tx: Tx, number: int, *, rebuilding: bool = False) -> Slice:
    """The slice's row, held until the transaction ends: what a slice publishes is in one order.

    Raises RebuildUnfinished where its tables are being made anew, and `rebuilding` does not say
    that it is by this caller.
    """
    row = (
        await tx.execute(
            select(tables.slices).where(tables.slices.c.slice == number).with_for_update()
        )
    ).one()
    if row.rebuilding and not rebuilding:
        raise RebuildUnfinished(f"slice {number} is being rebuilt; stop until that has ended")
    return _slice(row)


async def set_revision(tx: Tx, number: int, revision: int) -> None:
    await tx.execute(
        update(tables.slices).where(tables.slices.c.slice == number).values(revision=revision)
    )


async def slices(tx: Tx) -> dict[int, Slice]:
    rows = await tx.execute(select(tables.slices))
    return {row.slice: _slice(row) for row in rows}


def _slice(row: Row[Any]) -> Slice:
    return Slice(row.generation, row.revision, row.unpublished)


async def set_published(tx: Tx, number: int, version: Slice) -> None:
    """The slice goes on with this generation and revision, and publishes what changes."""
    await tx.execute(
        update(tables.slices).where(tables.slices.c.slice == number).values(version._asdict())
    )


async def is_rebuilding(tx: Tx) -> bool:
    found = await tx.scalar(
        select(func.count()).select_from(tables.slices).where(tables.slices.c.rebuilding)
    )
    return bool(found)


async def all_rows(tx: Tx, table: Table) -> Sequence[Row[Any]]:
    """Everything in a table, in the order of its key."""
    return (await tx.execute(select(table).order_by(*table.primary_key.columns))).all()


async def begin_rebuild(tx: Tx, numbers: Iterable[int], generation: int) -> None:
    """Drop every projected row, and what was about to be sent of the old generation; decisions and
    controls that somebody has asked for are sent all the same."""
    await tx.execute(delete(tables.outbox).where(tables.outbox.c.topic == USAGE.name))
    dropped = (*tables.PROJECTED, tables.slices)
    if tx.dialect.name == "sqlite":
        for table in dropped:
            await tx.execute(delete(table))
    else:
        # However much they hold; a delete of months would not end within a statement's time.
        await tx.exec_driver_sql(f"TRUNCATE {', '.join(table.name for table in dropped)}")
    await make_slices(tx, numbers, generation=generation, rebuilding=True, unpublished=True)


async def end_rebuild(tx: Tx) -> None:
    await tx.execute(update(tables.slices).values(rebuilding=False))


async def hold_lease(tx: Tx, name: str, holder: str, *, now_ms: int, until_ms: int) -> bool:
    """Take the lease, or keep it; False while another holds it."""
    lease = tables.leases.c
    kept = await tx.execute(
        update(tables.leases)
        .where(lease.name == name, (lease.holder == holder) | (lease.until_ms <= now_ms))
        .values(holder=holder, until_ms=until_ms)
    )
    if kept.rowcount:
        return True
    row = {"name": name, "holder": holder, "until_ms": until_ms}
    await upsert(tx, tables.leases, [row], keys=["name"], update=[])
    return bool(await tx.scalar(select(lease.holder == holder).where(lease.name == name)))
