"""`/tokens` and `/v1/users/{id}/tokens`: made, listed, revoked.

A token's text is random, shown once, and kept only as its SHA-256.
"""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from handoff_common.access import Principal, new_token, token_hash
from handoff_common.errors import FieldError, forbidden, invalid, not_found
from handoff_common.http import Page, classic_body, ignored_header
from handoff_common.ids import uuid7
from handoff_common.instants import to_ms
from handoff_config import account_commands, schemas, views
from handoff_config.account_commands import NewToken
from handoff_config.contracts import Customer, Operators, Token
from handoff_config.routes.common import (
    Ctx,
    PageNumber,
    PerPage,
    Reader,
    TokenOwner,
    asking,
    customer_for,
    customer_of_user,
    link_header,
    on_customer,
    page_of,
)
from handoff_config.store import Answer
from handoff_config.streams import CUSTOMER, OPERATORS
from handoff_config.writes import Context

router = APIRouter(tags=["tokens"])


def _new(values: dict[str, Any]) -> tuple[str, NewToken]:
    """(the token's text, what is kept of it)."""
    text = new_token()
    expires = values.get("expires_at")
    return text, NewToken(
        uuid7(),
        token_hash(text),
        values.get("name") or "",
        values.get("scope") or "global",
        None if expires is None else to_ms(expires),
    )


def _created(
    customer_id: str | None, text: str, new: NewToken, status: int
) -> Callable[[Customer | Operators], Answer]:
    def answer(state: Customer | Operators) -> Answer:
        view = views.token(customer_id, state.tokens[new.token_id])
        return Answer({**view, "access_token": text}, status, kept=view)

    return answer


async def _create(
    request: Request,
    ctx: Context,
    principal: Principal,
    customer_id: str,
    user_id: str,
    values: dict[str, Any],
    headers: dict[str, str],
    status: int,
) -> Response:
    text, new = _new(values)
    return await ctx.writer.write(
        request,
        principal,
        CUSTOMER,
        customer_id,
        on_customer(
            principal,
            customer_id,
            lambda customer: account_commands.create_token(
                customer, user_id, new, asking(principal), ctx.clock.now_ms()
            ),
        ),
        _created(customer_id, text, new, status),
        headers,
    )


@router.post(
    "/tokens",
    response_model=schemas.TokenCreated,
    openapi_extra=schemas.classic_request(schemas.TokenIn),
)
async def create_token(request: Request, ctx: Ctx, principal: TokenOwner) -> Response:
    """A new token for the user whose token the request bears; an operator's makes an operator's."""
    body = await classic_body(request, schemas.TokenIn.model_fields)
    values = schemas.given(schemas.TokenIn, body.values)
    if values.get("services"):
        raise invalid([FieldError("services", "is not empty; allowed: tokens for all services")])
    headers = ignored_header(body)
    if principal.customer_id is not None and principal.user_id is not None:
        customer_id, user_id = principal.customer_id, principal.user_id
        return await _create(request, ctx, principal, customer_id, user_id, values, headers, 200)
    text, new = _new(values)
    return await ctx.writer.write(
        request,
        principal,
        OPERATORS,
        "",
        lambda state: account_commands.create_operator_token(state, new, ctx.clock.now_ms()),
        _created(None, text, new, 200),
        headers,
    )


@router.get("/tokens", response_model=list[schemas.TokenOut])
async def list_tokens(ctx: Ctx, principal: Reader) -> Response:
    """The tokens in force of the user whose token the request bears."""
    now = ctx.clock.now_ms()
    if principal.customer_id is None:
        operators = await ctx.store.operators()
        own = list(operators.tokens.values()) if operators else []
    else:
        customer = await customer_for(ctx, principal, principal.customer_id)
        own = [t for t in customer.tokens.values() if t.user_id == principal.user_id]
    return JSONResponse([views.token(principal.customer_id, t) for t in own if t.in_force(now)])


@router.get("/customer/{customer_id}/tokens", response_model=list[schemas.TokenOut])
async def list_customer_tokens(
    customer_id: str,
    request: Request,
    ctx: Ctx,
    principal: Reader,
    page: PageNumber = 1,
    per_page: PerPage = 100,
) -> Response:
    """Every token in force of a customer, for superusers."""
    if principal.role not in ("superuser", "operator"):
        raise forbidden(f"role {principal.role.value!r} may not; allowed: superuser, operator")
    customer = await customer_for(ctx, principal, customer_id)
    now = ctx.clock.now_ms()
    tokens = [t for t in customer.tokens.values() if t.in_force(now)]
    return JSONResponse(
        [views.token(customer_id, token) for token in page_of(tokens, page, per_page)],
        headers=link_header(request, page, per_page, len(tokens)),
    )


@router.get("/tokens/self", response_model=schemas.TokenOut)
async def get_own_token(ctx: Ctx, principal: Reader) -> Response:
    """The token that the request bears."""
    return await _get(ctx, principal, principal.token_id)


@router.get("/tokens/{token_id}", response_model=schemas.TokenOut)
async def get_token(token_id: str, ctx: Ctx, principal: Reader) -> Response:
    return await _get(ctx, principal, token_id)


@router.delete("/tokens/self", status_code=204, response_model=None)
async def revoke_own_token(request: Request, ctx: Ctx, principal: TokenOwner) -> Response:
    """Revoke the token that the request bears."""
    return await _revoke(request, ctx, principal, principal.token_id)


@router.delete("/tokens/{token_id}", status_code=204, response_model=None)
async def revoke_token(
    token_id: str, request: Request, ctx: Ctx, principal: TokenOwner
) -> Response:
    """Revoke a token: one's own, or, as a superuser, any of the customer's. It stops working
    everywhere within 2 s; 204 also where it was revoked before."""
    return await _revoke(request, ctx, principal, token_id)


async def _holder(ctx: Context, principal: Principal, token_id: str) -> str | None:
    """The customer that holds the token, None for the operators; 404 where it may not be seen."""
    stream = await ctx.store.stream_of_token(token_id)
    if stream is None:
        raise not_found("token", token_id)
    customer_id = stream.removeprefix(CUSTOMER.prefix)
    if stream == OPERATORS.prefix:
        if principal.customer_id is not None:
            raise not_found("token", token_id)
        return None
    if not principal.may_see(customer_id):
        raise not_found("token", token_id)
    return customer_id


async def _get(ctx: Context, principal: Principal, token_id: str) -> Response:
    customer_id = await _holder(ctx, principal, token_id)
    if customer_id is None:
        operators = await ctx.store.operators() or Operators()
        return JSONResponse(views.token(None, account_commands.token_of(operators, token_id)))
    customer = await customer_for(ctx, principal, customer_id)
    token: Token = account_commands.token_of(customer, token_id)
    if token.user_id != principal.user_id and principal.role not in ("superuser", "operator"):
        raise not_found("token", token_id)
    return JSONResponse(views.token(customer_id, token))


async def _revoke(request: Request, ctx: Context, principal: Principal, token_id: str) -> Response:
    customer_id = await _holder(ctx, principal, token_id)
    if customer_id is None:
        return await ctx.writer.write(
            request,
            principal,
            OPERATORS,
            "",
            lambda state: account_commands.revoke_operator_token(
                state or Operators(), token_id, ctx.clock.now_ms()
            ),
            lambda _: Answer(None, 204),
        )
    return await ctx.writer.write(
        request,
        principal,
        CUSTOMER,
        customer_id,
        on_customer(
            principal,
            customer_id,
            lambda customer: account_commands.revoke_token(customer, token_id, asking(principal)),
        ),
        lambda _: Answer(None, 204),
    )


# --- Under /v1 -----------------------------------------------------------------------------------


@router.post("/v1/users/{user_id}/tokens", status_code=201, response_model=schemas.TokenCreated)
async def create_user_token(
    user_id: str, body: schemas.NewTokenIn, request: Request, ctx: Ctx, principal: TokenOwner
) -> Response:
    """A new token of a user: one's own, or, as a superuser, of any user of the customer."""
    customer_id = await customer_of_user(ctx, principal, user_id)
    values = body.model_dump()
    return await _create(request, ctx, principal, customer_id, user_id, values, {}, 201)


@router.get("/v1/users/{user_id}/tokens", response_model=Page[schemas.TokenOut])
async def list_user_tokens(user_id: str, ctx: Ctx, principal: Reader) -> Response:
    """A user's tokens in force: one's own, or, as a superuser, of any user of the customer."""
    customer = await customer_for(ctx, principal, await customer_of_user(ctx, principal, user_id))
    if user_id != principal.user_id and principal.role not in ("superuser", "operator"):
        raise forbidden(f"role {principal.role.value!r} may list its own tokens only")
    now = ctx.clock.now_ms()
    own = [t for t in customer.tokens.values() if t.user_id == user_id and t.in_force(now)]
    data = [views.token(customer.customer_id, token) for token in own]
    return JSONResponse({"data": data, "meta": {"limit": len(data), "next_cursor": None}})
