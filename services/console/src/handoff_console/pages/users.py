"""Users, their roles, passwords and tokens: a superuser's of its own customer, an operator's of
any; and everybody's own account."""

import asyncio
from typing import cast

from starlette.responses import Response
from starlette.routing import Route

from handoff_client import (
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    customers,
    sessions,
    tokens,
    users,
)
from handoff_client.tokens import NewToken, Scope
from handoff_client.users import Role
from handoff_common.access import Permission
from handoff_console.attempts import FRESH, Attempt, BadField, attempt, instant
from handoff_console.context import Visit, page

PER_PAGE = 100
ROLES = (
    ("user", "user: looks at services and usage"),
    ("billing", "billing: that, and invoices and prices"),
    ("engineer", "engineer: configures, enables, ends connections"),
    ("superuser", "superuser: everything of the customer"),
)
SCOPES = (("global", "everything its user may"), ("global:read", "read only"))
NEW_USER = ("login", "name", "role")
USER = ("name", "role")
TOKEN = ("name", "scope", "expires_at")
_Refusals = (Invalid, Conflict, Forbidden, BadField)


async def listed(visit: Visit) -> Response:
    return await _listed(visit)


async def _listed(visit: Visit, tried: Attempt = FRESH) -> Response:
    customer_id = _of_customer(visit)
    own = "customer_id" not in visit.request.path_params
    found = await visit.api.page(
        users.listing(customer_id, limit=PER_PAGE), visit.request.query_params.get("at")
    )
    name = visit.viewer.customer_name
    if not own:
        name = (await visit.api.run(customers.get(customer_id))).name
    return visit.render(
        "users.html",
        status=tried.status,
        users=found.items,
        following=found.next,
        customer_id=customer_id,
        customer_name=name,
        own=own,
        roles=ROLES,
        tried=tried,
    )


def _of_customer(visit: Visit) -> str:
    return str(visit.request.path_params.get("customer_id") or visit.customer_id)


async def create(visit: Visit) -> Response:
    password = visit.form.get("password", "")
    try:
        made = await visit.api.run(
            users.create(
                _of_customer(visit),
                visit.field("login"),
                _role(visit),
                name=visit.field("name"),
                **({"password": password} if password else {}),
            )
        )
    except _Refusals as error:
        tried = attempt(visit, "user", (*NEW_USER, "password"), error)
        tried.typed.pop("password", None)  # type: ignore[attr-defined]
        return await _listed(visit, tried)
    return visit.go(f"/users/{made.id}", flash=f"{made.login} is added.")


def _role(visit: Visit) -> Role:
    # The API says which there are.
    return cast(Role, visit.field("role"))


async def one(visit: Visit) -> Response:
    return await _shown(visit)


async def _shown(visit: Visit, tried: Attempt = FRESH) -> Response:
    user_id = _user_id(visit)
    held, found = await asyncio.gather(
        visit.api.run(users.get(user_id).with_headers()), visit.api.page(tokens.of_user(user_id))
    )
    return visit.render(
        "user.html",
        status=tried.status,
        user=held.value,
        etag=held.etag or "",
        tokens=found.items,
        is_own=held.value.login == visit.viewer.login,
        roles=ROLES,
        scopes=SCOPES,
        tried=tried,
    )


def _user_id(visit: Visit) -> str:
    return str(visit.request.path_params["user_id"])


async def change(visit: Visit) -> Response:
    user_id = _user_id(visit)
    try:
        await visit.api.run(
            users.change(
                user_id,
                name=visit.field("name"),
                role=_role(visit),
                if_match=visit.field("etag") or None,
            )
        )
    except _Refusals as error:
        return await _shown(visit, attempt(visit, "user", USER, error))
    return visit.go(f"/users/{user_id}", flash="Changed; a new role holds at once.")


async def delete(visit: Visit) -> Response:
    user_id = _user_id(visit)
    user = await visit.api.run(users.get(user_id))
    try:
        await visit.api.run(users.delete(user_id))
    except _Refusals as error:
        return await _shown(visit, attempt(visit, "delete", (), error))
    elsewhere = user.customer_id is not None and user.customer_id != visit.viewer.customer_id
    path = f"/customers/{user.customer_id}/users" if elsewhere else "/users"
    return visit.go(path, flash=f"{user.login} is deleted, and its tokens are revoked.")


async def set_password(visit: Visit) -> Response:
    user_id = _user_id(visit)
    try:
        await visit.api.run(sessions.set_password(user_id, _new_password(visit)))
    except _Refusals as error:
        fields = ("password", "repeated")
        return await _shown(visit, attempt(visit, "password", fields, error, keep=False))
    return visit.go(
        f"/users/{user_id}", flash="The password is set; sessions with the old one end."
    )


def _new_password(visit: Visit) -> str:
    """Blanks belong to it. Raises BadField where the two differ."""
    password, repeated = (visit.form.get(name, "") for name in ("password", "repeated"))
    if password != repeated:
        raise BadField("repeated", "is not the same; type it once more")
    return password


async def make_token(visit: Visit) -> Response:
    user_id = _user_id(visit)
    try:
        made = await visit.api.run(
            tokens.create_for(
                user_id,
                name=visit.field("name"),
                scope=_scope(visit),
                expires_at=instant(visit, "expires_at"),
            )
        )
    except _Refusals as error:
        return await _shown(visit, attempt(visit, "token", TOKEN, error))
    return _made(visit, made, f"/users/{user_id}")


def _scope(visit: Visit) -> Scope:
    return cast(Scope, visit.field("scope"))


def _made(visit: Visit, made: NewToken, back: str) -> Response:
    """Shown this once, so not behind a redirect: nothing keeps it for the page after it."""
    return visit.render("token_made.html", token=made, back=back)


async def revoke_token(visit: Visit) -> Response:
    await visit.api.run(tokens.revoke(visit.request.path_params["token_id"]))
    return visit.go(f"/users/{_user_id(visit)}", flash="The token is revoked.")


# --- One's own ----------------------------------------------------------------------------------


async def account(visit: Visit) -> Response:
    return await _account(visit)


async def _account(visit: Visit, tried: Attempt = FRESH) -> Response:
    user, own, found = await asyncio.gather(
        visit.api.run(users.current()),
        visit.api.run(tokens.get_self()),
        visit.api.page(tokens.listing()),
    )
    return visit.render(
        "account.html",
        status=tried.status,
        user=user,
        own_token=own,
        tokens=found.items,
        scopes=SCOPES,
        tried=tried,
        may_change=visit.viewer.can(Permission.MANAGE_OWN_TOKENS),
        has_password=user.customer_id is not None,
    )


async def set_own_password(visit: Visit) -> Response:
    """Sessions end with their password: whoever signed in with it signs in again."""
    user, own = await asyncio.gather(
        visit.api.run(users.current()), visit.api.run(tokens.get_self())
    )
    present = visit.form.get("current_password", "")
    try:
        await visit.api.run(
            sessions.set_password(
                user.id,
                _new_password(visit),
                **({"current_password": present} if present else {}),
            )
        )
    except (*_Refusals, NotFound) as error:
        fields = ("current_password", "password", "repeated")
        return await _account(visit, attempt(visit, "password", fields, error, keep=False))
    if own.session:
        visit.request.session.clear()
        return visit.go("/sign-in", flash="The password is set. Sign in with it.")
    return visit.go("/account", flash="The password is set.")


async def make_own_token(visit: Visit) -> Response:
    try:
        made = await visit.api.run(
            tokens.create(
                name=visit.field("name"),
                scope=_scope(visit),
                expires_at=instant(visit, "expires_at"),
            )
        )
    except _Refusals as error:
        return await _account(visit, attempt(visit, "token", TOKEN, error))
    return _made(visit, made, "/account")


async def revoke_own_token(visit: Visit) -> Response:
    try:
        await visit.api.run(tokens.revoke(visit.request.path_params["token_id"]))
    except Conflict as error:
        return await _account(visit, attempt(visit, "revoke", (), error))
    return visit.go("/account", flash="The token is revoked.")


_USER = "/users/{user_id}"
_OF_CUSTOMER = "/customers/{customer_id}/users"
_MANAGE = Permission.MANAGE_USERS
_OWN = Permission.MANAGE_OWN_TOKENS
ROUTES = (
    Route("/users", page(_MANAGE, listed)),
    Route("/users", page(_MANAGE, create), methods=["POST"]),
    Route(_OF_CUSTOMER, page(Permission.OPERATE, listed)),
    Route(_OF_CUSTOMER, page(Permission.OPERATE, create), methods=["POST"]),
    Route(_USER, page(_MANAGE, one)),
    Route(_USER, page(_MANAGE, change), methods=["POST"]),
    Route(f"{_USER}/delete", page(_MANAGE, delete), methods=["POST"]),
    Route(f"{_USER}/password", page(_MANAGE, set_password), methods=["POST"]),
    Route(f"{_USER}/tokens", page(_MANAGE, make_token), methods=["POST"]),
    Route(f"{_USER}/tokens/{{token_id}}/revoke", page(_MANAGE, revoke_token), methods=["POST"]),
    Route("/account", page(Permission.READ_CONFIG, account)),
    Route("/account/password", page(_OWN, set_own_password), methods=["POST"]),
    Route("/account/tokens", page(_OWN, make_own_token), methods=["POST"]),
    Route("/account/tokens/{token_id}/revoke", page(_OWN, revoke_own_token), methods=["POST"]),
)
