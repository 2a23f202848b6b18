"""A service and its versions: their state, the events that change them, and the fold.

Pure. `fold` never refuses: what may happen is decided in `service_commands`, before an event is
written. Instants are epoch milliseconds.
"""

from collections.abc import Iterable, Mapping
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from handoff_common.events import Limits
from handoff_config.backends import Backend

# --- State -------------------------------------------------------------------------------------


class Domain(Struct, frozen=True, omit_defaults=True):
    """`name` is as given; its lower-case form is the key, as host names know no case."""

    name: str
    comment: str = ""
    created_ms: int = 0
    updated_ms: int = 0


class Director(Struct, frozen=True, omit_defaults=True):
    """type: 1 random, 3 hash, 4 client."""

    name: str
    type: int = 1
    quorum: int = 75
    retries: int = 5
    capacity: int = 100
    shield: str | None = None
    comment: str = ""
    backends: tuple[str, ...] = ()
    created_ms: int = 0
    updated_ms: int = 0


class Rule(Struct, frozen=True, omit_defaults=True):
    """A WebSocket rule; every condition given must hold. Lower `priority` is tried first, then by
    name. A header or query name without a value asks for its presence."""

    name: str
    backend: str
    priority: int = 100
    host: str | None = None
    path_prefix: str | None = None
    path_pattern: str | None = None
    header_name: str | None = None
    header_value: str | None = None
    query_name: str | None = None
    query_value: str | None = None
    subprotocol: str | None = None
    comment: str = ""
    created_ms: int = 0
    updated_ms: int = 0


class Version(Struct, frozen=True, omit_defaults=True):
    """One configuration. Immutable once locked; activating locks."""

    number: int
    comment: str = ""
    locked: bool = False
    domains: dict[str, Domain] = {}
    backends: dict[str, Backend] = {}
    directors: dict[str, Director] = {}
    rules: dict[str, Rule] = {}
    created_ms: int = 0
    updated_ms: int = 0


class Enablement(Struct, frozen=True, omit_defaults=True):
    """A product on a service, for all its versions at once. `keep_open`: how it was disabled."""

    enabled: bool = False
    keep_open: bool = False
    changed_ms: int | None = None


class Service(Struct, frozen=True, omit_defaults=True):
    service_id: str
    customer_id: str
    name: str
    type: str = "vcl"
    comment: str = ""
    versions: dict[int, Version] = {}
    active_version: int | None = None
    products: dict[str, Enablement] = {}
    limits: Limits = Limits()
    created_ms: int = 0
    updated_ms: int = 0
    deleted_ms: int | None = None

    @property
    def active(self) -> Version | None:
        return None if self.active_version is None else self.versions[self.active_version]

    def enabled(self, product: str) -> bool:
        return self.products.get(product, Enablement()).enabled


# --- Events ------------------------------------------------------------------------------------


class ServiceEvent(Struct, frozen=True, omit_defaults=True, tag_field="type"):
    """Root of the events of `service/<id>` streams."""


class ServiceCreated(ServiceEvent, frozen=True, tag="service.created"):
    service_id: str
    customer_id: str
    name: str
    service_type: str = "vcl"
    comment: str = ""


class ServiceUpdated(ServiceEvent, frozen=True, tag="service.updated"):
    name: str
    comment: str


class ServiceDeleted(ServiceEvent, frozen=True, tag="service.deleted"):
    pass


class LimitsSet(ServiceEvent, frozen=True, tag="limits.set"):
    limits: Limits


class ProductEnabled(ServiceEvent, frozen=True, tag="product.enabled"):
    product: str


class ProductDisabled(ServiceEvent, frozen=True, tag="product.disabled"):
    product: str
    keep_open: bool = False


class VersionCreated(ServiceEvent, frozen=True, tag="version.created"):
    """`source`: the version that it is a copy of."""

    version: int
    source: int | None = None
    comment: str = ""


class VersionUpdated(ServiceEvent, frozen=True, tag="version.updated"):
    version: int
    comment: str


class VersionLocked(ServiceEvent, frozen=True, tag="version.locked"):
    version: int


class VersionActivated(ServiceEvent, frozen=True, tag="version.activated"):
    version: int


class VersionDeactivated(ServiceEvent, frozen=True, tag="version.deactivated"):
    version: int


class DomainSaved(ServiceEvent, frozen=True, tag="domain.saved"):
    """`was`: the name it had before, in an update."""

    version: int
    domain: Domain
    was: str | None = None


class DomainDeleted(ServiceEvent, frozen=True, tag="domain.deleted"):
    version: int
    name: str


class BackendSaved(ServiceEvent, frozen=True, tag="backend.saved"):
    version: int
    backend: Backend
    was: str | None = None


class BackendDeleted(ServiceEvent, frozen=True, tag="backend.deleted"):
    version: int
    name: str


class DirectorSaved(ServiceEvent, frozen=True, tag="director.saved"):
    version: int
    director: Director
    was: str | None = None


class DirectorDeleted(ServiceEvent, frozen=True, tag="director.deleted"):
    version: int
    name: str


class RuleSaved(ServiceEvent, frozen=True, tag="websocket_rule.saved"):
    version: int
    rule: Rule
    was: str | None = None


class RuleDeleted(ServiceEvent, frozen=True, tag="websocket_rule.deleted"):
    version: int
    name: str


AnyServiceEvent = (
    ServiceCreated
    | ServiceUpdated
    | ServiceDeleted
    | LimitsSet
    | ProductEnabled
    | ProductDisabled
    | VersionCreated
    | VersionUpdated
    | VersionLocked
    | VersionActivated
    | VersionDeactivated
    | DomainSaved
    | DomainDeleted
    | BackendSaved
    | BackendDeleted
    | DirectorSaved
    | DirectorDeleted
    | RuleSaved
    | RuleDeleted
)


# --- Fold --------------------------------------------------------------------------------------


def fold(state: Service | None, event: AnyServiceEvent, at_ms: int) -> Service:
    """The state after the event; `state` is None for the first event of a stream only."""
    if isinstance(event, ServiceCreated):
        return Service(
            service_id=event.service_id,
            customer_id=event.customer_id,
            name=event.name,
            type=event.service_type,
            comment=event.comment,
            created_ms=at_ms,
            updated_ms=at_ms,
        )
    if state is None:
        raise ValueError(f"a service's first event is {type(event).__name__}")
    return replace(_folded(state, event, at_ms), updated_ms=at_ms)


def _folded(state: Service, event: AnyServiceEvent, at_ms: int) -> Service:
    match event:
        case ServiceUpdated(name=name, comment=comment):
            return replace(state, name=name, comment=comment)
        case ServiceDeleted():
            off = {
                product: replace(was, enabled=False, keep_open=False, changed_ms=at_ms)
                for product, was in state.products.items()
                if was.enabled
            }
            return replace(
                state, products={**state.products, **off}, active_version=None, deleted_ms=at_ms
            )
        case LimitsSet(limits=limits):
            return replace(state, limits=limits)
        case ProductEnabled(product=product):
            on = Enablement(enabled=True, changed_ms=at_ms)
            return replace(state, products={**state.products, product: on})
        case ProductDisabled(product=product, keep_open=keep_open):
            disabled = Enablement(enabled=False, keep_open=keep_open, changed_ms=at_ms)
            return replace(state, products={**state.products, product: disabled})
        case VersionDeactivated():
            return replace(state, active_version=None)
        case VersionCreated(version=number, source=source, comment=comment):
            copied = Version(number) if source is None else state.versions[source]
            version = replace(
                copied,
                number=number,
                comment=comment,
                locked=False,
                created_ms=at_ms,
                updated_ms=at_ms,
            )
            return _with_version(state, version)
        case VersionActivated(version=number):
            version = replace(state.versions[number], locked=True, updated_ms=at_ms)
            return replace(_with_version(state, version), active_version=number)
        case ServiceCreated():
            raise ValueError("a service is created once")
        case _:
            version = replace(_versioned(state.versions[event.version], event, at_ms))
            return _with_version(state, replace(version, updated_ms=at_ms))


def _with_version(state: Service, version: Version) -> Service:
    return replace(state, versions={**state.versions, version.number: version})


_VersionedEvent = (
    VersionUpdated
    | VersionLocked
    | DomainSaved
    | DomainDeleted
    | BackendSaved
    | BackendDeleted
    | DirectorSaved
    | DirectorDeleted
    | RuleSaved
    | RuleDeleted
)


def _versioned(version: Version, event: _VersionedEvent, at_ms: int) -> Version:
    match event:
        case VersionUpdated(comment=comment):
            return replace(version, comment=comment)
        case VersionLocked():
            return replace(version, locked=True)
        case DomainSaved(domain=domain, was=was):
            old_key = None if was is None else was.lower()
            domains = _saved(version.domains, old_key, domain.name.lower(), domain, at_ms)
            return replace(version, domains=domains)
        case DomainDeleted(name=name):
            return replace(version, domains=_without(version.domains, name.lower()))
        case BackendSaved(backend=backend, was=was):
            backends = _saved(version.backends, was, backend.name, backend, at_ms)
            renamed = replace(version, backends=backends)
            return renamed if was is None else _backend_renamed(renamed, was, backend.name)
        case BackendDeleted(name=name):
            # A director merely loses the member; a rule keeps naming it, which validation refuses:
            # nobody meant to send its requests to what the next rule names.
            directors = {
                key: replace(d, backends=tuple(b for b in d.backends if b != name))
                for key, d in version.directors.items()
            }
            return replace(version, backends=_without(version.backends, name), directors=directors)
        case DirectorSaved(director=director, was=was):
            directors = _saved(version.directors, was, director.name, director, at_ms)
            return replace(version, directors=directors)
        case DirectorDeleted(name=name):
            return replace(version, directors=_without(version.directors, name))
        case RuleSaved(rule=rule, was=was):
            return replace(version, rules=_saved(version.rules, was, rule.name, rule, at_ms))
        case RuleDeleted(name=name):
            return replace(version, rules=_without(version.rules, name))


def _backend_renamed(version: Version, was: str, name: str) -> Version:
    """References follow a rename."""
    if was == name:
        return version
    directors = {
        key: replace(d, backends=tuple(name if b == was else b for b in d.backends))
        for key, d in version.directors.items()
    }
    rules = {
        key: replace(r, backend=name) if r.backend == was else r for key, r in version.rules.items()
    }
    return replace(version, directors=directors, rules=rules)


Part = TypeVar("Part", Domain, Backend, Director, Rule)


def _saved(
    parts: Mapping[str, Part], was: str | None, key: str, part: Part, at_ms: int
) -> dict[str, Part]:
    """The parts with `part` in them; an update keeps its place and its time of creation."""
    if was is None:
        return {**parts, key: replace(part, created_ms=at_ms, updated_ms=at_ms)}
    return {
        (key if k == was else k): (
            replace(part, created_ms=p.created_ms, updated_ms=at_ms) if k == was else p
        )
        for k, p in parts.items()
    }


def _without(parts: Mapping[str, Part], key: str) -> dict[str, Part]:
    return {k: part for k, part in parts.items() if k != key}


def in_matching_order(rules: Iterable[Rule]) -> list[Rule]:
    return sorted(rules, key=lambda rule: (rule.priority, rule.name))
