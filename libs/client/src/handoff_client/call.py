"""A call as data: what is asked, how its answer is read, and whether it may be repeated.

Nothing here does I/O. An operation of the API is a function that returns a `Call` or a `Listing`;
`Client` and `AsyncClient` both run these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import msgspec
from msgspec import UNSET

T = TypeVar("T")
Value = str | int | bool | datetime | None
"""Of a query or path parameter."""


class BadArgument(ValueError):
    """An argument that no request can bear. name: of the argument. It was not sent."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name} is {text}")
        self.name = name


class Repeat(Enum):
    """Whether a call whose answer was lost may be sent again."""

    FREELY = "repeating it changes nothing more"
    GONE = "it deletes: where a repeat finds nothing, the first has done it"
    KEYED = "it creates: an Idempotency-Key, kept over the repeats, makes them one"
    NEVER = "a repeat would do it twice, or be refused because the first was done"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it came: header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Received(Generic[T]):
    """A call's result beside what its headers say."""

    value: T
    headers: Mapping[str, str]

    @property
    def etag(self) -> str | None:
        """For `if_match` of a later change."""
        return self.headers.get("etag")

    @property
    def warning(self) -> str | None:
        """What a draft of a service with WebSockets should not have."""
        return self.headers.get("x-handoff-warning")

    @property
    def ignored(self) -> tuple[str, ...]:
        """Names of fields that were sent and not taken."""
        names = self.headers.get("x-handoff-ignored", "")
        return tuple(name.strip() for name in names.split(",") if name.strip())

    @property
    def replayed(self) -> bool:
        """Whether this is the answer of an earlier call with the same Idempotency-Key."""
        return self.headers.get("idempotent-replayed") == "true"

    @property
    def request_id(self) -> str:
        return self.headers.get("x-request-id", "")


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One operation with its arguments. template: the path as the OpenAPI document has it. body:
    JSON. anonymous: sent without the client's token."""

    method: str
    template: str
    path: str
    decode: Callable[[Reply], T]
    repeat: Repeat
    query: tuple[tuple[str, str], ...] = ()
    # It may hold a password: nothing that is logged shows it.
    body: bytes | None = field(default=None, repr=False)
    headers: tuple[tuple[str, str], ...] = ()
    anonymous: bool = False

    def with_headers(self) -> Call[Received[T]]:
        """The same call, with what its answer's headers say."""
        read = self.decode

        def both(reply: Reply) -> Received[T]:
            return Received(read(reply), reply.headers)

        return replace(self, decode=both)  # type: ignore[arg-type,return-value]


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a list. next: names the page after it; None: this was the last."""

    items: tuple[T, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """A list that is read page by page. place: the query parameter that names a page."""

    first: Call[Page[T]]
    place: str

    def page(self, at: str | None = None) -> Call[Page[T]]:
        """One page: the first, or the one that `next` of the page before it names."""
        if at is None:
            return self.first
        query = tuple(pair for pair in self.first.query if pair[0] != self.place)
        return replace(self.first, query=(*query, (self.place, at)))


REPEATS = {
    "GET": Repeat.FREELY,
    "PUT": Repeat.FREELY,
    "PATCH": Repeat.FREELY,
    "DELETE": Repeat.GONE,
    "POST": Repeat.KEYED,
}
"""By the method, where an operation does not say otherwise."""


def call(
    method: str,
    template: str,
    decode: Callable[[Reply], T],
    /,
    *,
    query: Mapping[str, Value] | None = None,
    body: Mapping[str, Any] | None = None,
    repeat: Repeat | None = None,
    if_match: str | None = None,
    anonymous: bool = False,
    **path: Value,
) -> Call[T]:
    """A call. path: what stands for the names in braces. query: None is left out. body: UNSET is
    left out, None is null. repeat: by the method where it is not given.

    Raises BadArgument for what no request can bear: a part of a path that is empty, `.` or `..`, an
    instant without a time zone or outside of the years 1 to 9999 in UTC, an ETag that is not
    printable ASCII, a text with half of a surrogate pair.
    """
    if repeat is None:
        # The repeat of a change that was done would find another ETag than the one it names.
        repeat = REPEATS[method] if if_match is None else Repeat.NEVER
    return Call(
        method=method,
        template=template,
        path=template.format_map({name: _segment(name, value) for name, value in path.items()}),
        decode=decode,
        repeat=repeat,
        query=tuple((name, _text(name, v)) for name, v in (query or {}).items() if v is not None),
        body=None if body is None else _json(body),
        headers=() if if_match is None else (("If-Match", _etag(if_match)),),
        anonymous=anonymous,
    )


def _json(body: Mapping[str, Any]) -> bytes:
    kept = {name: value for name, value in body.items() if value is not UNSET}
    for name, value in kept.items():
        if isinstance(value, datetime):
            kept[name] = _instant(name, value)
    try:
        return msgspec.json.encode(kept)
    except UnicodeEncodeError:
        raise BadArgument("the body", "no Unicode: it has half of a surrogate pair") from None


def _etag(text: str) -> str:
    if not (text.isascii() and text.isprintable()):
        raise BadArgument("if_match", f"{text!r}; it must be an ETag as it was answered")
    return text


def _segment(name: str, value: Value) -> str:
    text = _text(name, value)
    if text in ("", ".", ".."):
        # It would make the path that of another operation.
        raise BadArgument(name, f"{text!r}; it must be an id or a name")
    try:
        return quote(text, safe="")
    except UnicodeEncodeError:
        raise BadArgument(name, f"{text!r}, which is no Unicode") from None


def _text(name: str, value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return _instant(name, value)
    return str(value)


def _instant(name: str, value: datetime) -> str:
    if value.tzinfo is None:
        raise BadArgument(name, f"{value.isoformat()} without a time zone; give one, as UTC")
    try:
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    except OverflowError:
        raise BadArgument(name, f"{value.isoformat()}, which is beyond the years of UTC") from None
