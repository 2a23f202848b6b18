"""The console's application: its routes, its session, its headers."""

import hashlib
from collections.abc import Callable, Sequence

import jinja2
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route

from handoff_common.http import RequestId
from handoff_console import ends, formats
from handoff_console.context import Console, Refused, problem
from handoff_console.pages import (
    connections,
    customers,
    invoices,
    operations,
    parts,
    price_books,
    refused,
    services,
    sign_in,
    usage,
    users,
    versions,
    websockets,
)
from handoff_console.security import CONTENT_SECURITY_POLICY, SecurityHeaders
from handoff_console.static_files import Files
from handoff_console.viewer import COOKIE_SECONDS

_BROKEN = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>Something broke</title>'
    "<h1>Something broke</h1><p>That was a fault of ours, and it is in the log. "
    '<a href="/">To the start</a></p></html>'
)
PAGES = (
    sign_in,
    services,
    versions,
    parts,
    websockets,
    refused,
    connections,
    usage,
    invoices,
    operations,
    customers,
    users,
    price_books,
)
"""In the order in which their routes are tried."""


def templates(files: Files) -> jinja2.Environment:
    """Everything is escaped, and a name that a template does not get is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("handoff_console"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["static"] = files.address
    for name in ("number", "money", "exact_money", "size", "duration", "moment", "iso", "month"):
        environment.filters[name] = getattr(formats, name)
    environment.filters |= {
        "end_title": ends.title,
        "end_kind": ends.kind,
        "end_explained": ends.explained,
        "close_code": ends.close_code,
        "ended_by": ends.by,
    }
    return environment


def application(
    console: Console, files: Files, secret: str, not_ready: Callable[[], Sequence[str]]
) -> Starlette:
    tls = console.settings.console_url.startswith("https://")

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(_: Request) -> Response:
        reasons = list(not_ready())
        return JSONResponse(
            {"status": "not ready" if reasons else "ok", "reasons": reasons},
            503 if reasons else 200,
        )

    async def no_such_page(request: Request, _: Exception) -> Response:
        return problem(request, Refused(404, "No such page", "Nothing is at this address."))

    async def not_that_way(request: Request, _: Exception) -> Response:
        return problem(request, Refused(405, "Not that way", "This address takes another method."))

    async def broken(_: Request, __: Exception) -> Response:
        # What went wrong is in the log, by the server that Starlette raises it to again.
        return HTMLResponse(_BROKEN, 500, {"Content-Security-Policy": CONTENT_SECURITY_POLICY})

    app = Starlette(
        routes=[
            *(route for module in PAGES for route in module.ROUTES),
            Route("/healthz", health),
            Route("/readyz", ready),
            Mount("/static", files),
        ],
        middleware=[
            Middleware(RequestId),
            Middleware(SecurityHeaders, tls=tls),
            Middleware(GZipMiddleware, minimum_size=500),
            Middleware(
                SessionMiddleware,
                # Never the secret itself: another use of it must not sign what this one believes.
                secret_key=hashlib.sha256(b"console-session:" + secret.encode()).hexdigest(),
                session_cookie="__Host-handoff" if tls else "handoff",
                max_age=COOKIE_SECONDS,
                same_site="lax",
                https_only=tls,
            ),
        ],
        exception_handlers={404: no_such_page, 405: not_that_way, 500: broken},
    )
    app.state.console = console
    return app
