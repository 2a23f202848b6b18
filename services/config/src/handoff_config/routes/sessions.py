"""Signing in, `POST /v1/sessions`, and passwords, `PUT /v1/users/{id}/password`.

A session is a token that a password was given for; signing out is `DELETE /tokens/self`.
"""

from fastapi import APIRouter, Request
from starlette.responses import Response

from handoff_common.access import new_token, token_hash
from handoff_common.database import Tx
from handoff_common.errors import FieldError, invalid
from handoff_common.ids import uuid7
from handoff_config import account_commands, credentials, errors, schemas_sign_in, views
from handoff_config.account_commands import NewToken
from handoff_config.contracts import Customer, User
from handoff_config.routes.common import (
    Ctx,
    TokenOwner,
    asking,
    customer_for,
    customer_of_user,
    on_customer,
)
from handoff_config.store import Answer
from handoff_config.streams import CUSTOMER
from handoff_config.writes import Context, actor

router = APIRouter(tags=["sessions"])

PATH = "/v1/sessions"
_HOUR_MS = 3_600_000


@router.post(PATH, status_code=201, response_model=schemas_sign_in.SessionOut)
async def create_session(body: schemas_sign_in.SignInIn, request: Request, ctx: Ctx) -> Response:
    """Sign in: a token for `HANDOFF_SESSION_HOURS`, for a login and a password; no token is needed
    for the call, and no Idempotency-Key looked at. 401 `sign_in_failed` whichever of the two is
    wrong; 429 `too_many_sign_ins` after 10 failures with a login, or 100 from an address, within
    15 minutes. `DELETE /tokens/self` signs out."""
    found = await ctx.sign_in.check(request, body.login, body.password)
    customer = None if found is None else await ctx.store.customer(found.customer_id)
    if found is None or customer is None or found.user_id not in customer.users:
        raise errors.sign_in_failed()
    if ctx.quota.spend(found.user_id) is None:
        raise errors.too_many_writes(ctx.settings.write_limit, ctx.quota.reset_s())
    user_id, login = found.user_id, customer.users[found.user_id].login
    better = await ctx.sign_in.better(found, body.password)
    text, now = new_token(), ctx.clock.now_ms()
    ends = now + ctx.settings.session_hours * _HOUR_MS
    new = NewToken(uuid7(), token_hash(text), "session", "global", ends)

    async def beside(tx: Tx) -> None:
        # It may have been changed since it was looked at.
        if not await credentials.is_still(tx, user_id, found.hash):
            raise errors.sign_in_failed()
        if better is not None:
            await credentials.keep(tx, user_id, better)
        await credentials.forgive(tx, login)

    def answer(state: Customer) -> Answer:
        view = views.session(state, state.tokens[new.token_id], text)
        return Answer(view, 201, headers={"cache-control": "no-store"})

    return await ctx.writer.record(
        actor(request, None, user_id, login),
        CUSTOMER,
        customer.customer_id,
        lambda state: account_commands.create_session(state, user_id, new, now),
        answer,
        beside=beside,
    )


@router.put("/v1/users/{user_id}/password", status_code=204, response_model=None)
async def set_password(
    user_id: str,
    body: schemas_sign_in.PasswordIn,
    request: Request,
    ctx: Ctx,
    principal: TokenOwner,
) -> Response:
    """Set a password: one's own, with the present one, or, as a superuser, that of any user of the
    customer, or, as an operator, anyone's. The user's sessions end, the one that asks too; other
    tokens stay. 403 `wrong_current_password` counts as a failed sign-in."""
    customer_id = await customer_of_user(ctx, principal, user_id)
    customer = await customer_for(ctx, principal, customer_id)
    # Refuses what is wrong before any work is spent on a hash.
    account_commands.set_password(customer, user_id, body.password, asking(principal))
    user = account_commands.user_of(customer, user_id)
    own = principal.user_id == user_id
    present = await _confirmed(ctx, request, user, body.current_password) if own else None
    hashed = await ctx.sign_in.hash(body.password)

    async def beside(tx: Tx) -> None:
        if own and not await credentials.is_still(tx, user_id, present):
            raise errors.wrong_current_password()
        await credentials.keep(tx, user_id, hashed)
        await credentials.forgive(tx, user.login)

    return await ctx.writer.write(
        request,
        principal,
        CUSTOMER,
        customer_id,
        on_customer(
            principal,
            customer_id,
            lambda state: account_commands.set_password(
                state, user_id, body.password, asking(principal)
            ),
        ),
        lambda _: Answer(None, 204),
        beside=beside,
    )


async def _confirmed(
    ctx: Context, request: Request, user: User, password: str | None
) -> str | None:
    """The hash of the present password, which `password` is; None where there is none yet, and
    none was given."""
    if password is None and user.password_set_ms is None:
        return None
    if password is None:
        reason = "is missing; allowed: one's present password, to set one's own"
        raise invalid([FieldError("current_password", reason)])
    found = await ctx.sign_in.check(request, user.login, password)
    if found is None or found.user_id != user.user_id:
        raise errors.wrong_current_password()
    return found.hash
