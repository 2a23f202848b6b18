"""`GET /v1/concurrency`: how many connections of a service, or of all services of a customer
together, were open at once, for charts.

Work is bounded: by the length of the range, and by what began and ended in it, which the hourly
totals tell before a connection is read.
"""

import asyncio
from collections.abc import Sequence
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Depends, Query

from handoff_common.access import Permission, Principal, authorize
from handoff_common.instants import rfc3339
from handoff_common.minutes import DAY_MS, HOUR_MS, MINUTE_MS, hour_of
from handoff_metering import schemas
from handoff_metering.concurrency import Bucket, sweep
from handoff_metering.context import Context, ordered, region
from handoff_metering.errors import (
    bad_parameter,
    connections_gone,
    range_too_long,
    too_many_connections,
)
from handoff_metering.store import reports

MOST_MARKS = 200_000
"""Acceptances and ends that one call reads: about half a second's work."""

_NOT_GIVEN = -1

Reader = Annotated[Principal, Depends(authorize(Permission.READ_STATS))]


class _Period(NamedTuple):
    ms: int
    longest_ms: int
    longest: str
    default_ms: int


_PERIODS = {
    "minute": _Period(MINUTE_MS, 2 * HOUR_MS, "2 hours", HOUR_MS),
    "hour": _Period(HOUR_MS, 31 * DAY_MS, "31 days", DAY_MS),
    "day": _Period(DAY_MS, 366 * DAY_MS, "366 days", 30 * DAY_MS),
}


def router(context: Context) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["metering"])

    def ranged(asked: schemas.ConcurrencyQuery) -> tuple[int, int]:
        """The range asked for, from the start of a period on and not beyond now."""
        period = _PERIODS[asked.by]
        given_from = context.instant("from", asked.from_, _NOT_GIVEN)
        given_to = context.instant("to", asked.to, _NOT_GIVEN)
        # Read last, so that a `from` of "now" does not lie ahead of it.
        now_ms = context.clock.now_ms()
        to_ms = now_ms if given_to == _NOT_GIVEN else min(now_ms, given_to)
        from_ms = max(0, to_ms - period.default_ms) if given_from == _NOT_GIVEN else given_from
        if from_ms > now_ms:
            raise bad_parameter("from", f"{asked.from_!r} lies ahead; allowed: an instant till now")
        ordered(from_ms, to_ms)
        if to_ms - from_ms > period.longest_ms:
            raise range_too_long(asked.by, to_ms - from_ms, period.longest)
        return from_ms - from_ms % period.ms, to_ms

    @routes.get("/concurrency")
    async def concurrency(
        principal: Reader, asked: Annotated[schemas.ConcurrencyQuery, Query()]
    ) -> schemas.ConcurrencyOut:
        """How many connections of a service, or of all of a customer's services together, were open
        at once, per period: the most, and on average. By minute for at most 2
        hours, by hour for 31 days, by day for 366; 400 `range_too_long` beyond,
        `too_many_connections` where more than 200,000 connections began or ended in it,
        `connections_gone` where they are not kept any more."""
        customer_id = context.customer(principal, asked.customer_id)
        if asked.service_id is not None:
            customer_id = (await context.service(principal, asked.service_id)).customer_id
        where = region(asked.region)
        from_ms, to_ms = ranged(asked)
        # Whole hours, so that what is read can be held against the hourly totals.
        hours = reports.Scope(
            customer_id,
            asked.service_id,
            where,
            hour_of(from_ms),
            -(-to_ms // HOUR_MS) * HOUR_MS,
        )
        async with context.database.read() as tx:
            opened, closed = await reports.marks(tx, hours)
            if opened + closed > MOST_MARKS:
                raise too_many_connections(opened + closed, MOST_MARKS)
            found = await reports.instants(tx, hours)
        if (len(found.accepted), len(found.ended)) != (opened, closed):
            raise connections_gone("from", rfc3339(from_ms))
        buckets = await asyncio.to_thread(_swept, found, hours.from_ms, from_ms, to_ms, asked.by)
        return schemas.ConcurrencyOut(
            data=[schemas.ConcurrencyRow.of(one) for one in buckets],
            meta=schemas.ConcurrencyMeta(
                service_id=asked.service_id,
                region=where or "all",
                by=asked.by,
                from_=rfc3339(from_ms),
                to=rfc3339(to_ms),
            ),
        )

    return routes


def _swept(
    found: reports.Instants, since_ms: int, from_ms: int, to_ms: int, by: str
) -> list[Bucket]:
    """The buckets of a range that begins within the hours that were read."""

    def inside(instants: Sequence[int]) -> list[int]:
        return [one for one in instants if from_ms <= one < to_ms]

    earlier = sum(since_ms <= one < from_ms for one in found.accepted)
    gone = sum(since_ms <= one < from_ms for one in found.ended)
    return sweep(
        found.open_before + earlier - gone,
        inside(found.accepted),
        inside(found.ended),
        from_ms=from_ms,
        to_ms=to_ms,
        period_ms=_PERIODS[by].ms,
    )
