"""Where the projection stands: positions, what slices have published, leases."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Row, Table, delete, func, select, update

from handoff_common.bulk import upsert
from handoff_common.database import Tx, load_positions
from handoff_common.topics import CONNECTIONS
from handoff_metering import tables

PROJECTION = "metering"


async def read_positions(tx: Tx) -> dict[int, int]:
    """Slice → next offset, as committed."""
    stored = await load_positions(tx, tables.positions, PROJECTION, [CONNECTIONS.name])
    return {partition.number: offset for partition, (_, offset) in stored.items()}


class Slice(NamedTuple):
    generation: int
    revision: int


async def make_slices(
    tx: Tx, numbers: Iterable[int], *, generation: int, rebuilding: bool = False
) -> None:
    """Add the slices that are not there yet."""
    await upsert(
        tx,
        tables.slices,
        [
            {"slice": n, "generation": generation, "revision": 0, "rebuilding": rebuilding}
            for n in numbers
        ],
        keys=["slice"],
        update=[],
    )


async def lock_slice(tx: Tx, number: int) -> Slice:
    """The slice's row, held until the transaction ends: what a slice publishes is in one order."""
    s = tables.slices.c
    row = (
        await tx.execute(
            select(s.generation, s.revision).where(s.slice == number).with_for_update()
        )
    ).one()
    return Slice(row.generation, row.revision)


async def set_revision(tx: Tx, number: int, revision: int) -> None:
    await tx.execute(
        update(tables.slices).where(tables.slices.c.slice == number).values(revision=revision)
    )


async def slices(tx: Tx) -> dict[int, Slice]:
    rows = await tx.execute(select(tables.slices))
    return {row.slice: Slice(row.generation, row.revision) for row in rows}


async def is_rebuilding(tx: Tx) -> bool:
    found = await tx.scalar(
        select(func.count()).select_from(tables.slices).where(tables.slices.c.rebuilding)
    )
    return bool(found)


async def all_rows(tx: Tx, table: Table) -> Sequence[Row[Any]]:
    """Everything in a table, in the order of its key."""
    return (await tx.execute(select(table).order_by(*table.primary_key.columns))).all()


async def begin_rebuild(tx: Tx, numbers: Iterable[int], generation: int) -> None:
    """Drop every projected row, and what was about to be sent of the old generation."""
    dropped = (*tables.PROJECTED, tables.outbox, tables.slices)
    if tx.dialect.name == "sqlite":
        for table in dropped:
            await tx.execute(delete(table))
    else:
        # However much they hold; a delete of months would not end within a statement's time.
        await tx.exec_driver_sql(f"TRUNCATE {', '.join(table.name for table in dropped)}")
    await make_slices(tx, numbers, generation=generation, rebuilding=True)


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
