"""The edge's two Starlette applications: the decision that the client port asks for each head, and
the admin port (health, metrics, what the edge is doing).

The decision application speaks ASGI's `websocket` scope with the extension `handoff`, which holds
the parsed head. It answers with a denial response, or with one message of its own:
`{"type": "handoff.connect", "handoff": Handoff}`.
"""

from collections.abc import Callable, Sequence
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from handoff_common.clock import Clock
from handoff_common.errors import ApiError
from handoff_edge import inspection
from handoff_edge.decision import Handoff
from handoff_edge.errors import Refusal
from handoff_edge.head import Head
from handoff_edge.tunnels import Tunnels

Decide = Callable[[Head, str | None], Handoff | Refusal]
"""From a head, and the name that the client asked for by TLS."""


class Decision:
    """The endpoint. `decide` is synchronous: nothing comes between its answer and the message."""

    def __init__(self, decide: Decide) -> None:
        self._decide = decide

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        extension = scope["extensions"]["handoff"]
        outcome = self._decide(extension["head"], extension["server_name"])
        if isinstance(outcome, Handoff):
            await send({"type": "handoff.connect", "handoff": outcome})
            return
        headers = [("x-handoff-error", outcome.code), *outcome.headers]
        if outcome.retry_after is not None:
            headers.append(("retry-after", str(outcome.retry_after)))
        await send(
            {
                "type": "websocket.http.response.start",
                "status": outcome.status,
                "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
            }
        )
        body = (outcome.text + "\n").encode()
        await send({"type": "websocket.http.response.body", "body": body})


class EveryHandshake(BaseRoute):
    """Matches each WebSocket handshake. A route with a path would not match all of them (its
    pattern stops at an encoded line feed), and what matches no route is closed with 403."""

    def __init__(self, endpoint: ASGIApp) -> None:
        self._endpoint = endpoint

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return (Match.FULL if scope["type"] == "websocket" else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._endpoint(scope, receive, send)


def decision_app(decide: Decide) -> Starlette:
    return Starlette(routes=[EveryHandshake(Decision(decide))])


def admin_app(
    registry: CollectorRegistry,
    not_ready: Callable[[], Sequence[str]],
    state: Callable[[], dict[str, Any]],
    refresh: Callable[[], None],
    tunnels: Tunnels,
    clock: Clock,
) -> Starlette:
    """Health, metrics, the edge's state, and its open connections.

    not_ready: reasons; none when ready. state: what /v1/edge answers. refresh: sets the metrics
    that are read rather than counted.
    """

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        reasons = list(not_ready())
        status = "not ready" if reasons else "ok"
        return JSONResponse({"status": status, "reasons": reasons}, 503 if reasons else 200)

    async def metrics(_: Request) -> Response:
        refresh()
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    async def edge(_: Request) -> Response:
        return JSONResponse(state())

    async def connections(request: Request) -> Response:
        try:
            found = inspection.page(tunnels, request.query_params, clock.now_ns())
        except ApiError as error:
            return inspection.problem(error)
        return JSONResponse(found)

    async def connection(request: Request) -> Response:
        name = request.path_params["connection_id"]
        try:
            return JSONResponse(inspection.one_of(tunnels, name, clock.now_ns()))
        except ApiError as error:
            return inspection.problem(error)

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            Route("/v1/edge", edge),
            Route("/v1/connections", connections),
            Route("/v1/connections/{connection_id}", connection),
        ]
    )
