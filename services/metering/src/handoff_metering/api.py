"""The calls under `/v1`: usage, connections, watermarks, reconciliation."""

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from handoff_common.access import Permission, Principal, authorize
from handoff_common.errors import not_found
from handoff_common.events import CLOSE_CODES, Reason
from handoff_common.http import Meta, Page, decode_cursor, encode_cursor
from handoff_common.instants import from_ms, rfc3339
from handoff_common.minutes import month_of, within
from handoff_common.outbox import enqueue
from handoff_metering import publishing, schemas, tables, watermarks
from handoff_metering.context import Context, ordered, region
from handoff_metering.errors import already_closed
from handoff_metering.store import parked as store_parked
from handoff_metering.store import reports
from handoff_metering.store import slices as store_slices
from handoff_metering.store import states as store

_FIRST_EVENTS = 100

Reader = Annotated[Principal, Depends(authorize(Permission.READ_STATS))]
Ender = Annotated[Principal, Depends(authorize(Permission.END_CONNECTIONS))]


def router(context: Context) -> APIRouter:
    """The `/v1` paths."""
    routes = APIRouter(prefix="/v1", tags=["metering"])

    async def scope_of(
        principal: Principal, asked: schemas.Query, default_ms: int
    ) -> reports.Scope:
        now_ms = context.clock.now_ms()
        to_ms = context.instant("to", asked.to, now_ms + 1)
        from_ms_ = context.instant("from", asked.from_, min(default_ms, to_ms))
        ordered(from_ms_, to_ms)
        customer_id = context.customer(principal, asked.customer_id)
        if asked.service_id is not None:
            await context.service(principal, asked.service_id)
        return reports.Scope(customer_id, asked.service_id, region(asked.region), from_ms_, to_ms)

    async def visible(
        principal: Principal, connection_id: str
    ) -> tuple[reports.Found, Mapping[int, int]]:
        async with context.database.read() as tx:
            found = await reports.connection(tx, connection_id)
            positions = await store_slices.read_positions(tx)
        if found is None or not principal.may_see(found.state.customer_id):
            raise not_found("connection", connection_id)
        return found, positions

    def shown(
        found: reports.Found, positions: Mapping[int, int], scope: reports.Scope | None = None
    ) -> schemas.ConnectionOut:
        state = found.state
        inside = (
            None
            if scope is None
            else len(within(state.accepted_ms, state.minutes, scope.from_ms, scope.to_ms))
        )
        return schemas.ConnectionOut.of(found, proof_of_life(found, positions), inside)

    def proof_of_life(found: reports.Found, positions: Mapping[int, int]) -> int:
        state = found.state
        edge = context.edges.edges.get(state.edge_id)
        if state.end is not None or edge is None:
            return state.seen_ms
        mark = edge.passed(found.slice, positions.get(found.slice, 0))
        return max(state.seen_ms, mark.through_ms) if mark else state.seen_ms

    @routes.get("/usage")
    async def usage(
        principal: Reader, asked: Annotated[schemas.UsageQuery, Query()]
    ) -> Page[schemas.UsageRow]:
        """Usage by period, service and region; by default of the current month."""
        scope = await scope_of(principal, asked, month_of(context.clock.now_ms()))
        after = None
        if asked.cursor is not None:
            at, service_id, name = decode_cursor(asked.cursor, (int, str, str))
            after = (at, service_id, name)
        async with context.database.read() as tx:
            rows = await reports.usage(tx, scope, asked.by, after=after, limit=asked.limit + 1)
        page, more = rows[: asked.limit], len(rows) > asked.limit
        cursor = None
        if more:
            last = page[-1]
            cursor = encode_cursor(last.start_ms, last.service_id, last.region)
        return Page(
            data=[schemas.UsageRow.of(row) for row in page],
            meta=Meta(limit=asked.limit, next_cursor=cursor),
        )

    @routes.get("/connections")
    async def connections(
        principal: Reader, asked: Annotated[schemas.ConnectionsQuery, Query()]
    ) -> Page[schemas.ConnectionOut]:
        """Connections that lived between `from` and `to`, the last accepted first. With either of
        them each has `minutes_in_range`: with a usage row's service, region and hour they add up to
        the row's minutes."""
        scope = await scope_of(principal, asked, 0)
        after = None
        if asked.cursor is not None:
            at, connection_id = decode_cursor(asked.cursor, (int, str))
            after = (at, connection_id)
        async with context.database.read() as tx:
            found = await reports.connections(
                tx,
                scope,
                is_open=None if asked.state is None else asked.state == "open",
                edge_id=asked.edge,
                reason=asked.reason.value if asked.reason else None,
                after=after,
                limit=asked.limit + 1,
            )
            positions = await store_slices.read_positions(tx)
        page, more = found[: asked.limit], len(found) > asked.limit
        last = page[-1].state if more else None
        bounded = scope if asked.from_ is not None or asked.to is not None else None
        return Page(
            data=[shown(one, positions, bounded) for one in page],
            meta=Meta(
                limit=asked.limit,
                next_cursor=encode_cursor(last.accepted_ms, last.connection_id) if last else None,
            ),
        )

    @routes.get("/connections/{connection_id}")
    async def connection(principal: Reader, connection_id: str) -> schemas.ConnectionDetail:
        """One connection with its events."""
        found, positions = await visible(principal, connection_id)
        events = await events_of(found, None, _FIRST_EVENTS)
        return schemas.ConnectionDetail(
            **shown(found, positions).model_dump(),
            events=events.data,
            events_meta=schemas.EventsMeta(
                limit=_FIRST_EVENTS, next_cursor=events.meta.next_cursor
            ),
        )

    @routes.get("/connections/{connection_id}/events")
    async def connection_events(
        principal: Reader, connection_id: str, asked: Annotated[schemas.PageQuery, Query()]
    ) -> Page[schemas.EventOut]:
        """Every event of one connection, in the order of the log."""
        found, _ = await visible(principal, connection_id)
        return await events_of(found, asked.cursor, asked.limit)

    async def events_of(
        found: reports.Found, cursor: str | None, limit: int
    ) -> Page[schemas.EventOut]:
        after = -1 if cursor is None else decode_cursor(cursor, (int,))[0]
        async with context.database.read() as tx:
            rows = await reports.events(tx, found, after=after, limit=limit + 1)
        page = rows[:limit]
        more = encode_cursor(page[-1].offset) if len(rows) > limit else None
        return Page(
            data=[schemas.EventOut.of(row) for row in page],
            meta=Meta(limit=limit, next_cursor=more),
        )

    @routes.delete("/connections/{connection_id}", status_code=202)
    async def end(
        principal: Ender,
        connection_id: str,
        reason: Annotated[
            str | None, Query(min_length=1, max_length=100, description="what its peers are told")
        ] = None,
    ) -> schemas.Ending:
        """Ask the edges to end an open connection; what they did shows in its state."""
        found, _ = await visible(principal, connection_id)
        end = found.state.end
        if end is not None:
            raise already_closed(connection_id, end.reason.value, rfc3339(found.state.seen_ms))
        now_ms = context.clock.now_ms()
        said = reason or "ended by the operator"
        message = publishing.end_connection(
            found.state, reason=said, requested_by=principal.token_id, now_ms=now_ms
        )
        async with context.database.transaction() as tx:
            await enqueue(tx, tables.outbox, [message])
        context.outbox.poke()
        return schemas.Ending(
            connection_id=connection_id,
            close_code=CLOSE_CODES[Reason.ENDED_BY_OPERATOR],
            reason=said,
            expires_at=rfc3339(now_ms + publishing.END_WITHIN_MS),
        )

    @routes.get("/watermarks")
    async def watermarks_(principal: Reader) -> schemas.WatermarksOut:
        """How far each edge has vouched, how far each slice has read, what holds a month open."""
        return await _watermarks(context, operator=principal.customer_id is None)

    @routes.get("/reconciliation")
    async def reconciliation(principal: Reader) -> schemas.ReconciliationOut:
        """Whether everything that the edges say they delivered was found."""
        return await _reconciliation(context, principal.customer_id)

    return routes


async def _watermarks(context: Context, *, operator: bool) -> schemas.WatermarksOut:
    edges, silence, lost = context.edges.edges, context.edges.silence, context.edges.lost
    lags = await context.projector.lag()
    async with context.database.read() as tx:
        positions = await store_slices.read_positions(tx)
        gone = lost | {edge_id for edge_id, edge in edges.items() if edge.latest.ended}
        lows = {}
        for partition in sorted(lags):
            number = partition.number
            lows[number] = watermarks.low(
                edges,
                number,
                positions.get(number, 0),
                lost=lost,
                open_on=await store.open_on(tx, number, gone),
                seen=await store.edges_seen(tx, number),
            )
    slices = [
        schemas.SliceOut(
            slice=partition.number,
            position=positions.get(partition.number, 0),
            end=positions.get(partition.number, 0) + lag,
            lag=lag,
            through=_instant(lows[partition.number].through_ms),
            held_by=[
                schemas.HoldOut(
                    edge_id=hold.edge_id, through=_instant(hold.through_ms), cause=hold.cause
                )
                for hold in lows[partition.number].holds[:10]
            ],
        )
        for partition, lag in sorted(lags.items())
    ]
    return schemas.WatermarksOut(
        data=[
            _edge_out(edge, silence[edge_id].ticks, edge_id in lost, positions, operator=operator)
            for edge_id, edge in sorted(edges.items())
        ],
        slices=slices,
        month=_month(context.clock.now_ms(), lows),
        meta={"limit": len(edges), "next_cursor": None},
    )


def _edge_out(
    edge: watermarks.Edge,
    silent_ticks: int,
    lost: bool,
    positions: dict[int, int],
    *,
    operator: bool,
) -> schemas.EdgeOut:
    mark = edge.latest
    return schemas.EdgeOut(
        edge_id=edge.edge_id,
        region=edge.region,
        pop=edge.pop,
        through=rfc3339(mark.through_ms),
        ended=mark.ended,
        lost=lost,
        silent_ticks=silent_ticks,
        journal_backlog=mark.journal_backlog,
        journal_age_ms=mark.journal_age_ms,
        open_connections=mark.open_connections if operator else None,
        accepted_total=mark.accepted_total if operator else None,
        closed_total=mark.closed_total if operator else None,
        partitions=[
            schemas.PartitionOut(
                partition=number,
                edge_position=at,
                position=positions.get(number, 0),
                passed=mark.passed_by(number, positions.get(number, 0)),
            )
            for number, at in sorted(mark.positions.items())
        ],
    )


def _month(now_ms: int, lows: dict[int, watermarks.Low]) -> schemas.MonthOut:
    end_ms = month_of(now_ms)
    held = [
        f"slice {number} is complete through {_instant(low.through_ms) or 'nothing yet'}: "
        f"{low.holds[0].cause}" + (f" ({low.holds[0].edge_id})" if low.holds[0].edge_id else "")
        for number, low in sorted(lows.items())
        if low.through_ms is None or low.through_ms < end_ms
    ]
    return schemas.MonthOut(
        month=from_ms(end_ms - 1).strftime("%Y-%m"),
        ends_at=rfc3339(end_ms),
        complete=not held,
        held_by=held,
    )


def _instant(ms: int | None) -> str | None:
    return None if ms is None else rfc3339(ms)


async def _reconciliation(context: Context, customer_id: str | None) -> schemas.ReconciliationOut:
    async with context.database.read() as tx:
        counts = await reports.counts(tx, customer_id)
        parked = await store_parked.counts(tx)
        positions = await store_slices.read_positions(tx)
        totals = await store.edge_totals(tx)
    mine = sum(parked.values()) if customer_id is None else parked.get(customer_id, 0)
    edges = []
    difference = 0
    for edge_id, edge in sorted(context.edges.edges.items()):
        accepted, closed = totals.get(edge_id, (0, 0))
        missing = watermarks.difference(edge, positions, accepted, closed)
        difference += missing.total if missing else 0
        edges.append(
            schemas.EdgeReconciliation(
                edge_id=edge_id,
                accepted_total=edge.latest.accepted_total,
                closed_total=edge.latest.closed_total,
                accepted_projected=accepted,
                closed_projected=closed,
                accepted_missing=missing.accepted if missing else None,
                closed_missing=missing.closed if missing else None,
            )
        )
    operator = customer_id is None
    return schemas.ReconciliationOut(
        accepted=counts.accepted,
        open=counts.open,
        closed=counts.closed,
        lost=counts.lost,
        parked=mine,
        balanced=not mine
        and counts.accepted == counts.open + counts.closed
        and (not operator or not difference),
        difference=difference if operator else None,
        edges=edges if operator else None,
    )
