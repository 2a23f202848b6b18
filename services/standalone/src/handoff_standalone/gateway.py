"""One port for all REST services: which path belongs to which. In production a gateway in front of
the services routes by the same table (`ROUTES`).

`/<service>/docs`, `/<service>/openapi.json`, `/<service>/readyz` and `/<service>/metrics` reach one
service's own pages; `/healthz` and `/readyz` speak for all.
"""

import re
from collections.abc import Callable, Mapping, Sequence

from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from handoff_common.http import RequestId

ROUTES: tuple[tuple[str, str], ...] = (
    (r"/v1/customers/[^/]+/(pricing|credits|forecast|costs)(/|$)", "billing"),
    (r"/v1/(price-books|invoices|estimates|delivery-usage|budgets)(/|$)", "billing"),
    (r"/billing/v3(/|$)", "billing"),
    (r"/stats(/|$)", "metering"),
    (
        r"/v1/(connections|concurrency|usage|watermarks|reconciliation|parked|refusals)(/|$)",
        "metering",
    ),
    (
        r"/(service|customer|tokens|user|current_user|current_customer|enabled-products)(/|$)",
        "config",
    ),
    (r"/v1/(customers|users|services|history|sessions)(/|$)", "config"),
)
"""Path pattern → service; the first that matches."""

_OWN_PAGES = ("docs", "openapi.json", "healthz", "readyz", "metrics")
_FOR_ALL = ("/healthz", "/readyz", "/docs")
_COMPILED = tuple((re.compile(pattern), service) for pattern, service in ROUTES)


def service_of(path: str) -> str | None:
    """The service that a path belongs to."""
    for pattern, service in _COMPILED:
        if pattern.match(path):
            return service
    return None


class OnBehalf:
    """The way of the web interface to the APIs, within the process: who calls is whom it calls for.
    Nobody else comes this way, so what it says is believed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        address = dict(scope["headers"]).get(b"x-forwarded-for", b"").decode("latin-1")
        if address:
            scope = dict(scope, client=(address, 0))
        await self._app(scope, receive, send)


class Gateway:
    """Routes by path to the applications given by name; what belongs to none is `console`'s, once
    that is set: the web interface calls the others through this."""

    def __init__(self, apps: Mapping[str, ASGIApp], not_ready: Callable[[], Sequence[str]]) -> None:
        self._apps = apps
        self._not_ready = not_ready
        self.console: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"the API port speaks HTTP, not {scope['type']}")
        path: str = scope["path"]
        service = service_of(path)
        if service is not None and service in self._apps:
            await self._apps[service](scope, receive, send)
            return
        _, first, *rest = path.split("/", 2)
        if first in self._apps and rest and rest[0].partition("/")[0] in _OWN_PAGES:
            # Starlette strips root_path from path itself.
            await self._apps[first](dict(scope, root_path=f"/{first}"), receive, send)
            return
        if self.console is not None and path not in _FOR_ALL:
            await self.console(scope, receive, send)
            return
        await RequestId(self._own)(scope, receive, send)

    async def _own(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer(scope["path"], scope["state"]["request_id"])(scope, receive, send)

    def _answer(self, path: str, request_id: str) -> Response:
        match path:
            case "/healthz":
                return JSONResponse({"status": "ok"})
            case "/readyz":
                reasons = list(self._not_ready())
                return JSONResponse(
                    {"status": "not ready" if reasons else "ok", "reasons": reasons},
                    503 if reasons else 200,
                )
            case "/" | "/docs":
                links = "".join(f'<li><a href="/{n}/docs">{n}</a></li>' for n in self._apps)
                return HTMLResponse(
                    '<!doctype html><html lang="en"><meta charset="utf-8"><title>Handoff API'
                    f"</title><h1>Handoff API</h1><ul>{links}</ul></html>"
                )
            case _:
                return JSONResponse(
                    {
                        "type": "urn:handoff:error:no_such_path",
                        "title": "Not Found",
                        "status": 404,
                        "detail": f"no service has {path[:200]}; /docs lists what there is",
                        "errors": [],
                        "request_id": request_id,
                    },
                    404,
                    media_type="application/problem+json",
                )
