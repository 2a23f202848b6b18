"""What the API reads: usage by period, connections with their events, counts."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Select, and_, func, or_, select

from handoff_common.database import Tx
from handoff_common.events import COUNTER_NAMES, Counters, Reason
from handoff_common.minutes import DAY_MS, HOUR_MS, MINUTE_MS, month_of, within
from handoff_metering import tables
from handoff_metering.store.states import state_columns, state_of
from handoff_metering.usage import ConnectionState, Totals

PERIODS = {"hour": HOUR_MS, "day": DAY_MS}
_EVENTS_OF_MINUTES = 200_000


class Scope(NamedTuple):
    """Which usage: of a customer (None: all), a service, a region; `from_ms <= instant < to_ms`."""

    customer_id: str | None
    service_id: str | None
    region: str | None
    from_ms: int
    to_ms: int


class Row(NamedTuple):
    """Totals of one service in one region in the period that starts at `start_ms`."""

    start_ms: int
    service_id: str
    region: str
    totals: Totals


async def usage(
    tx: Tx,
    scope: Scope,
    by: str,
    *,
    after: tuple[int, str, str] | None = None,
    limit: int | None = None,
) -> list[Row]:
    """Usage by `hour`, `day` or `month`, in order of (start, service, region); rows that come to
    nothing are left out. after: the last row of the page before."""
    rows = [row for row in await _grouped(tx, scope, by, after, limit) if row.totals != Totals()]
    if by != "month":
        return rows
    months: dict[tuple[int, str, str], Totals] = {}
    for row in rows:
        key = (month_of(row.start_ms), row.service_id, row.region)
        months[key] = months.get(key, Totals()).plus(row.totals)
    found = [Row(*key, months[key]) for key in sorted(months) if after is None or key > after]
    return found if limit is None else found[:limit]


async def _grouped(
    tx: Tx,
    scope: Scope,
    by: str,
    after: tuple[int, str, str] | None,
    limit: int | None,
) -> list[Row]:
    u = tables.usage.c
    period = PERIODS.get(by, DAY_MS)
    start = (u.hour_ms - u.hour_ms % period).label("start_ms")
    sums = [
        func.sum(u[name]).label(name)
        for name in ("minutes", *COUNTER_NAMES, "opened", "closed", "lost")
    ]
    # The bucket's expression is named by its label: on Postgres a repeated expression with
    # parameters would not be the same one.
    query = (
        select(start, u.service_id, u.region, *sums)
        .where(u.hour_ms >= scope.from_ms - scope.from_ms % HOUR_MS, u.hour_ms < scope.to_ms)
        .group_by("start_ms", u.service_id, u.region)
        .order_by("start_ms", u.service_id, u.region)
    )
    if scope.customer_id is not None:
        query = query.where(u.customer_id == scope.customer_id)
    if scope.service_id is not None:
        query = query.where(u.service_id == scope.service_id)
    if scope.region is not None:
        query = query.where(u.region == scope.region)
    if by != "month":
        if after is not None:
            at, service_id, region = after
            bucket = u.hour_ms - u.hour_ms % period
            query = query.where(
                or_(
                    bucket > at,
                    and_(bucket == at, u.service_id > service_id),
                    and_(bucket == at, u.service_id == service_id, u.region > region),
                )
            )
        if limit is not None:
            query = query.limit(limit)
    return [
        Row(
            int(row.start_ms),
            row.service_id,
            row.region,
            Totals(
                int(row.minutes),
                Counters(*(int(getattr(row, name)) for name in COUNTER_NAMES)),
                int(row.opened),
                int(row.closed),
                int(row.lost),
            ),
        )
        for row in await tx.execute(query)
    ]


async def usage_by_minute(tx: Tx, scope: Scope) -> list[Row]:
    """The same by UTC minute: a usage minute counts in the minute in which it starts, a byte in
    that of the event that first reported it. Meant for the last hours: it reads connections."""
    c, e = tables.connections.c, tables.connection_events.c
    totals: dict[tuple[int, str, str], Totals] = {}

    def add(instant_ms: int, service_id: str, region: str, change: Totals) -> None:
        if scope.from_ms <= instant_ms < scope.to_ms:
            key = (instant_ms - instant_ms % MINUTE_MS, service_id, region)
            totals[key] = totals.get(key, Totals()).plus(change)

    query = select(c.service_id, c.region, c.accepted_ms, c.minutes, c.ended_ms, c.reason).where(
        *_during(scope)
    )
    for row in await tx.execute(query):
        where = (row.service_id, row.region)
        add(row.accepted_ms, *where, Totals(opened=1))
        if row.ended_ms is not None:
            lost = row.reason in (Reason.EDGE_CRASHED, Reason.EDGE_LOST)
            add(row.ended_ms, *where, Totals(closed=1, lost=int(lost)))
        for k in within(row.accepted_ms, row.minutes, scope.from_ms, scope.to_ms):
            add(row.accepted_ms + k * MINUTE_MS, *where, Totals(minutes=1))
    said = (
        select(e.service_id, e.region, e.time_ms, e.added)
        .where(e.time_ms >= scope.from_ms, e.time_ms < scope.to_ms, e.added.is_not(None))
        .limit(_EVENTS_OF_MINUTES)
    )
    if scope.service_id is not None:
        said = said.where(e.service_id == scope.service_id)
    if scope.region is not None:
        said = said.where(e.region == scope.region)
    if scope.customer_id is not None:
        said = said.join(
            tables.connections,
            and_(
                c.connection_id == e.connection_id,
                c.customer_id == scope.customer_id,
            ),
        )
    for service_id, region, time_ms, added in await tx.execute(said):
        counters = Counters(*msgspec.json.decode(added))
        add(time_ms, service_id, region, Totals(counters=counters))
    return [Row(*key, totals[key]) for key in sorted(totals) if totals[key] != Totals()]


def _during(scope: Scope) -> list[Any]:
    """Connections that overlap the scope's time."""
    c = tables.connections.c
    conditions: list[Any] = [
        c.accepted_ms < scope.to_ms,
        or_(c.ended_ms.is_(None), c.ended_ms >= scope.from_ms),
    ]
    if scope.customer_id is not None:
        conditions.append(c.customer_id == scope.customer_id)
    if scope.service_id is not None:
        conditions.append(c.service_id == scope.service_id)
    if scope.region is not None:
        conditions.append(c.region == scope.region)
    return conditions


class Found(NamedTuple):
    """A connection, the slice it is in, and the offset of the last record that it counted."""

    state: ConnectionState
    slice: int
    last_offset: int


async def connections(
    tx: Tx,
    scope: Scope,
    *,
    is_open: bool | None,
    edge_id: str | None,
    reason: str | None,
    after: tuple[int, str] | None,
    limit: int,
) -> list[Found]:
    """Connections that overlap the scope's time, the last accepted first."""
    c = tables.connections.c
    query = _found().where(*_during(scope))
    if is_open is not None:
        query = query.where(c.reason.is_(None) if is_open else c.reason.is_not(None))
    if edge_id is not None:
        query = query.where(c.edge_id == edge_id)
    if reason is not None:
        query = query.where(c.reason == reason)
    if after is not None:
        at, connection_id = after
        query = query.where(
            or_(
                c.accepted_ms < at,
                and_(c.accepted_ms == at, c.connection_id < connection_id),
            )
        )
    query = query.order_by(c.accepted_ms.desc(), c.connection_id.desc()).limit(limit)
    return [_one(row) for row in await tx.execute(query)]


async def connection(tx: Tx, connection_id: str) -> Found | None:
    row = (
        await tx.execute(_found().where(tables.connections.c.connection_id == connection_id))
    ).first()
    return None if row is None else _one(row)


def _found() -> Select[Any]:
    c = tables.connections.c
    return select(c.slice, c.last_offset, *state_columns)


def _one(row: Sequence[Any]) -> Found:
    number, last_offset, *state = row
    return Found(state_of(state), number, last_offset)


class EventRow(NamedTuple):
    """One event as it was folded. added: the bytes that it added to the bill."""

    offset: int
    event_id: str
    type: str
    seq: int
    time_ms: int
    elapsed_ms: int
    counters: Counters
    added: Counters
    effect: str


async def events(tx: Tx, found: Found, *, after: int, limit: int) -> list[EventRow]:
    """A connection's events in the order of the log, behind the offset `after`."""
    e = tables.connection_events.c
    rows = await tx.execute(
        select(tables.connection_events)
        .where(
            e.connection_id == found.state.connection_id,
            e.slice == found.slice,
            e.offset > after,
        )
        .order_by(e.offset)
        .limit(limit)
    )
    return [
        EventRow(
            row.offset,
            row.event_id,
            row.type,
            row.seq,
            row.time_ms,
            row.elapsed_ms,
            Counters(*msgspec.json.decode(row.counters)),
            Counters(*msgspec.json.decode(row.added)) if row.added else Counters(),
            row.effect,
        )
        for row in rows
    ]


class Counts(NamedTuple):
    """accepted, closed, lost: as the usage rows have them. open: connections not ended."""

    accepted: int
    open: int
    closed: int
    lost: int


class Instants(NamedTuple):
    """open_before: connections open just before the range. accepted, ended: when connections were
    accepted in it and when they ended in it, in any order."""

    open_before: int
    accepted: Sequence[int]
    ended: Sequence[int]


async def marks(tx: Tx, scope: Scope) -> tuple[int, int]:
    """How many connections the scope's whole hours have seen accepted, and how many end. Read from
    the hourly totals, so that a question that is too large costs little."""
    u = tables.usage.c
    query = select(func.sum(u.opened), func.sum(u.closed)).where(
        *_hours(scope), u.hour_ms >= scope.from_ms, u.hour_ms < scope.to_ms
    )
    opened, closed = (await tx.execute(query)).one()
    return int(opened or 0), int(closed or 0)


async def instants(tx: Tx, scope: Scope) -> Instants:
    """When connections began and ended within whole hours.

    scope: from the start of an hour to the end of one. What was open before is told
    by the hourly totals, so that only connections that begin or end in the range are read.
    """
    c, u = tables.connections.c, tables.usage.c
    before = select(func.sum(u.opened) - func.sum(u.closed)).where(
        *_hours(scope), u.hour_ms < scope.from_ms
    )
    open_before = int(await tx.scalar(before) or 0)

    async def within_range(column: Any) -> list[int]:
        query = select(column).where(column >= scope.from_ms, column < scope.to_ms)
        if scope.service_id is not None:
            query = query.where(c.service_id == scope.service_id)
        elif scope.customer_id is not None:
            # Connections are found by service: those that had anything begin or end.
            busy = select(u.service_id).where(
                *_hours(scope), u.hour_ms >= scope.from_ms, u.hour_ms < scope.to_ms
            )
            query = query.where(c.customer_id == scope.customer_id, c.service_id.in_(busy))
        if scope.region is not None:
            query = query.where(c.region == scope.region)
        return list((await tx.scalars(query)).all())

    return Instants(open_before, await within_range(c.accepted_ms), await within_range(c.ended_ms))


def _hours(scope: Scope) -> list[Any]:
    """Hourly totals of the scope's service, or else customer, and region."""
    u = tables.usage.c
    conditions: list[Any] = []
    if scope.service_id is not None:
        conditions.append(u.service_id == scope.service_id)
    elif scope.customer_id is not None:
        conditions.append(u.customer_id == scope.customer_id)
    if scope.region is not None:
        conditions.append(u.region == scope.region)
    return conditions


async def counts(tx: Tx, customer_id: str | None) -> Counts:
    """Connections ever accepted, open now, closed, and of these closed by an outage."""
    c, u = tables.connections.c, tables.usage.c
    still_open = select(func.count()).where(c.next_minute_ms.is_not(None))
    sums = select(func.sum(u.opened), func.sum(u.closed), func.sum(u.lost))
    if customer_id is not None:
        still_open = still_open.where(c.customer_id == customer_id)
        sums = sums.where(u.customer_id == customer_id)
    accepted, closed, lost = (await tx.execute(sums)).one()
    return Counts(
        int(accepted or 0),
        int(await tx.scalar(still_open) or 0),
        int(closed or 0),
        int(lost or 0),
    )
