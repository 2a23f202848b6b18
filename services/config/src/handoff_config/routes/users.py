"""Users: `/user`, `/current_user` and `/v1/customers/{id}/users`, `/v1/users/{id}`."""

import json
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from handoff_common.access import Principal
from handoff_common.conditional import check_match, etag
from handoff_common.database import Tx
from handoff_common.errors import FieldError, invalid
from handoff_common.http import Page, classic_body, decode_cursor, encode_cursor, ignored_header
from handoff_common.ids import short_id
from handoff_config import account_commands, credentials, schemas, schemas_sign_in, views
from handoff_config.contracts import Customer
from handoff_config.routes.common import (
    Ctx,
    Limit,
    Reader,
    UserManager,
    customer_for,
    customer_of_user,
    on_customer,
)
from handoff_config.store import Answer, Beside
from handoff_config.streams import CUSTOMER
from handoff_config.writes import Context

router = APIRouter(tags=["users"])


def _answer(state: Customer, user_id: str, status: int = 200) -> Answer:
    view = views.user(state.customer_id, state.users[user_id])
    return Answer(view, status, headers={"etag": etag(view)})


async def _create(
    request: Request,
    ctx: Context,
    principal: Principal,
    customer_id: str,
    values: dict[str, Any],
    headers: dict[str, str],
    status: int,
    *,
    user_id: str | None = None,
    beside: Beside | None = None,
    stands_for: bytes | None = None,
) -> Response:
    new_id = user_id or short_id()
    return await ctx.writer.write(
        request,
        principal,
        CUSTOMER,
        customer_id,
        on_customer(
            principal,
            customer_id,
            lambda customer: account_commands.create_user(customer, new_id, values),
        ),
        lambda state: _answer(state, new_id, status),
        headers,
        beside=beside,
        stands_for=stands_for,
    )


async def _update(
    request: Request,
    ctx: Context,
    principal: Principal,
    user_id: str,
    values: dict[str, Any],
    headers: dict[str, str],
) -> Response:
    customer_id = await customer_of_user(ctx, principal, user_id)

    def command(customer: Customer) -> account_commands.Events:
        user = account_commands.user_of(customer, user_id)
        check_match(request, views.user(customer_id, user))
        return account_commands.update_user(customer, user_id, values)

    return await ctx.writer.write(
        request,
        principal,
        CUSTOMER,
        customer_id,
        on_customer(principal, customer_id, command),
        lambda state: _answer(state, user_id),
        headers,
    )


async def _delete(
    request: Request, ctx: Context, principal: Principal, user_id: str, answer: Answer
) -> Response:
    customer_id = await customer_of_user(ctx, principal, user_id)
    return await ctx.writer.write(
        request,
        principal,
        CUSTOMER,
        customer_id,
        on_customer(
            principal,
            customer_id,
            lambda customer: account_commands.delete_user(customer, user_id),
        ),
        lambda _: answer,
    )


async def _get(ctx: Context, principal: Principal, user_id: str) -> Response:
    customer_id = await customer_of_user(ctx, principal, user_id)
    customer = await customer_for(ctx, principal, customer_id)
    view = views.user(customer_id, account_commands.user_of(customer, user_id))
    return JSONResponse(view, headers={"etag": etag(view)})


# --- Classic -----------------------------------------------------------------------------------


@router.get("/current_user", response_model=schemas.UserOut)
async def get_current_user(ctx: Ctx, principal: Reader) -> Response:
    """Whose token the request bears."""
    if principal.user_id is None:
        return JSONResponse(views.operator(principal))
    return await _get(ctx, principal, principal.user_id)


@router.post(
    "/user",
    response_model=schemas.UserOut,
    openapi_extra=schemas.classic_request(schemas.UserIn),
)
async def create_user(request: Request, ctx: Ctx, principal: UserManager) -> Response:
    """Create a user of one's customer; superusers only."""
    known = set(schemas.UserIn.model_fields)
    if principal.customer_id is not None:
        known.discard("customer_id")
    body = await classic_body(request, known)
    values = schemas.given(schemas.UserIn, body.values)
    customer_id = principal.customer_id or values.get("customer_id")
    if customer_id is None:
        raise invalid([FieldError("customer_id", "is missing; an operator says whose user")])
    values = {
        "login": values.get("login") or "",
        "name": values.get("name") or "",
        "role": values.get("role") or "user",
    }
    return await _create(request, ctx, principal, customer_id, values, ignored_header(body), 200)


@router.get("/user/{user_id}", response_model=schemas.UserOut)
async def get_user(user_id: str, ctx: Ctx, principal: Reader) -> Response:
    return await _get(ctx, principal, user_id)


@router.put(
    "/user/{user_id}",
    response_model=schemas.UserOut,
    openapi_extra=schemas.classic_request(schemas.UserIn),
)
async def update_user(user_id: str, request: Request, ctx: Ctx, principal: UserManager) -> Response:
    """Change a user; a new role holds for its tokens at once."""
    body = await classic_body(request, {"login", "name", "role"})
    values = schemas.given(schemas.UserIn, body.values)
    return await _update(request, ctx, principal, user_id, values, ignored_header(body))


@router.delete("/user/{user_id}", response_model=schemas.Status)
async def delete_user(user_id: str, request: Request, ctx: Ctx, principal: UserManager) -> Response:
    """Delete a user; its tokens are revoked."""
    return await _delete(request, ctx, principal, user_id, Answer({"status": "ok"}))


@router.get("/customer/{customer_id}/users", response_model=list[schemas.UserOut])
async def list_users(customer_id: str, ctx: Ctx, principal: Reader) -> Response:
    customer = await customer_for(ctx, principal, customer_id)
    return JSONResponse([views.user(customer_id, user) for user in customer.users.values()])


# --- Under /v1 -----------------------------------------------------------------------------------


@router.post("/v1/customers/{customer_id}/users", status_code=201, response_model=schemas.UserOut)
async def create_customer_user(
    customer_id: str,
    body: schemas_sign_in.NewUser,
    request: Request,
    ctx: Ctx,
    principal: UserManager,
) -> Response:
    """Create a user: operators for any customer, superusers for their own. With a password it can
    sign in; an Idempotency-Key's repeat is not compared by it."""
    values = body.model_dump()
    if body.password is None:
        return await _create(request, ctx, principal, customer_id, values, {}, 201)
    user_id = short_id()
    # Refuses what is wrong before any work is spent on a hash.
    customer = await customer_for(ctx, principal, customer_id)
    account_commands.create_user(customer, user_id, values)
    hashed = await ctx.sign_in.hash(body.password)

    async def keep_hash(tx: Tx) -> None:
        await credentials.keep(tx, user_id, hashed)

    return await _create(
        request,
        ctx,
        principal,
        customer_id,
        values,
        {},
        201,
        user_id=user_id,
        beside=keep_hash,
        stands_for=json.dumps({**values, "password": "(secret)"}).encode(),
    )


@router.get("/v1/customers/{customer_id}/users", response_model=Page[schemas.UserOut])
async def list_customer_users(
    customer_id: str, ctx: Ctx, principal: Reader, limit: Limit = 100, cursor: str | None = None
) -> Response:
    """The customer's users, in the order of their ids."""
    customer = await customer_for(ctx, principal, customer_id)
    after = "" if cursor is None else decode_cursor(cursor, [str])[0]
    found = sorted(user_id for user_id in customer.users if user_id > after)
    page = [views.user(customer_id, customer.users[user_id]) for user_id in found[:limit]]
    following = encode_cursor(found[limit - 1]) if len(found) > limit else None
    return JSONResponse({"data": page, "meta": {"limit": limit, "next_cursor": following}})


@router.get("/v1/users/{user_id}", response_model=schemas.UserOut)
async def get_user_v1(user_id: str, ctx: Ctx, principal: Reader) -> Response:
    return await _get(ctx, principal, user_id)


@router.patch("/v1/users/{user_id}", response_model=schemas.UserOut)
async def change_user(
    user_id: str, body: schemas.UserChange, request: Request, ctx: Ctx, principal: UserManager
) -> Response:
    """Change a user; a new role holds for its tokens at once."""
    values = body.model_dump(exclude_unset=True)
    return await _update(request, ctx, principal, user_id, values, {})


@router.delete("/v1/users/{user_id}", status_code=204, response_model=None)
async def delete_user_v1(
    user_id: str, request: Request, ctx: Ctx, principal: UserManager
) -> Response:
    """Delete a user; its tokens are revoked."""
    return await _delete(request, ctx, principal, user_id, Answer(None, 204))
