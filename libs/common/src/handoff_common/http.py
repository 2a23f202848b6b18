"""The HTTP shell that every REST service shares: errors, request ids, health, metrics, bodies,
pagination. It knows no domain.

Two error shapes: classic paths answer `{"msg","detail"}`, all others `application/problem+json`.
"""

import base64
import binascii
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handoff_common.docs_page import add_docs_page
from handoff_common.errors import (
    ApiError,
    DatabaseAway,
    FieldError,
    LogUnreachable,
    database_away,
    invalid,
    log_away,
)
from handoff_common.guard import BodyGuard, BodyRefused
from handoff_common.ids import uuid7
from handoff_common.openapi import is_under, with_refusals, with_tokens
from handoff_common.telemetry import get_logger

MAX_LIMIT = 1_000
_FRAMEWORK_CODES = {400: "malformed_json", 404: "no_such_path", 405: "method_not_allowed"}
"""Status → code of what the framework itself refuses; 400 is a body that is not JSON."""

T = TypeVar("T")


class StrictModel(BaseModel):
    """A request body under `/v1`: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Meta(BaseModel):
    limit: int
    next_cursor: str | None = None


class Page(BaseModel, Generic[T]):
    """What `/v1` lists answer."""

    data: list[T]
    meta: Meta


def create_app(
    *,
    title: str,
    version: str,
    classic_paths: Sequence[str],
    registry: CollectorRegistry,
    not_ready: Callable[[], Sequence[str]],
    open_paths: Sequence[str] = (),
) -> FastAPI:
    """An application with the shared parts in place.

    classic_paths: path prefixes that answer in the classic shape.
    not_ready: the reasons why the service is not ready; none when it is.
    open_paths: that take a short body from callers without a token.
    The caller sets `app.state.access`, the AccessView that knows the tokens.
    """
    # Paths are the same behind the embedded gateway, which puts only the service's own pages below
    # its name: a server of that name in the document would lead every call astray.
    app = FastAPI(
        title=title, version=version, docs_url=None, redoc_url=None, root_path_in_servers=False
    )
    classic = tuple(classic_paths)

    def answer(request: Request, error: ApiError) -> Response:
        return _render(request, error, classic)

    @app.exception_handler(ApiError)
    async def _api_error(request: Request, error: ApiError) -> Response:
        return answer(request, error)

    @app.exception_handler(RequestValidationError)
    async def _validation(request: Request, error: RequestValidationError) -> Response:
        return answer(request, invalid(field_errors(error.errors()), status=422))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        if isinstance(error, BodyRefused):
            cause = error.cause
            if isinstance(cause, ApiError):
                return answer(request, cause)
            if isinstance(cause, LogUnreachable):
                return await _log_away(request, cause)
            return await _unexpected(request, cause)
        code = _FRAMEWORK_CODES.get(error.status_code, "http")
        detail = f"{request.method} {request.url.path}"
        headers = dict(error.headers or {})
        return answer(
            request, ApiError(error.status_code, code, str(error.detail), detail, headers=headers)
        )

    @app.exception_handler(DatabaseAway)
    async def _away(request: Request, error: DatabaseAway) -> Response:
        get_logger("http").warning("database_away", path=request.url.path, detail=str(error))
        return answer(request, database_away())

    @app.exception_handler(LogUnreachable)
    async def _log_away(request: Request, error: LogUnreachable) -> Response:
        get_logger("http").warning("log_away", path=request.url.path, detail=str(error))
        return answer(request, log_away())

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, error: Exception) -> Response:
        get_logger("http").error("unexpected_error", path=request.url.path, exc_info=error)
        return answer(
            request, ApiError(500, "internal", "Internal error", "the request id finds it in logs")
        )

    @app.get("/healthz", tags=["health"])
    async def healthz() -> dict[str, str]:
        """Alive: the process answers."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["health"])
    async def readyz() -> JSONResponse:
        """Ready: projections have caught up; the reasons when not."""
        reasons = list(not_ready())
        return JSONResponse(
            {"status": "not ready" if reasons else "ok", "reasons": reasons},
            503 if reasons else 200,
        )

    @app.get("/metrics", tags=["health"], response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Prometheus metrics."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    framework_document = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            refusals = with_refusals(framework_document(), classic)
            app.openapi_schema = with_tokens(refusals, tuple(open_paths))
        return app.openapi_schema

    add_docs_page(app)
    app.openapi = document  # type: ignore[method-assign]  # FastAPI's own way to extend it
    app.add_middleware(
        BodyGuard, access=lambda: getattr(app.state, "access", None), open_paths=open_paths
    )
    app.add_middleware(RequestId)
    return app


class RequestId:
    """Gives each request an id, takes over a sane one that the caller sent, and sends it back."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        sane = given.isascii() and given.isprintable() and 0 < len(given) <= 128
        request_id = given if sane else uuid7()
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    (b"x-request-id", request_id.encode()),
                ]
            await send(message)

        await self._app(scope, receive, send_with_id)


def _render(request: Request, error: ApiError, classic: tuple[str, ...]) -> Response:
    if is_under(request.url.path, classic):
        return JSONResponse(
            {"msg": error.title, "detail": _shown(error.detail)},
            error.status,
            headers=error.headers,
        )
    body = {
        "type": f"urn:handoff:error:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": _shown(error.detail),
        "errors": [
            {"property": _shown(e.property), "reason": _shown(e.reason)} for e in error.errors
        ],
        "request_id": getattr(request.state, "request_id", ""),
    }
    return JSONResponse(
        body, error.status, headers=error.headers, media_type="application/problem+json"
    )


def _shown(text: str) -> str:
    """Text that may repeat what a caller sent: half a surrogate pair, which no encoding has, is
    written out."""
    return text.encode("utf-8", "backslashreplace").decode()


def field_errors(problems: Iterable[Any]) -> list[FieldError]:
    """pydantic's problems as ours: path, and what was given beside what is allowed."""
    found = []
    for problem in problems:
        path = [str(part) for part in problem["loc"] if part not in ("body", "query", "path")]
        given = problem.get("input")
        missing = problem["type"] == "missing"
        shown = "" if missing else f" (given: {_short(given)})"
        found.append(FieldError(".".join(path) or "body", f"{problem['msg']}{shown}"))
    return found


def _short(value: Any) -> str:
    try:
        text = json.dumps(jsonable_encoder(value, custom_encoder={bytes: repr}), default=str)
    except RecursionError:
        return "nested too deep"
    return text if len(text) <= 80 else text[:77] + "…"


class ClassicBody(NamedTuple):
    """`values`: known fields, as text, numbers, booleans or None. `ignored`: the other names."""

    values: dict[str, Any]
    ignored: list[str]


async def classic_body(request: Request, known: Iterable[str]) -> ClassicBody:
    """The body of a classic call: form-encoded or JSON, in its clients' conventions.

    The text `None` and JSON null mean null; unknown and read-only names are ignored and named in
    `x-handoff-ignored` (by `ignored_header`). A missing body is no fields.
    """
    raw = await request.body()
    names = frozenset(known)
    given: Mapping[str, Any]
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not raw.strip():
        given = {}
    elif kind in ("application/x-www-form-urlencoded", "multipart/form-data"):
        form = await request.form(max_files=0, max_fields=200)
        given = {name: str(value) for name, value in form.items()}
    else:
        given = parse_json_object(raw)
    values = {n: None if v == "None" else v for n, v in given.items() if n in names}
    return ClassicBody(values, sorted(n for n in given if n not in names))


def ignored_header(body: ClassicBody) -> dict[str, str]:
    return {"x-handoff-ignored": header_value(", ".join(body.ignored))} if body.ignored else {}


def header_value(text: str) -> str:
    """The text as a header may bear it: one line of ASCII, at most 2,000 characters."""
    line = "".join(char if char.isprintable() else " " for char in text[:2_000])
    return line.encode("ascii", "backslashreplace").decode()[:2_000].strip()


def parse_json_object(raw: bytes) -> dict[str, Any]:
    """A JSON object, or 400 that says where it stops being one."""
    try:
        value = json.loads(raw, parse_constant=_no_json, parse_float=_finite)
    except (ValueError, RecursionError) as error:  # ValueError: also an integer that is too long
        raise ApiError(
            400, "malformed_json", "Bad request", f"the body is not JSON: {error}"
        ) from None
    if not isinstance(value, dict):
        raise ApiError(400, "malformed_json", "Bad request", "the body must be a JSON object")
    return value


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_json(text)


def _no_json(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")


def parse(model: type[BaseModel], values: Mapping[str, Any]) -> Any:
    """An instance of the model, or 422 that names each wrong field."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise invalid(field_errors(error.errors(include_url=False))) from None


def encode_cursor(*parts: str | int) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


def decode_cursor(cursor: str, kinds: Sequence[type]) -> list[Any]:
    """The parts that were encoded; 400 for anything that is not such a cursor."""
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        parts = json.loads(raw)
    except (ValueError, binascii.Error, RecursionError):
        parts = None
    if (
        not isinstance(parts, list)
        or len(parts) != len(kinds)
        or not all(_is_part(p, kind) for p, kind in zip(parts, kinds, strict=True))
    ):
        raise ApiError(
            400,
            "bad_cursor",
            "Bad request",
            f"cursor: {cursor[:80]!r} is not one that this list has given",
            [FieldError("cursor", "take it from meta.next_cursor, unchanged")],
        )
    return parts


def _is_part(value: Any, kind: type) -> bool:
    """Whether a list could have given it: what no database column holds, none has."""
    if type(value) is not kind:
        return False
    if isinstance(value, int):
        return abs(value) < 2**63
    return not isinstance(value, str) or value.isprintable()
