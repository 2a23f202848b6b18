"""What every page works with, and the frame that each of them runs in: who asks, whether the form
is our own, and what becomes of an API's refusal.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qsl, quote

from jinja2 import Environment
from starlette.convertors import Convertor, register_url_convertor
from starlette.datastructures import ImmutableMultiDict
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from handoff_client import (
    AsyncClient,
    BadArgument,
    HandoffApiError,
    Unauthorized,
    Unexpected,
    Unreachable,
)
from handoff_common.access import Permission
from handoff_common.clock import Clock
from handoff_common.telemetry import get_logger
from handoff_console import forgery
from handoff_console.event_stream import signed_out
from handoff_console.feeds import Feeds
from handoff_console.settings import ConsoleSettings
from handoff_console.viewer import Viewer, shortened, viewer_of

MOST_FIELDS = 200
MOST_BYTES = 1_048_576
"""Of a form, as it is sent; a price book is the longest."""
MOST_BYTES_OF_NOBODY = 16_384
"""Of a form of somebody who has not signed in."""
FORM_SECONDS = 30.0
Form = ImmutableMultiDict[str, str]
"""The fields that were sent, as text."""
NO_FORM: Form = ImmutableMultiDict([])
FORM_TYPE = "application/x-www-form-urlencoded"
_logger = get_logger("console")


@dataclass(frozen=True, slots=True)
class Console:
    """client: a client of the APIs that bears the given token, on behalf of the given address; all
    share their connections. feeds: of the live pages."""

    settings: ConsoleSettings
    client: Callable[[str | None, str | None], AsyncClient]
    templates: Environment
    clock: Clock
    feeds: Feeds


class _Count(Convertor[int]):
    """`{name:count}` of a route: no more digits than an API's numbers have."""

    regex = "[0-9]{1,18}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("count", _Count())


class Refused(Exception):
    """A page that is not shown: status and why, in words for the viewer. link: where it is put
    right, as (address, text)."""

    def __init__(
        self, status: int, title: str, detail: str, link: tuple[str, str] | None = None
    ) -> None:
        super().__init__(title)
        self.status = status
        self.title = title
        self.detail = detail
        self.link = link


@dataclass(frozen=True, slots=True)
class Visit:
    """One request of somebody who has signed in. form: of a POST, checked against forgery."""

    console: Console
    request: Request
    viewer: Viewer
    api: AsyncClient
    form: Form

    def render(self, template: str, *, status: int = 200, **values: Any) -> Response:
        return render(
            self.console, self.request, template, status=status, viewer=self.viewer, **values
        )

    def go(self, path: str, *, flash: str = "") -> Response:
        """To another page, after a change: a reload must not repeat it. flash: said there once."""
        if flash:
            self.request.session["flash"] = shortened(flash, 120)
        answer = RedirectResponse(path, 303)
        if is_htmx(self.request):
            # As it is quoted there: no header takes every text.
            return Response(status_code=204, headers={"HX-Redirect": answer.headers["location"]})
        return answer

    def field(self, name: str, default: str = "") -> str:
        """A text field of the form, without the blanks around it."""
        return self.form.get(name, default).strip()

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.console.clock.now_ms() / 1_000, UTC)

    @property
    def customer_id(self) -> str:
        """Whose data the page is about. Raises Refused where an operator has chosen nobody."""
        if self.viewer.customer_id is None:
            back = f"?next={quote(here(self.request))}" if self.request.method == "GET" else ""
            raise Refused(
                409,
                "Choose a customer",
                "This page is about one customer, and you look as none.",
                (f"/customers{back}", "Choose a customer"),
            )
        return self.viewer.customer_id


def viewer_for(request: Request) -> Viewer | None:
    """Who has sent it; None where nobody is signed in."""
    console: Console = request.app.state.console
    return viewer_of(request.session, console.clock.now_ms())


def client_for(request: Request, token: str | None) -> AsyncClient:
    """A client that calls for whoever sent the request: failures to sign in, and changes, are put
    down to that address and not to the console's."""
    console: Console = request.app.state.console
    return console.client(token, _address(request.client.host if request.client else ""))


def _address(text: str) -> str | None:
    """None for what a proxy calls a client without knowing its address."""
    try:
        return str(ip_address(text)) if text.isascii() else None
    except ValueError:
        return None


Page = Callable[[Visit], Awaitable[Response]]
Endpoint = Callable[[Request], Awaitable[Response]]


def page(needs: Permission, handler: Page, *, or_: Permission | None = None) -> Endpoint:
    """The endpoint of a page for those who hold a permission, or the other one."""

    async def endpoint(request: Request) -> Response:
        console: Console = request.app.state.console
        viewer = viewer_for(request)
        if viewer is None:
            return _to_sign_in(request)
        try:
            form = await checked_form(request)
            if not (viewer.can(needs) or (or_ is not None and viewer.can(or_))):
                raise Refused(403, "Not allowed", viewer.why_not(needs))
            return await handler(
                Visit(console, request, viewer, client_for(request, viewer.token), form)
            )
        except Refused as refused:
            return problem(request, refused)
        except BadArgument as error:
            status = 404 if request.method == "GET" else 422
            return problem(request, Refused(status, "No such thing", f"{error}."))
        except Unauthorized:
            request.session.clear()
            return _to_sign_in(request)
        except Unreachable as error:
            reads = request.method in ("GET", "HEAD")
            said = _AWAY if reads or not error.maybe_done else _MAYBE_DONE
            return problem(request, Refused(503, "Not available", said))
        except Unexpected as error:
            _logger.error("unexpected_answer", error=str(error), request_id=error.request_id)
            return problem(request, Refused(502, "The API's answer cannot be used", _UNUSABLE))
        except HandoffApiError as error:
            return problem(request, Refused(error.status, error.title, error.detail))

    return endpoint


_UNUSABLE = "It is no fault of yours. What was asked may have been done; look before you repeat it."
_AWAY = "The API cannot be reached just now. Nothing was changed; try again in a moment."
_MAYBE_DONE = (
    "The API did not answer. What was asked may have been done; look before you repeat it."
)


async def checked_form(request: Request) -> Form:
    """The form of a writing request; empty for the others. Raises Refused for a forged one."""
    if request.method in ("GET", "HEAD"):
        return NO_FORM
    kind = request.headers.get("content-type", "").partition(";")[0]
    form = await _form_of(request) if kind == FORM_TYPE else NO_FORM
    given = request.headers.get(forgery.HEADER) or form.get(forgery.FIELD)
    if forgery.is_forged(request.session, request.headers, given):
        raise Refused(
            403,
            "This form has expired",
            "It was not sent from a page of this session. Load the page again and repeat it.",
        )
    return form


async def _form_of(request: Request) -> Form:
    """What is sent is memory that anybody can make us spend: it is counted while it arrives."""
    most = MOST_BYTES_OF_NOBODY if viewer_for(request) is None else MOST_BYTES
    body = bytearray()
    try:
        async with asyncio.timeout(FORM_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > most:
                    raise Refused(413, "Too long", f"A form may have {most} bytes here.")
    except TimeoutError:
        raise Refused(
            408, "Too slow", f"The form did not arrive within {FORM_SECONDS:g} s."
        ) from None
    try:
        fields = parse_qsl(
            body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=MOST_FIELDS
        )
    except ValueError:
        raise Refused(400, "Too many fields", f"A form may have {MOST_FIELDS}.") from None
    return Form(fields)


def render(
    console: Console,
    request: Request,
    template: str,
    *,
    status: int = 200,
    viewer: Viewer | None,
    **values: Any,
) -> Response:
    flash = request.session.pop("flash", "") if request.method == "GET" else ""
    html = console.templates.get_template(template).render(
        request=request,
        viewer=viewer,
        csrf_token=forgery.token_of(request.session),
        flash=flash,
        now=console.clock.now_ms(),
        settings=console.settings,
        Permission=Permission,
        **values,
    )
    return HTMLResponse(html, status)


def problem(request: Request, refused: Refused) -> Response:
    """A page that says what went wrong; for htmx, a notice in the page that is shown."""
    console: Console = request.app.state.console
    values: Mapping[str, Any] = {
        "title": refused.title,
        "detail": refused.detail,
        "link": refused.link,
    }
    if is_htmx(request):
        response = render(
            console, request, "notice.html", status=refused.status, viewer=None, **values
        )
        response.headers["HX-Retarget"] = "#notices"
        response.headers["HX-Reswap"] = "innerHTML"
        return response
    if "text/html" not in request.headers.get("accept", ""):
        return _for_programs(request, refused)
    viewer = viewer_for(request)
    return render(
        console,
        request,
        "problem.html",
        status=refused.status,
        viewer=viewer,
        code=refused.status,
        **values,
    )


def _for_programs(request: Request, refused: Refused) -> Response:
    """The form of the APIs, which share this address: a program has most likely mistyped a path."""
    code = "no_such_path" if refused.status == 404 else "refused"
    return JSONResponse(
        {
            "type": f"urn:handoff:error:{code}",
            "title": refused.title,
            "status": refused.status,
            "detail": f"{refused.detail} {request.url.path[:200]}; /docs lists what there is",
            "errors": [],
            "request_id": request.state.request_id,
        },
        refused.status,
        media_type="application/problem+json",
    )


def is_htmx(request: Request) -> bool:
    return request.headers.get("hx-request") == "true"


def here(request: Request) -> str:
    """The page's own address, to come back to."""
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


def _to_sign_in(request: Request) -> Response:
    path = here(request)
    target = (
        "/sign-in" if request.method != "GET" or path == "/" else f"/sign-in?next={quote(path)}"
    )
    if is_htmx(request):
        return Response(status_code=204, headers={"HX-Redirect": "/sign-in"})
    if "text/event-stream" in request.headers.get("accept", ""):
        return signed_out()
    return RedirectResponse(target, 303)
