"""Parked records of the connections log, and what was decided about them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import delete, func, select, tuple_

from handoff_common.bulk import upsert
from handoff_common.database import Tx
from handoff_common.events import ParkedDecision
from handoff_common.instants import to_ms
from handoff_common.log import Partition
from handoff_common.topics import CONNECTIONS
from handoff_metering import tables
from handoff_metering.store.slices import PROJECTION


class ParkedRecord(NamedTuple):
    """A record that waits for a decision. customer_id: None where it cannot be told."""

    partition: int
    offset: int
    key: str
    value: bytes
    appended_ms: int
    kind: str
    detail: str
    customer_id: str | None
    parked_ms: int


class Decided(NamedTuple):
    """event_id: of the decision in the log, so that whoever wrote it knows it again."""

    decision: str
    reason: str
    decided_by: str
    decided_ms: int
    event_id: str


_COLUMNS = tuple(tables.parked.c[name] for name in ParkedRecord._fields)


async def record(tx: Tx, partition: Partition, offset: int) -> ParkedRecord | None:
    row = (await tx.execute(select(*_COLUMNS).where(*_at(partition, offset)))).first()
    return None if row is None else _one(row)


async def records(
    tx: Tx, *, customer_id: str | None, after: tuple[int, int] | None, limit: int
) -> list[ParkedRecord]:
    """Undecided records by partition and offset, behind `after`."""
    p = tables.parked.c
    query = select(*_COLUMNS).where(p.projection == PROJECTION, p.topic == CONNECTIONS.name)
    if customer_id is not None:
        query = query.where(p.customer_id == customer_id)
    if after is not None:
        query = query.where(tuple_(p.partition, p.offset) > tuple_(*after))
    rows = await tx.execute(query.order_by(p.partition, p.offset).limit(limit))
    return [_one(row) for row in rows]


async def decide(tx: Tx, partition: Partition, event: ParkedDecision) -> None:
    """The record is parked no more; who decided, and why, stays."""
    said = event.data
    await tx.execute(delete(tables.parked).where(*_at(partition, said.offset)))
    row = {
        "partition": partition.number,
        "offset": said.offset,
        "decision": said.decision,
        # Whatever wrote the event: Postgres takes no NUL, and a record must not stop the reader.
        "reason": said.reason.replace("\0", ""),
        "decided_by": said.decided_by.replace("\0", ""),
        "decided_ms": to_ms(event.time),
        "event_id": event.id.replace("\0", ""),
    }
    await upsert(tx, tables.parked_decisions, [row], keys=["partition", "offset"], update=[])


async def decision(tx: Tx, number: int, offset: int) -> Decided | None:
    d = tables.parked_decisions.c
    columns = [d[name] for name in Decided._fields]
    row = (
        await tx.execute(select(*columns).where(d.partition == number, d.offset == offset))
    ).first()
    return None if row is None else Decided(*row)


async def counts(tx: Tx, number: int | None = None) -> dict[str, int]:
    """Customer ("" where it cannot be told) → undecided records, of one slice or of all."""
    p = tables.parked.c
    customer = func.coalesce(p.customer_id, "").label("customer")
    query = select(customer, func.count().label("records")).where(
        p.projection == PROJECTION, p.topic == CONNECTIONS.name
    )
    if number is not None:
        query = query.where(p.partition == number)
    # By its label: on Postgres the expression with its parameter, repeated, is not the same one.
    rows = await tx.execute(query.group_by("customer"))
    return {row.customer: row.records for row in rows}


def _one(row: Sequence[Any]) -> ParkedRecord:
    found = ParkedRecord(*row)
    return found._replace(value=bytes(found.value))


def _at(partition: Partition, offset: int) -> tuple[Any, ...]:
    p = tables.parked.c
    return (
        p.projection == PROJECTION,
        p.topic == partition.topic,
        p.partition == partition.number,
        p.offset == offset,
    )
