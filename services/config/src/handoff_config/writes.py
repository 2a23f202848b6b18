"""One write of the API: the command, its answer, and the wait until every service knows of it.

Owns Idempotency-Key and the rate limit of writes.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from fastapi import Request
from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handoff_common.access import Permission, Principal, authorize
from handoff_common.clock import Clock
from handoff_common.errors import ApiError, FieldError
from handoff_common.log import EventLog
from handoff_common.outbox import Outbox
from handoff_common.telemetry import get_logger
from handoff_config import errors
from handoff_config.contracts import Customer, Operators
from handoff_config.services import Service
from handoff_config.settings import ConfigSettings
from handoff_config.sign_in import SignIn
from handoff_config.store import Actor, Answer, Beside, Once, Store
from handoff_config.streams import Kind

S = TypeVar("S", Service, Customer, Operators)
E = TypeVar("E")

_MAX_KEY = 255
_HOUR_MS = 3_600_000


class Writer:
    """Runs commands for requests."""

    def __init__(
        self,
        store: Store,
        outbox: Outbox,
        log: EventLog,
        settle_seconds: float,
        registry: CollectorRegistry,
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._log = log
        self._settle_seconds = settle_seconds
        self._logger = get_logger("config")
        self._waits = Histogram(
            "handoff_config_settle_seconds",
            "How long a change waited until every service knew of it",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5),
            registry=registry,
        )
        self._late = Counter(
            "handoff_config_settle_late",
            "Changes that were answered before every service knew of them",
            registry=registry,
        )

    async def write(
        self,
        request: Request,
        principal: Principal,
        kind: Kind[S, E],
        identifier: str,
        decide: Callable[[S | None], Sequence[E]],
        answer: Callable[[S], Answer],
        headers: Mapping[str, str] | None = None,
        *,
        beside: Beside | None = None,
        stands_for: bytes | None = None,
    ) -> Response:
        """Change one stream and answer from its new state, once every service knows of it or the
        wait's bound is over: a slow reader does not undo what was decided.

        stands_for: what an Idempotency-Key's repeat is compared by in place of the body, where the
        body holds a secret: its plain SHA-256 would let a guess be tried at full speed.
        """
        by = actor(request, principal.token_id, principal.user_id, principal.login)
        once = await _once(request, principal, stands_for)
        return await self.record(
            by, kind, identifier, decide, answer, headers, once=once, beside=beside
        )

    async def record(
        self,
        by: Actor,
        kind: Kind[S, E],
        identifier: str,
        decide: Callable[[S | None], Sequence[E]],
        answer: Callable[[S], Answer],
        headers: Mapping[str, str] | None = None,
        *,
        once: Once | None = None,
        beside: Beside | None = None,
    ) -> Response:
        """As `write`, for somebody who need not have a token."""
        done = await self._store.change(
            kind, identifier, decide, actor=by, answer=answer, once=once, beside=beside
        )
        if done.told:
            await self.settle()
        extra = dict(headers or {})
        if done.repeated:
            extra["idempotent-replayed"] = "true"
        return respond(done.answer, extra)

    async def settle(self) -> bool:
        """Wait until everything committed so far is in the log, and every reader that this process
        can see has dealt with it. False when the bound did not suffice."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        deadline = begun + self._settle_seconds
        positions = await self._outbox.flushed(timeout=self._settle_seconds)
        known = positions is not None and await self._log.settled(
            positions, timeout=max(0.0, deadline - loop.time())
        )
        self._waits.observe(loop.time() - begun)
        if not known:
            self._late.inc()
            self._logger.warning("not_known_everywhere_yet", waited_seconds=self._settle_seconds)
        return known


def respond(answer: Answer, headers: Mapping[str, str] | None = None) -> Response:
    every = {**answer.headers, **(headers or {})}
    if answer.body is None:
        return Response(status_code=answer.status, headers=every)
    return JSONResponse(answer.body, answer.status, headers=every)


def actor(request: Request, token_id: str | None, user_id: str | None, login: str) -> Actor:
    return Actor(
        token_id,
        user_id,
        login,
        request.client.host if request.client else "",
        getattr(request.state, "request_id", ""),
    )


async def _once(
    request: Request, principal: Principal, stands_for: bytes | None = None
) -> Once | None:
    key = request.headers.get("idempotency-key")
    if request.method != "POST" or key is None:
        return None
    if not 1 <= len(key) <= _MAX_KEY:
        raise ApiError(
            400,
            "bad_idempotency_key",
            "Bad request",
            f"Idempotency-Key has {len(key)} characters; allowed: 1 to {_MAX_KEY}",
            [FieldError("Idempotency-Key", f"allowed: 1 to {_MAX_KEY} characters")],
        )
    seen = hashlib.sha256()
    url = request.url
    for part in (request.method, url.path, url.query):
        seen.update(part.encode() + b"\n")
    seen.update(await request.body() if stands_for is None else stands_for)
    return Once(principal.token_id, hashlib.sha256(key.encode()).hexdigest(), seen.hexdigest())


# --- The rate limit ----------------------------------------------------------------------------


class Spent(NamedTuple):
    """remaining: writes that the token has left until `reset_s` (epoch seconds)."""

    remaining: int
    reset_s: int


class WriteQuota:
    """Counts writes per token within each hour, in memory: a guard against runaway clients, so a
    restart may forget it."""

    def __init__(self, limit: int, clock: Clock) -> None:
        self._limit = limit
        self._clock = clock
        self._hour = -1
        self._used: dict[str, int] = {}

    def spend(self, token_id: str) -> Spent | None:
        """Count one write; None where the token has none left."""
        hour = self._clock.now_ms() // _HOUR_MS
        if hour != self._hour:
            self._hour = hour
            self._used.clear()
        used = self._used.get(token_id, 0)
        if used >= self._limit:
            return None
        self._used[token_id] = used + 1
        return Spent(self._limit - used - 1, self.reset_s())

    def reset_s(self) -> int:
        """When the present hour ends."""
        return (self._clock.now_ms() // _HOUR_MS + 1) * _HOUR_MS // 1000


class Context(NamedTuple):
    """What the routes work with: `app.state.config`."""

    settings: ConfigSettings
    store: Store
    writer: Writer
    quota: WriteQuota
    clock: Clock
    sign_in: SignIn


def context(request: Request) -> Context:
    found: Context = request.app.state.config
    return found


def writing(permission: Permission) -> Callable[[Request], Awaitable[Principal]]:
    """A dependency for calls that write: the principal, as `authorize` gives it, whose rate limit
    was charged. 429 beyond it."""
    authorized = authorize(permission)

    async def dependency(request: Request) -> Principal:
        principal = await authorized(request)
        ctx = context(request)
        spent = ctx.quota.spend(principal.token_id)
        request.state.spent = spent or Spent(0, ctx.quota.reset_s())
        if spent is None:
            raise errors.too_many_writes(ctx.settings.write_limit, ctx.quota.reset_s())
        return principal

    return dependency


class RateLimitHeaders:
    """Adds what is left of the rate limit to the answers of writes, refusals included."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_limit(message: Message) -> None:
            spent: Spent | None = scope.get("state", {}).get("spent")
            if message["type"] == "http.response.start" and spent is not None:
                message["headers"] = [
                    *message.get("headers", []),
                    (b"fastly-ratelimit-remaining", str(spent.remaining).encode()),
                    (b"fastly-ratelimit-reset", str(spent.reset_s).encode()),
                ]
            await send(message)

        await self._app(scope, receive, send_with_limit)
