"""`/v1/history`: who changed what, when, from where, before and after."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import JSONResponse, Response

from handoff_common.access import ALLOWED, Permission, Principal, owner_of
from handoff_common.http import Page, decode_cursor, encode_cursor
from handoff_config import schemas, views
from handoff_config.routes.common import Ctx, Limit, Reader, service_for
from handoff_config.store import change_of
from handoff_config.writes import Context

router = APIRouter(tags=["history"])


async def _page(
    ctx: Context,
    principal: Principal,
    limit: int,
    cursor: str | None,
    *,
    customer_id: str | None,
    service_id: str | None = None,
    kind: str | None = None,
) -> Response:
    rows = await ctx.store.history(
        customer_id=customer_id,
        service_id=service_id,
        kind=kind,
        services_only=Permission.MANAGE_USERS not in ALLOWED[principal.role],
        before=None if cursor is None else decode_cursor(cursor, [int])[0],
        limit=limit + 1,
    )
    to_operator = principal.customer_id is None
    data = [views.entry(row, change_of(row), to_operator=to_operator) for row in rows[:limit]]
    following = encode_cursor(rows[limit - 1].revision) if len(rows) > limit else None
    return JSONResponse({"data": data, "meta": {"limit": limit, "next_cursor": following}})


@router.get("/v1/history", response_model=Page[schemas.HistoryEntry])
async def list_history(
    ctx: Ctx,
    principal: Reader,
    limit: Limit = 100,
    cursor: str | None = None,
    customer_id: str | None = None,
) -> Response:
    """Every change of the customer, newest first; of its users, tokens and contracts too for those
    who may manage them. An operator sees all, or one customer's."""
    asked = owner_of(principal, customer_id)
    return await _page(ctx, principal, limit, cursor, customer_id=asked)


@router.get("/v1/services/{service_id}/history", response_model=Page[schemas.HistoryEntry])
async def list_service_history(
    service_id: str,
    ctx: Ctx,
    principal: Reader,
    limit: Limit = 100,
    cursor: str | None = None,
    object_: Annotated[
        schemas.ServiceObject | None, Query(alias="object", description="Only of this kind")
    ] = None,
) -> Response:
    """Every change of one service, newest first; with `object`, of one kind."""
    service = await service_for(ctx, principal, service_id)
    return await _page(
        ctx,
        principal,
        limit,
        cursor,
        customer_id=service.customer_id,
        service_id=service_id,
        kind=object_,
    )
