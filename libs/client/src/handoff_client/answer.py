"""How answers are read: structs that know their fields, and the envelopes of lists.

Unknown fields are passed over, so that a client outlives a newer server; vocabularies are `str` for
the same reason. A field that is missing, or of another type, is an error that names its path.
Decimals are read from the digits that were sent, numbers too; there is no float on the way.
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from typing import Annotated, Any, Generic, TypeVar
from urllib.parse import parse_qs, urlsplit

import msgspec
from msgspec import Struct

from handoff_client.call import Call, Listing, Page, Reply, Value, call

T = TypeVar("T")

Instant = Annotated[datetime, msgspec.Meta(tz=True)]
"""Never without a time zone."""

_NEXT = re.compile(r'<([^>]*)>\s*;\s*rel="next"')


class Answer(Struct, frozen=True, kw_only=True):
    """Base of everything that is answered."""


class _Meta(Answer, frozen=True, kw_only=True):
    next_cursor: str | None


class _Envelope(Answer, Generic[T], frozen=True, kw_only=True):
    """A `/v1` list."""

    data: tuple[T, ...]
    meta: _Meta


class _MetaV3(Answer, frozen=True, kw_only=True):
    """`next_cursor` is absent at the end."""

    next_cursor: str | None = None


class _EnvelopeV3(Answer, Generic[T], frozen=True, kw_only=True):
    """A `/billing/v3` list."""

    data: tuple[T, ...]
    meta: _MetaV3


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


def json_of(kind: type[T]) -> Callable[[Reply], T]:
    """Reads a JSON body as `kind`. Raises msgspec.DecodeError, which names the path."""
    hashable: Any = kind  # which mypy does not know of a type variable's type

    def read(reply: Reply) -> T:
        value: T = _decoder(hashable).decode(reply.body)
        return value

    return read


def nothing(reply: Reply) -> None:
    """The body, where there is one, has nothing to say (`{"status": "ok"}`)."""


def text(reply: Reply) -> str:
    return reply.body.decode()


def anything(reply: Reply) -> Any:
    """JSON as built-in types, other bodies as text, None where there is none."""
    if not reply.body:
        return None
    if "json" in reply.headers.get("content-type", ""):
        return msgspec.json.decode(reply.body)
    return reply.body.decode()


def listing(
    template: str, kind: type[T], /, *, query: Mapping[str, Value] | None = None, **path: Value
) -> Listing[T]:
    """A `/v1` list, by cursor."""

    def read(reply: Reply) -> Page[T]:
        found = _decoder(_Envelope[kind]).decode(reply.body)  # type: ignore[valid-type]
        return Page(found.data, found.meta.next_cursor)

    return Listing(_first(template, read, query, path), "cursor")


def listing_v3(
    template: str, kind: type[T], /, *, query: Mapping[str, Value] | None = None, **path: Value
) -> Listing[T]:
    """A `/billing/v3` list, by cursor."""

    def read(reply: Reply) -> Page[T]:
        found = _decoder(_EnvelopeV3[kind]).decode(reply.body)  # type: ignore[valid-type]
        return Page(found.data, found.meta.next_cursor)

    return Listing(_first(template, read, query, path), "cursor")


def classic_listing(
    template: str, kind: type[T], /, *, query: Mapping[str, Value] | None = None, **path: Value
) -> Listing[T]:
    """A classic list, by the number of the page that its `Link` header names; without one it is
    whole."""

    def read(reply: Reply) -> Page[T]:
        items = _decoder(tuple[kind, ...]).decode(reply.body)  # type: ignore[valid-type]
        return Page(items, next_page(reply.headers.get("link", "")))

    return Listing(_first(template, read, query, path), "page")


def _first(
    template: str,
    read: Callable[[Reply], Page[T]],
    query: Mapping[str, Value] | None,
    path: Mapping[str, Value],
) -> Call[Page[T]]:
    return call("GET", template, read, query=query, **path)  # type: ignore[arg-type]


def next_page(link: str) -> str | None:
    """The `page` of a `Link` header's `rel="next"`."""
    found = _NEXT.search(link)
    if found is None:
        return None
    pages = parse_qs(urlsplit(found[1]).query).get("page")
    return pages[0] if pages else None
