"""`/service/{id}/version/{n}/director` and its links to backends. Changed only in a draft.

Directors and WebSockets do not go together; they are here for services without it.
"""

from typing import TypedDict, Unpack

from handoff_client.answer import Answer, Instant, classic_listing, json_of, nothing
from handoff_client.backends import Backend
from handoff_client.call import Call, Listing, Repeat, call

_MANY = "/service/{service_id}/version/{version}/director"
_ONE = _MANY + "/{name}"
_LINK = _MANY + "/{director}/backend/{backend}"


class Settings(TypedDict, total=False):
    """type: 1 random, 3 hash, 4 client. quorum: 0 to 100. None is the default."""

    type: int | None
    quorum: int | None
    retries: int | None
    capacity: int | None
    shield: str | None
    comment: str | None


class Changes(Settings, total=False):
    """Settings, and the new name."""

    name: str


class Director(Answer, frozen=True, kw_only=True):
    name: str
    type: int
    quorum: int
    retries: int
    capacity: int
    shield: str | None
    comment: str
    backends: tuple[Backend, ...]
    service_id: str
    version: int
    created_at: Instant
    updated_at: Instant


class Link(Answer, frozen=True, kw_only=True):
    """A backend that is a member of a director."""

    director: str
    backend_name: str
    service_id: str
    version: int


def listing(service_id: str, version: int) -> Listing[Director]:
    return classic_listing(_MANY, Director, service_id=service_id, version=version)


def get(service_id: str, version: int, name: str) -> Call[Director]:
    return call("GET", _ONE, json_of(Director), service_id=service_id, version=version, name=name)


def create(
    service_id: str, version: int, name: str, **settings: Unpack[Settings]
) -> Call[Director]:
    body = {"name": name, **settings}
    return call("POST", _MANY, json_of(Director), body=body, service_id=service_id, version=version)


def update(
    service_id: str, version: int, director: str, **changes: Unpack[Changes]
) -> Call[Director]:
    """director: its present name."""
    return call(
        "PUT",
        _ONE,
        json_of(Director),
        body=changes,
        # Where the first has renamed it, a repeat would not find it.
        repeat=Repeat.NEVER if "name" in changes else None,
        service_id=service_id,
        version=version,
        name=director,
    )


def delete(service_id: str, version: int, name: str) -> Call[None]:
    return call("DELETE", _ONE, nothing, service_id=service_id, version=version, name=name)


def linked(service_id: str, version: int, director: str, backend: str) -> Call[Link]:
    """NotFound where the backend is no member."""
    return call(
        "GET",
        _LINK,
        json_of(Link),
        service_id=service_id,
        version=version,
        director=director,
        backend=backend,
    )


def link(service_id: str, version: int, director: str, backend: str) -> Call[Link]:
    """Make the backend a member; one already is fine."""
    return call(
        "POST",
        _LINK,
        json_of(Link),
        service_id=service_id,
        version=version,
        director=director,
        backend=backend,
    )


def unlink(service_id: str, version: int, director: str, backend: str) -> Call[None]:
    return call(
        "DELETE",
        _LINK,
        nothing,
        service_id=service_id,
        version=version,
        director=director,
        backend=backend,
    )
