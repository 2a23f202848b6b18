"""`/v1/parked`: records that cannot be folded, and an operator's decisions about them.

A decision is an event in the log, in the partition of the record that it is about: whoever reads
the log again decides the same. This module writes it and waits until it has been folded; what it
does is the projection's.
"""

import asyncio
import base64
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response

from handoff_common.access import Permission, Principal, authorize
from handoff_common.errors import LogUnreachable, forbidden
from handoff_common.http import Meta, Page, decode_cursor, encode_cursor
from handoff_common.ids import uuid7
from handoff_common.instants import rfc3339
from handoff_common.log import Partition
from handoff_common.outbox import enqueue
from handoff_common.topics import CONNECTIONS
from handoff_metering import publishing, replay, schemas, tables
from handoff_metering.context import Context
from handoff_metering.errors import already_decided, cannot_be_retried, not_parked
from handoff_metering.store import parked as store
from handoff_metering.store import slices as store_slices

_WAIT_SECONDS = 10.0
_LOOK_SECONDS = 0.02

Reader = Annotated[Principal, Depends(authorize(Permission.READ_STATS))]
Operator = Annotated[Principal, Depends(authorize(Permission.OPERATE))]
PartitionNumber = Annotated[int, Path(ge=0, le=2**31 - 1)]
Offset = Annotated[int, Path(ge=0, le=2**63 - 1)]


def router(context: Context) -> APIRouter:
    """The paths of parked records; operators only."""
    routes = APIRouter(prefix="/v1", tags=["metering"])

    @routes.get("/parked")
    async def parked(
        principal: Reader, asked: Annotated[schemas.ParkedQuery, Query()]
    ) -> Page[schemas.ParkedOut]:
        """Records that were not folded and wait for a decision; operators only."""
        if principal.customer_id is not None:
            raise forbidden(f"role {principal.role.value!r} may not do this; allowed: operator")
        after = None
        if asked.cursor is not None:
            partition, offset = decode_cursor(asked.cursor, (int, int))
            after = (partition, offset)
        async with context.database.read() as tx:
            found = await store.records(
                tx, customer_id=asked.customer_id, after=after, limit=asked.limit + 1
            )
        page, more = found[: asked.limit], len(found) > asked.limit
        return Page(
            data=[_shown(one, with_value=asked.value) for one in page],
            meta=Meta(
                limit=asked.limit,
                next_cursor=encode_cursor(page[-1].partition, page[-1].offset) if more else None,
            ),
        )

    @routes.post("/parked/{partition}/{offset}/decision")
    async def decide(
        principal: Operator,
        partition: PartitionNumber,
        offset: Offset,
        body: schemas.DecisionIn,
        response: Response,
    ) -> schemas.DecisionOut:
        """Fold a parked record after all, or give it up; for ever, in the log. 202 where it is not
        folded yet. 409 `already_decided`, or `cannot_be_retried`: it can only be discarded."""
        await _may_be_decided(context, partition, offset, body)
        event_id = f"parked-{uuid7()}"
        by = principal.login or f"token {principal.token_id}"
        now_ms = context.clock.now_ms()
        message = publishing.decision(
            partition, offset, body.decision, body.reason, by=by, event_id=event_id, now_ms=now_ms
        )
        async with context.database.transaction() as tx:
            await enqueue(tx, tables.outbox, [message])
        folded = await _folded(context, partition, offset)
        async with context.database.read() as tx:
            decided = await store.decision(tx, partition, offset)
        if decided is not None and decided.event_id != event_id:
            raise _already(partition, offset, decided)
        if folded and decided is None:
            raise cannot_be_retried(partition, offset, "it can still not be folded")
        if decided is None:
            response.status_code = 202
        return schemas.DecisionOut(
            partition=partition,
            offset=offset,
            decision=body.decision,
            reason=body.reason,
            decided_by=by,
            decided_at=rfc3339(now_ms if decided is None else decided.decided_ms),
            status="pending" if decided is None else "decided",
        )

    return routes


async def _may_be_decided(
    context: Context, partition: int, offset: int, asked: schemas.DecisionIn
) -> None:
    """404 where nothing is parked there; 409 where it was decided, or a retry would be in vain:
    such a decision would stand in the log for nothing."""
    async with context.database.read() as tx:
        held = await store.record(tx, Partition(CONNECTIONS.name, partition), offset)
        decided = await store.decision(tx, partition, offset)
    if held is None:
        raise (
            not_parked(partition, offset)
            if decided is None
            else _already(partition, offset, decided)
        )
    if asked.decision == "discard":
        return
    if held.kind == "retired":
        raise cannot_be_retried(partition, offset, held.detail)
    if replay.retried(CONNECTIONS.name, held.value) is None:
        raise cannot_be_retried(partition, offset, f"{held.kind}: {held.detail}")


async def _folded(context: Context, partition: int, offset: int) -> bool:
    """Wait until what was enqueued has been folded by whichever worker, or the record is decided;
    False where that took too long."""
    try:
        async with asyncio.timeout(_WAIT_SECONDS):
            if await context.outbox.flushed(timeout=_WAIT_SECONDS) is None:
                return False
            _, end = (await context.log.ends(CONNECTIONS.name))[partition]
            while True:
                async with context.database.read() as tx:
                    position = (await store_slices.read_positions(tx)).get(partition, 0)
                    if position >= end or await store.decision(tx, partition, offset) is not None:
                        return True
                await asyncio.sleep(_LOOK_SECONDS)
    except (TimeoutError, LogUnreachable):
        return False


def _shown(record: store.ParkedRecord, *, with_value: bool) -> schemas.ParkedOut:
    return schemas.ParkedOut(
        topic=CONNECTIONS.name,
        partition=record.partition,
        offset=record.offset,
        key=record.key,
        kind=record.kind,
        detail=record.detail,
        customer_id=record.customer_id,
        appended_at=rfc3339(record.appended_ms),
        parked_at=rfc3339(record.parked_ms),
        value=base64.b64encode(record.value).decode() if with_value else None,
    )


def _already(partition: int, offset: int, decided: store.Decided) -> Exception:
    return already_decided(
        partition,
        offset,
        f"{decided.decision}, by {decided.decided_by} at {rfc3339(decided.decided_ms)}: "
        f"{decided.reason}",
    )
