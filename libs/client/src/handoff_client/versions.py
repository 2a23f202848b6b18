"""`/service/{id}/version`: a service's versions."""

from handoff_client.answer import Answer, Instant, classic_listing, json_of
from handoff_client.call import Call, Listing, Repeat, call

_MANY = "/service/{service_id}/version"
_ONE = _MANY + "/{version}"


class Version(Answer, frozen=True, kw_only=True):
    """An active or locked version is immutable."""

    number: int
    service_id: str
    comment: str
    active: bool
    locked: bool
    created_at: Instant
    updated_at: Instant


class Validity(Answer, frozen=True, kw_only=True):
    """status: `ok` or `error`. warnings do not make a version invalid; those about WebSockets stop
    it from being activated while WebSockets is enabled."""

    status: str
    msg: str | None
    errors: tuple[str, ...]
    warnings: tuple[str, ...]


def listing(service_id: str) -> Listing[Version]:
    """Every version, the first one first."""
    return classic_listing(_MANY, Version, service_id=service_id)


def get(service_id: str, version: int) -> Call[Version]:
    return call("GET", _ONE, json_of(Version), service_id=service_id, version=version)


def create(service_id: str, *, comment: str = "") -> Call[Version]:
    """An empty draft; to go on from an existing version, clone it."""
    body = {"comment": comment}
    return call("POST", _MANY, json_of(Version), body=body, service_id=service_id)


def update(service_id: str, version: int, *, comment: str) -> Call[Version]:
    body = {"comment": comment}
    return call("PUT", _ONE, json_of(Version), body=body, service_id=service_id, version=version)


def clone(service_id: str, version: int) -> Call[Version]:
    """A new draft with everything that the version has. Sent once: each makes another."""
    return _put(service_id, version, "clone", Repeat.NEVER)


def activate(service_id: str, version: int) -> Call[Version]:
    """Make it the active one, and lock it. Invalid: `version_invalid` or `incompatible`, with what
    stands against it; Conflict: another service has one of its domains."""
    return _put(service_id, version, "activate", Repeat.FREELY)


def deactivate(service_id: str, version: int) -> Call[Version]:
    """Leave the service without an active version. Invalid where it is not the active one."""
    return _put(service_id, version, "deactivate", Repeat.NEVER)


def lock(service_id: str, version: int) -> Call[Version]:
    """Make it immutable without activating it."""
    return _put(service_id, version, "lock", Repeat.FREELY)


def validate(service_id: str, version: int) -> Call[Validity]:
    """Whether it could be activated, and what is worth knowing of it."""
    template = f"{_ONE}/validate"
    return call("GET", template, json_of(Validity), service_id=service_id, version=version)


def _put(service_id: str, version: int, action: str, repeat: Repeat) -> Call[Version]:
    return call(
        "PUT",
        f"{_ONE}/{action}",
        json_of(Version),
        repeat=repeat,
        service_id=service_id,
        version=version,
    )
