"""From a password or a token to a viewer, by the APIs; and where to go afterwards."""

import asyncio
import contextlib
from datetime import datetime
from urllib.parse import urlsplit

from handoff_client import AsyncClient, HandoffApiError, customers, sessions, tokens, users
from handoff_common.access import Role
from handoff_console.viewer import TOKEN_SECONDS, Viewer, shortened

END_SECONDS = 5.0


async def with_password(api: AsyncClient, login: str, password: str) -> Viewer:
    """For as long as the token that is made for it. Raises Unauthorized, RateLimited, and what else
    the API refuses."""
    made = await api.run(sessions.create(login, password))
    return Viewer(
        made.access_token,
        made.user.login,
        Role(made.user.role),
        "global",
        made.customer.id,
        shortened(made.customer.name),
        _ms(made.expires_at),
    )


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1_000)


def session_end(held: tokens.Token, now_ms: int) -> int:
    """When a session ends that is begun with a token now, epoch ms: as a session's own token does;
    with another, after some hours, and no later than it."""
    end = None if held.expires_at is None else _ms(held.expires_at)
    if held.session and end is not None:
        return end
    longest = now_ms + TOKEN_SECONDS * 1_000
    return longest if end is None else min(end, longest)


async def with_token(api: AsyncClient, token: str, now_ms: int) -> Viewer:
    """Whose token it is. Raises Unauthorized."""
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
        session_end(held, now_ms),
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
