"""`/service/{id}/version/{n}/websocket-rule`: which backend takes which connection.

Rules are tried by `priority`, then by name; without any the only backend takes all. Changed only
in a draft.
"""

from typing import TypedDict, Unpack

from handoff_client.answer import Answer, Instant, classic_listing, json_of, nothing
from handoff_client.call import Call, Listing, Repeat, call

_MANY = "/service/{service_id}/version/{version}/websocket-rule"
_ONE = _MANY + "/{name}"


class Settings(TypedDict, total=False):
    """Everything that is given must match. priority: lower is tried first, 100 by default. host: a
    host name, or `*.` and one. path_prefix begins with `/`; in path_pattern `*` is any run of
    characters. None: no such condition."""

    priority: int | None
    backend: str | None
    host: str | None
    path_prefix: str | None
    path_pattern: str | None
    header_name: str | None
    header_value: str | None
    query_name: str | None
    query_value: str | None
    subprotocol: str | None
    comment: str | None


class Changes(Settings, total=False):
    """Settings, and the new name."""

    name: str


class Rule(Answer, frozen=True, kw_only=True):
    """backend: the name of the one that takes what matches."""

    name: str
    priority: int
    backend: str
    host: str | None
    path_prefix: str | None
    path_pattern: str | None
    header_name: str | None
    header_value: str | None
    query_name: str | None
    query_value: str | None
    subprotocol: str | None
    comment: str
    service_id: str
    version: int
    created_at: Instant
    updated_at: Instant


def listing(service_id: str, version: int) -> Listing[Rule]:
    """In the order in which they are tried."""
    return classic_listing(_MANY, Rule, service_id=service_id, version=version)


def get(service_id: str, version: int, name: str) -> Call[Rule]:
    return call("GET", _ONE, json_of(Rule), service_id=service_id, version=version, name=name)


def create(service_id: str, version: int, name: str, **settings: Unpack[Settings]) -> Call[Rule]:
    """`backend` must be given."""
    body = {"name": name, **settings}
    return call("POST", _MANY, json_of(Rule), body=body, service_id=service_id, version=version)


def update(service_id: str, version: int, rule: str, **changes: Unpack[Changes]) -> Call[Rule]:
    """rule: its present name."""
    return call(
        "PUT",
        _ONE,
        json_of(Rule),
        body=changes,
        # Where the first has renamed it, a repeat would not find it.
        repeat=Repeat.NEVER if "name" in changes else None,
        service_id=service_id,
        version=version,
        name=rule,
    )


def delete(service_id: str, version: int, name: str) -> Call[None]:
    return call("DELETE", _ONE, nothing, service_id=service_id, version=version, name=name)
