"""What edges have refused, by hour: written by a projection, read by the API, dropped by month."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from sqlalchemy import and_, case, delete, desc, func, or_, select

from handoff_common.database import Tx, inserting
from handoff_common.minutes import DAY_MS, HOUR_MS
from handoff_metering import tables
from handoff_metering.refusals import NOBODY, Count, Key

PROJECTION = "metering-refusals"

By = Literal["hour", "day", "total"]
_PERIODS = {"hour": HOUR_MS, "day": DAY_MS}
_ROWS_PER_STATEMENT = 2_000


class Asked(NamedTuple):
    """Which refusals: of a customer (None: all, and those of nobody), a service, a cause; of the
    hours that touch `from_ms <= instant < to_ms`."""

    customer_id: str | None
    service_id: str | None
    cause: str | None
    from_ms: int
    to_ms: int


class Row(NamedTuple):
    """start_ms: of the hour or the day; None for all of the time asked for. service_id: None where
    no service has the domain that was asked for."""

    start_ms: int | None
    service_id: str | None
    cause: str
    refused: int


async def raise_counts(tx: Tx, counts: Mapping[Key, Count]) -> None:
    """Save the counts; where a greater one stands, it stays."""
    statement = inserting(tx)(tables.refusals)
    told, stands = statement.excluded, tables.refusals.c
    statement = statement.on_conflict_do_update(
        index_elements=list(Key._fields),
        set_={"refused": case((told.refused > stands.refused, told.refused), else_=stands.refused)},
    )
    # In the order of their keys, so that two writers cannot deadlock.
    rows = [key._asdict() | count._asdict() for key, count in sorted(counts.items())]
    for start in range(0, len(rows), _ROWS_PER_STATEMENT):
        await tx.execute(statement, rows[start : start + _ROWS_PER_STATEMENT])


async def drop_before(tx: Tx, instant_ms: int) -> bool:
    """Drop the oldest day of hours before an instant; False where there is none."""
    hour = tables.refusals.c.hour_ms
    oldest = await tx.scalar(select(func.min(hour)))
    if oldest is None or oldest >= instant_ms:
        return False
    await tx.execute(delete(tables.refusals).where(hour < min(oldest + DAY_MS, instant_ms)))
    return True


async def rows(
    tx: Tx, asked: Asked, by: By, *, after: tuple[int, str, str] | None, limit: int
) -> list[Row]:
    """Sums over edges and their processes, the newest period first, then by service and cause.

    after: (start, or 0 for a total; service, or NOBODY; cause) of the last row of the page before.
    """
    r = tables.refusals.c
    # The bucket is named by its label: on Postgres a repeated expression with parameters would not
    # be the same one.
    bucket = None if by == "total" else r.hour_ms - r.hour_ms % _PERIODS[by]
    columns: list[Any] = [r.service_id, r.cause, func.sum(r.refused).label("refused")]
    query = select(*columns, *([] if bucket is None else [bucket.label("start_ms")])).where(
        r.hour_ms >= asked.from_ms - asked.from_ms % HOUR_MS, r.hour_ms < asked.to_ms
    )
    for column, value in (
        (r.customer_id, asked.customer_id),
        (r.service_id, asked.service_id),
        (r.cause, asked.cause),
    ):
        if value is not None:
            query = query.where(column == value)
    if after is not None:
        at, service_id, cause = after
        behind = or_(r.service_id > service_id, and_(r.service_id == service_id, r.cause > cause))
        if bucket is not None:
            behind = or_(bucket < at, and_(bucket == at, behind))
        query = query.where(behind)
    if bucket is None:
        query = query.group_by(r.service_id, r.cause).order_by(r.service_id, r.cause)
    else:
        query = query.group_by("start_ms", r.service_id, r.cause)
        query = query.order_by(desc("start_ms"), r.service_id, r.cause)
    return [
        Row(
            None if bucket is None else int(row.start_ms),
            None if row.service_id == NOBODY else row.service_id,
            row.cause,
            int(row.refused),
        )
        for row in await tx.execute(query.limit(limit))
    ]
