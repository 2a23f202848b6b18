"""Who may do what: tokens and roles, projected from `handoff.access.v1`.

A token is 32 random characters, stored only as its SHA-256. A customer never sees that another's
object exists: ownership is checked by `Principal.may_see`, and the answer is then 404.
"""

import hashlib
import secrets
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Literal, NamedTuple

from fastapi import Request

from handoff_common.clock import Clock
from handoff_common.errors import ApiError, forbidden, not_found
from handoff_common.events import AccessData, AccessSnapshot
from handoff_common.instants import to_ms
from handoff_common.log import EventLog
from handoff_common.topics import ACCESS
from handoff_common.view import View


class Role(StrEnum):
    OPERATOR = "operator"
    SUPERUSER = "superuser"
    ENGINEER = "engineer"
    BILLING = "billing"
    USER = "user"


class Permission(StrEnum):
    """What a call needs. `WRITING` ones are refused to tokens of scope `global:read`."""

    READ_CONFIG = "read_config"
    READ_STATS = "read_stats"
    WRITE_CONFIG = "write_config"
    TOGGLE_PRODUCTS = "toggle_products"
    END_CONNECTIONS = "end_connections"
    READ_BILLING = "read_billing"
    WRITE_BUDGETS = "write_budgets"
    MANAGE_USERS = "manage_users"
    MANAGE_OWN_TOKENS = "manage_own_tokens"
    OPERATE = "operate"


_USER = frozenset({Permission.READ_CONFIG, Permission.READ_STATS, Permission.MANAGE_OWN_TOKENS})
_BILLING = _USER | {Permission.READ_BILLING, Permission.WRITE_BUDGETS}
_ENGINEER = _USER | {
    Permission.WRITE_CONFIG,
    Permission.TOGGLE_PRODUCTS,
    Permission.END_CONNECTIONS,
}
_SUPERUSER = _BILLING | _ENGINEER | {Permission.MANAGE_USERS}

ALLOWED: dict[Role, frozenset[Permission]] = {
    Role.USER: _USER,
    Role.BILLING: _BILLING,
    Role.ENGINEER: _ENGINEER,
    Role.SUPERUSER: _SUPERUSER,
    Role.OPERATOR: _SUPERUSER | {Permission.OPERATE},
}

WRITING = frozenset(Permission) - {
    Permission.READ_CONFIG,
    Permission.READ_STATS,
    Permission.READ_BILLING,
}


class Principal(NamedTuple):
    """Whose token a request bears. `customer_id` and `user_id` are None for operators."""

    token_id: str
    user_id: str | None
    customer_id: str | None
    login: str
    role: Role
    scope: Literal["global", "global:read"]

    def can(self, permission: Permission) -> bool:
        return permission in ALLOWED[self.role] and not (
            self.scope == "global:read" and permission in WRITING
        )

    def may_see(self, customer_id: str) -> bool:
        return self.customer_id is None or self.customer_id == customer_id


def owner_of(principal: Principal, customer_id: str | None) -> str | None:
    """Whose data a call is about that may name a customer; None: an operator who named nobody. 404
    for another's."""
    if customer_id is None or principal.may_see(customer_id):
        return principal.customer_id or customer_id
    raise not_found("customer", customer_id)


def new_token() -> str:
    return secrets.token_urlsafe(24)


def token_hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


class AccessView:
    """The tokens, in memory. `run` is its loop."""

    def __init__(self, log: EventLog, clock: Clock) -> None:
        self._clock = clock
        self._by_hash: dict[str, AccessData] = {}
        self._by_id: dict[str, AccessData] = {}
        self.view = View(log, [ACCESS.name], self._fold, name="access")

    async def run(self) -> None:
        await self.view.run()

    async def find(self, token: str) -> Principal | None:
        """The principal of a token that is in force. One that is not known is looked for up to the
        log's end first, so that a token works as soon as the call that made it has answered."""
        digest = token_hash(token)
        if digest not in self._by_hash:
            await self.view.catch_up(timeout=2.0)
        access = self._by_hash.get(digest)
        if access is None or access.revoked_at is not None:
            return None
        if access.expires_at is not None and to_ms(access.expires_at) <= self._clock.now_ms():
            return None
        return Principal(
            access.token_id,
            access.user_id,
            access.customer_id,
            access.login,
            Role(access.role),
            access.scope,
        )

    def _fold(self, event: AccessSnapshot, _partition: int) -> None:
        known = self._by_id.get(event.data.token_id)
        if known is not None and known.revision >= event.data.revision:
            return
        self._by_id[event.data.token_id] = event.data
        self._by_hash[event.data.token_sha256] = event.data


def bearer(request: Request) -> str | None:
    """The token of `Fastly-Key`, or of `Authorization: Bearer`."""
    key = request.headers.get("fastly-key")
    if key:
        return key.strip()
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    return value.strip() or None if scheme.lower() == "bearer" else None


async def caller(access: AccessView, request: Request) -> Principal:
    """Whose token the request bears; 401 without one in force."""
    token = bearer(request)
    principal = await access.find(token) if token else None
    if principal is None:
        raise ApiError(
            401,
            "no_valid_token",
            "Provided credentials are missing or invalid",
            "send a token that is in force as Fastly-Key, or as Authorization: Bearer",
            headers={"WWW-Authenticate": "Bearer"},
        )
    return principal


def authorize(permission: Permission) -> Callable[[Request], Awaitable[Principal]]:
    """A FastAPI dependency: the request's principal, who holds the permission.

    401 without a token in force, 403 where role or scope do not allow it. The application's
    `state.access` is the AccessView.
    """

    async def dependency(request: Request) -> Principal:
        principal = await caller(request.app.state.access, request)
        if permission not in ALLOWED[principal.role]:
            allowed = ", ".join(role for role in Role if permission in ALLOWED[role])
            raise forbidden(f"role {principal.role.value!r} may not do this; allowed: {allowed}")
        if not principal.can(permission):
            raise forbidden(f"the token's scope is {principal.scope!r}, which cannot write")
        request.state.principal = principal
        return principal

    return dependency
