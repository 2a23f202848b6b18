"""What a call may raise, and which answer raises what.

HandoffApiError
├── Unauthorized      401: no token in force
├── Forbidden         403: a token that may not
├── NotFound          404: not there, or another customer's
├── Conflict          409, 412: somebody was first, or it cannot be now
├── RateLimited       429: `retry_after` seconds
├── Invalid           every other 4xx: `errors` names the fields
├── Unreachable       no answer (status 0), or 502, 503, 504
└── Unexpected        500, a redirect, or a body that is not what the operation answers
"""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec
from msgspec import Struct

from handoff_client.call import Call, Reply

TYPE_PREFIX = "urn:handoff:error:"


class FieldError(Struct, frozen=True):
    """What is wrong with one field: `property` is its path, `reason` what is allowed."""

    property: str = ""
    reason: str = ""


class HandoffApiError(Exception):
    """Root of what a call raises.

    status: HTTP status, 0 where there was no answer. code: the last part of the problem's type
    (`invoice_held`), or the `msg` of a classic path. errors: per field. request_id: what the
    service's logs have it under; "" where it is unknown.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        code: str = "",
        title: str = "",
        detail: str = "",
        errors: tuple[FieldError, ...] = (),
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.title = title
        self.detail = detail
        self.errors = errors
        self.request_id = request_id


class Unauthorized(HandoffApiError):
    """401."""


class Forbidden(HandoffApiError):
    """403."""


class NotFound(HandoffApiError):
    """404, also for what belongs to another customer."""


class Conflict(HandoffApiError):
    """409; and 412, where If-Match names what is not there any more."""


class RateLimited(HandoffApiError):
    """429. retry_after: seconds from the answer on, None where it does not say."""

    def __init__(self, message: str, *, retry_after: float | None = None, **known: Any) -> None:
        super().__init__(message, **known)
        self.retry_after = retry_after


class Invalid(HandoffApiError):
    """A request that the service does not take as it is."""


class Unreachable(HandoffApiError):
    """No answer in time, or 502, 503, 504: what was asked may have been done all the same.

    maybe_done: False where no attempt has left this machine, for want of a connection.
    """

    def __init__(self, message: str, *, maybe_done: bool = True, **known: Any) -> None:
        super().__init__(message, **known)
        self.maybe_done = maybe_done


class Unexpected(HandoffApiError):
    """An answer that cannot be used."""


class _Problem(Struct, frozen=True):
    """problem+json and the classic shape in one: what is there of either."""

    type: str = ""
    title: str = ""
    msg: str = ""
    detail: str = ""
    errors: tuple[FieldError, ...] = ()
    request_id: str = ""


_PROBLEM = msgspec.json.Decoder(_Problem)
_SHOWN = 200
AWAY = frozenset({502, 503, 504})
_BY_STATUS: Mapping[int, type[HandoffApiError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    412: Conflict,
    **dict.fromkeys(AWAY, Unreachable),
}


def refusal(call: Call[Any], reply: Reply) -> HandoffApiError:
    """The exception of an answer that is no success."""
    try:
        problem = _PROBLEM.decode(reply.body)
    except msgspec.DecodeError:
        problem = _Problem(detail=reply.body[:_SHOWN].decode("utf-8", "replace"))
    title = problem.title or problem.msg
    said = ": ".join(part for part in (title, problem.detail) if part)
    known: dict[str, Any] = {
        "status": reply.status,
        "code": problem.type.removeprefix(TYPE_PREFIX) or problem.msg,
        "title": title,
        "detail": problem.detail,
        "errors": problem.errors,
        "request_id": problem.request_id or reply.headers.get("x-request-id", ""),
    }
    message = f"{call.method} {call.path}: {reply.status} {said}".rstrip()
    if reply.status == 429:
        return RateLimited(message, retry_after=retry_after(reply.headers), **known)
    other = Invalid if 400 <= reply.status < 500 else Unexpected
    return _BY_STATUS.get(reply.status, other)(message, **known)


def unusable(call: Call[Any], reply: Reply, why: Exception) -> Unexpected:
    """The exception of a success whose body is not what the operation answers."""
    return Unexpected(
        f"{call.method} {call.path}: {reply.status} with an answer that cannot be read: {why}",
        status=reply.status,
        code="unexpected_answer",
        title="Unexpected answer",
        detail=str(why),
        request_id=reply.headers.get("x-request-id", ""),
    )


def no_token(call: Call[Any]) -> Unauthorized:
    """The exception of a token that no header can bear, as the service would say it; not sent."""
    detail = "the token is not printable ASCII; take it as it was shown"
    return Unauthorized(
        f"{call.method} {call.path}: {detail}",
        status=401,
        code="no_valid_token",
        title="No valid token",
        detail=detail,
    )


def unreachable(call: Call[Any], base_url: str, reason: str, *, maybe_done: bool) -> Unreachable:
    detail = f"{base_url} cannot be reached: {reason}"
    return Unreachable(
        f"{call.method} {call.path}: {detail}",
        maybe_done=maybe_done,
        code="unreachable",
        title="Unreachable",
        detail=detail,
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds after which to ask again, counted from the answer's own `Date` where it names an
    instant: `Retry-After`, else `Fastly-RateLimit-Reset`. None where neither says."""
    said = headers.get("retry-after", "").strip()
    if said.isascii() and said.isdigit():
        return _bounded(said)
    at, now = _epoch(said), _epoch(headers.get("date", ""))
    if at is None:
        reset = headers.get("fastly-ratelimit-reset", "").strip()
        at = _bounded(reset) if reset.isascii() and reset.isdigit() else None
    return None if at is None or now is None else max(0.0, at - now)


def _bounded(digits: str) -> float:
    """As seconds; what no clock reaches is cut, so that no sum overflows."""
    return float(min(int(digits[:15]), 10**12))


def _epoch(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
