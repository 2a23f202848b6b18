"""From a password or a token to a viewer, by the APIs; and where to go afterwards."""

import asyncio
import contextlib
from urllib.parse import urlsplit

from handoff_client import AsyncClient, HandoffApiError, customers, sessions, tokens, users
from handoff_common.access import Role
from handoff_console.viewer import Viewer, shortened

END_SECONDS = 5.0


async def with_password(api: AsyncClient, login: str, password: str, until_ms: int) -> Viewer:
    """until_ms: when the session ends. Raises Unauthorized, RateLimited, and what else the API
    refuses."""
    made = await api.run(sessions.create(login, password))
    return Viewer(
        made.access_token,
        made.user.login,
        Role(made.user.role),
        "global",
        made.customer.id,
        shortened(made.customer.name),
        until_ms,
    )


async def with_token(api: AsyncClient, token: str, until_ms: int) -> Viewer:
    """Whose token it is. until_ms: when the session ends. Raises Unauthorized."""
    held = await api.run(tokens.get_self())
    user = await api.run(users.current())
    customer: customers.CurrentCustomer | None = None
    if user.customer_id is not None:
        customer = await api.run(customers.current())
    return Viewer(
        token,
        user.login,
        Role(user.role),
        "global" if held.scope == "global" else "global:read",
        None if customer is None else customer.id,
        "" if customer is None else shortened(customer.name),
        until_ms,
    )


async def end(api: AsyncClient) -> None:
    """Revoke the token where it is a session's own. What cannot be told or reached in a moment ends
    by itself within hours: whoever signs out goes away."""
    with contextlib.suppress(HandoffApiError, TimeoutError):
        async with asyncio.timeout(END_SECONDS):
            held = await api.run(tokens.get_self())
            if held.session:
                await api.run(sessions.end())


def safe_path(given: str | None, *, otherwise: str = "/") -> str:
    """A path of our own to go to; never another site."""
    if not given or not given.startswith("/") or given.startswith(("//", "/\\")):
        return otherwise
    parts = urlsplit(given)
    if parts.scheme or parts.netloc or "\n" in given or "\r" in given:
        return otherwise
    return given


def minutes_of(seconds: float | None) -> str:
    if seconds is None:
        return "a few minutes"
    whole = max(1, -(-int(seconds) // 60))
    return "a minute" if whole == 1 else f"{whole} minutes"
