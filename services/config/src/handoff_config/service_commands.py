"""What may be done to a service: each command takes the state and gives the events, or refuses.

Pure. A state of None, or deleted, is answered 404.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from handoff_common.errors import ApiError, FieldError, not_found
from handoff_common.events import Limits
from handoff_config import errors, fields, products
from handoff_config.services import (
    AnyServiceEvent,
    LimitsSet,
    Service,
    ServiceCreated,
    ServiceDeleted,
    ServiceUpdated,
    Version,
    VersionActivated,
    VersionCreated,
    VersionDeactivated,
    VersionLocked,
    VersionUpdated,
)

TYPES = ("vcl", "wasm")

Events = Sequence[AnyServiceEvent]
Values = Mapping[str, Any]

# --- Services and versions ---------------------------------------------------------------------


def live(state: Service | None, service_id: str) -> Service:
    if state is None or state.deleted_ms is not None:
        raise not_found("service", service_id)
    return state


def version_of(service: Service, number: int) -> Version:
    version = service.versions.get(number)
    if version is None:
        raise not_found("version", str(number))
    return version


def draft(service: Service, number: int) -> Version:
    """The version, which may be changed."""
    version = version_of(service, number)
    if version.locked:
        raise errors.version_locked(number, active=service.active_version == number)
    return version


def create(service_id: str, customer_id: str, values: Values) -> Events:
    """A service with its first version."""
    name, comment = values.get("name") or "", values.get("comment") or ""
    kind = values.get("type") or "vcl"
    fields.require(
        [
            fields.name("name", name),
            fields.text("comment", comment),
            fields.one_of("type", kind, TYPES),
        ]
    )
    return (ServiceCreated(service_id, customer_id, name, kind, comment), VersionCreated(1))


def update(service: Service, values: Values) -> Events:
    name = service.name if "name" not in values else values["name"] or ""
    comment = service.comment if "comment" not in values else values["comment"] or ""
    fields.require([fields.name("name", name), fields.text("comment", comment)])
    if (name, comment) == (service.name, service.comment):
        return ()
    return (ServiceUpdated(name, comment),)


def delete(service: Service) -> Events:
    """Only without an active version, so that no traffic is cut by mistake."""
    if service.active_version is not None:
        raise ApiError(
            422,
            "service_active",
            "Cannot delete a service that has an active version",
            f"version {service.active_version} of service {service.service_id} is active; "
            "deactivate it first",
        )
    return (ServiceDeleted(),)


def create_version(service: Service, values: Values) -> Events:
    comment = values.get("comment") or ""
    fields.require([fields.text("comment", comment)])
    return (VersionCreated(_next_number(service), comment=comment),)


def clone(service: Service, number: int) -> Events:
    source = version_of(service, number)
    return (VersionCreated(_next_number(service), number, source.comment),)


def _next_number(service: Service) -> int:
    return max(service.versions, default=0) + 1


def update_version(service: Service, number: int, values: Values) -> Events:
    version = draft(service, number)
    comment = version.comment if "comment" not in values else values["comment"] or ""
    fields.require([fields.text("comment", comment)])
    return () if comment == version.comment else (VersionUpdated(number, comment),)


def lock(service: Service, number: int) -> Events:
    return () if version_of(service, number).locked else (VersionLocked(number),)


class Verdict(NamedTuple):
    """`errors` stand against activating; `warnings` are worth knowing."""

    errors: list[str]
    warnings: list[str]


def verdict(service: Service, number: int) -> Verdict:
    """What can be said of the version without looking at other services."""
    version = version_of(service, number)
    wrong = []
    if not version.domains:
        wrong.append(f"service {service.name!r} version {number} has no domain; it needs one")
    if not version.backends:
        wrong.append(f"service {service.name!r} version {number} has no backend; it needs one")
    known = ", ".join(map(repr, version.backends)) or "none"
    wrong += [
        f"websocket-rule {rule.name!r} names backend {rule.backend!r}, which the version "
        f"does not have (it has: {known})"
        for rule in version.rules.values()
        if rule.backend not in version.backends
    ]
    noted = []
    if service.enabled(products.WEBSOCKETS):
        noted = [
            f"not compatible with WebSockets, which is enabled: {v.sentence()}"
            for v in products.of_version(service, number)
            if v.object != "websocket-rule"
        ]
        if len(version.backends) > 1 and not version.rules:
            noted.append(
                f"{len(version.backends)} backends and no websocket-rule: no request will match"
            )
    return Verdict(wrong, noted)


def activate(service: Service, number: int) -> Events:
    """Raises 422 with everything that stands against it. Activating what is active is no event."""
    version_of(service, number)
    if service.active_version == number:
        return ()
    wrong = verdict(service, number).errors
    if wrong:
        raise errors.version_invalid(number, wrong)
    against = products.of_version(service, number)
    if against:
        raise ApiError(
            422,
            "incompatible",
            "Version is not compatible with WebSockets, which is enabled",
            f"version {number} cannot be activated: " + "; ".join(v.sentence() for v in against),
            [FieldError(v.path, v.reason) for v in against],
        )
    return (VersionActivated(number),)


def deactivate(service: Service, number: int) -> Events:
    version_of(service, number)
    if service.active_version != number:
        active = service.active_version
        raise ApiError(
            422,
            "version_not_active",
            "Version is not active",
            f"version {number} is not active; "
            + ("no version is" if active is None else f"version {active} is"),
        )
    return (VersionDeactivated(number),)


def set_limits(service: Service, limits: Limits) -> Events:
    return () if limits == service.limits else (LimitsSet(limits),)


# --- Limits --------------------------------------------------------------------------------------

_DAY_MS = 86_400_000
_RANGES = {
    "max_connections": (0, fields.INT32),
    "max_new_per_second": (0, 1_000_000),
    "max_bytes_per_second": (1, 2**53),
    "idle_timeout_ms": (1_000, 30 * _DAY_MS),
    "half_closed_timeout_ms": (1_000, _DAY_MS),
    "max_duration_ms": (1_000, 366 * _DAY_MS),
}


def checked_limits(values: Mapping[str, int | None]) -> Limits:
    """Raises `invalid` naming each limit that is out of its range."""
    fields.require(
        fields.number(key, value, low, high)
        for key, (low, high) in _RANGES.items()
        if (value := values.get(key)) is not None
    )
    return Limits(**{k: v for k, v in values.items() if v is not None})
