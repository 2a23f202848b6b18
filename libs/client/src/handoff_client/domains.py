"""`/service/{id}/version/{n}/domain`: host names of a version. Changed only in a draft."""

from msgspec import UNSET, UnsetType

from handoff_client.answer import Answer, Instant, classic_listing, json_of, nothing
from handoff_client.call import Call, Listing, Repeat, call

_MANY = "/service/{service_id}/version/{version}/domain"
_ONE = _MANY + "/{name}"


class Domain(Answer, frozen=True, kw_only=True):
    """name: a host name, or `*.` and one."""

    name: str
    comment: str
    service_id: str
    version: int
    created_at: Instant
    updated_at: Instant


def active(service_id: str) -> Listing[Domain]:
    """The domains of the active version; none where none is active."""
    return classic_listing("/service/{service_id}/domain", Domain, service_id=service_id)


def listing(service_id: str, version: int) -> Listing[Domain]:
    return classic_listing(_MANY, Domain, service_id=service_id, version=version)


def get(service_id: str, version: int, name: str) -> Call[Domain]:
    return call("GET", _ONE, json_of(Domain), service_id=service_id, version=version, name=name)


def create(service_id: str, version: int, name: str, *, comment: str = "") -> Call[Domain]:
    body = {"name": name, "comment": comment}
    return call("POST", _MANY, json_of(Domain), body=body, service_id=service_id, version=version)


def update(
    service_id: str,
    version: int,
    name: str,
    *,
    new_name: str | UnsetType = UNSET,
    comment: str | UnsetType = UNSET,
) -> Call[Domain]:
    """What is left out stays."""
    return call(
        "PUT",
        _ONE,
        json_of(Domain),
        body={"name": new_name, "comment": comment},
        # Where the first has renamed it, a repeat would not find it.
        repeat=None if new_name is UNSET else Repeat.NEVER,
        service_id=service_id,
        version=version,
        name=name,
    )


def delete(service_id: str, version: int, name: str) -> Call[None]:
    return call("DELETE", _ONE, nothing, service_id=service_id, version=version, name=name)
