"""`/v1/refusals`: why handoffs were refused, as the edges have counted it.

A refused handoff is no connection: it is not billed, and it is in no proof. Counts come a few
seconds after the fact.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from handoff_common.access import Permission, Principal, authorize
from handoff_common.http import Meta, Page, decode_cursor, encode_cursor
from handoff_common.minutes import DAY_MS
from handoff_metering import schemas
from handoff_metering.context import Context, ordered
from handoff_metering.refusals import NOBODY
from handoff_metering.store import refusals as store

Reader = Annotated[Principal, Depends(authorize(Permission.READ_STATS))]


def router(context: Context) -> APIRouter:
    """The path of refusals."""
    routes = APIRouter(prefix="/v1", tags=["metering"])

    @routes.get("/refusals")
    async def refusals(
        principal: Reader, asked: Annotated[schemas.RefusalsQuery, Query()]
    ) -> Page[schemas.RefusalRow]:
        """Refused handoffs by hour, service and cause, the newest hour first; by default of the
        last 24 hours. Those that no service was asked for are shown to operators only."""
        now_ms = context.clock.now_ms()
        to_ms = context.instant("to", asked.to, now_ms + 1)
        from_ms = context.instant("from", asked.from_, max(0, to_ms - DAY_MS))
        ordered(from_ms, to_ms)
        customer_id = context.customer(principal, asked.customer_id)
        if asked.service_id is not None:
            await context.service(principal, asked.service_id)
        after = None
        if asked.cursor is not None:
            at, service_id, cause = decode_cursor(asked.cursor, (int, str, str))
            after = (at, service_id, cause)
        scope = store.Asked(customer_id, asked.service_id, asked.cause, from_ms, to_ms)
        async with context.database.read() as tx:
            rows = await store.rows(tx, scope, asked.by, after=after, limit=asked.limit + 1)
        page, more = rows[: asked.limit], len(rows) > asked.limit
        cursor = None
        if more:
            last = page[-1]
            cursor = encode_cursor(last.start_ms or 0, last.service_id or NOBODY, last.cause)
        return Page(
            data=[schemas.RefusalRow.of(row) for row in page],
            meta=Meta(limit=asked.limit, next_cursor=cursor),
        )

    return routes
