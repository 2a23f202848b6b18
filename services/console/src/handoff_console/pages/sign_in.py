"""Signing in and out: by password, or with an API token (operators have no password)."""

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from handoff_client import (
    HandoffApiError,
    Invalid,
    RateLimited,
    Unauthorized,
    Unreachable,
    customers,
)
from handoff_common.access import Permission, Role
from handoff_console import sign_on
from handoff_console.context import (
    Refused,
    Visit,
    checked_form,
    client_for,
    page,
    problem,
    render,
    viewer_for,
)
from handoff_console.viewer import SESSION_KEY, shortened

_WRONG = "This login and password do not belong together."
_WRONG_TOKEN = "No such token is in force."  # noqa: S105  (a text)


async def show(request: Request) -> Response:
    if viewer_for(request) is not None:
        return RedirectResponse(sign_on.safe_path(request.query_params.get("next")), 303)
    return _form(request, request.query_params.get("next"))


async def sign_in(request: Request) -> Response:
    try:
        form = await checked_form(request)
    except Refused as refused:
        return problem(request, refused)

    def again(error: str, login: str, status: int) -> Response:
        return _form(request, form.get("next", ""), error, login, status)

    login, password, token = (form.get(name, "") for name in ("login", "password", "token"))
    following = sign_on.safe_path(form.get("next", ""))
    try:
        if token:
            api = client_for(request, token.strip())
            now_ms = request.app.state.console.clock.now_ms()
            viewer = await sign_on.with_token(api, token.strip(), now_ms)
        else:
            api = client_for(request, None)
            viewer = await sign_on.with_password(api, login.strip(), password)
    except RateLimited as error:
        wait = sign_on.minutes_of(error.retry_after)
        return again(f"Too many attempts. Try again in {wait}.", login, 429)
    except (Unauthorized, Invalid):
        return again(_WRONG_TOKEN if token else _WRONG, login, 401)
    except Unreachable:
        return again("The API cannot be reached just now. Try again.", login, 503)
    except HandoffApiError as error:
        return again(f"{error.title}: {error.detail}", login, 502)
    # A new session: what an attacker may have planted in the old one is worth nothing.
    request.session.clear()
    request.session[SESSION_KEY] = viewer.packed()
    return RedirectResponse(following, 303)


async def sign_out(request: Request) -> Response:
    """Ends the session's token as well; a token that somebody signed in with stays in force."""
    try:
        await checked_form(request)
    except Refused as refused:
        return problem(request, refused)
    viewer = viewer_for(request)
    request.session.clear()
    if viewer is not None:
        await sign_on.end(client_for(request, viewer.token))
    request.session["flash"] = "You have signed out."
    return RedirectResponse("/sign-in", 303)


async def choose_customer(visit: Visit) -> Response:
    """An operator looks at a customer's pages as that customer sees them."""
    wanted = visit.field("customer_id")
    name = ""
    if wanted:
        name = (await visit.api.run(customers.get(wanted))).name
    chosen = visit.viewer._replace(customer_id=wanted or None, customer_name=shortened(name))
    visit.request.session[SESSION_KEY] = chosen.packed()
    return visit.go(
        sign_on.safe_path(visit.field("next") or ("/services" if wanted else "/operations"))
    )


async def home(request: Request) -> Response:
    viewer = viewer_for(request)
    if viewer is None:
        return RedirectResponse("/sign-in", 303)
    nobody = viewer.role is Role.OPERATOR and viewer.customer_id is None
    return RedirectResponse("/operations" if nobody else "/services", 303)


def _form(
    request: Request, following: str | None, error: str = "", login: str = "", status: int = 200
) -> Response:
    """following: where whoever signs in is led."""
    return render(
        request.app.state.console,
        request,
        "sign_in.html",
        status=status,
        viewer=None,
        error=error,
        login=login,
        following=sign_on.safe_path(following, otherwise=""),
    )


ROUTES = (
    Route("/", home),
    Route("/sign-in", show, methods=["GET"]),
    Route("/sign-in", sign_in, methods=["POST"]),
    Route("/sign-out", sign_out, methods=["POST"]),
    Route("/customer-shown", page(Permission.OPERATE, choose_customer), methods=["POST"]),
)
