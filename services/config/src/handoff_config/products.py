"""What WebSockets does not go together with, and when a product may be enabled or disabled.

Pure. `violations` is the one answer behind its four uses: enabling, activating, the warnings of a
draft, and the dry run.
"""

from collections.abc import Iterator, Sequence

from msgspec import Struct

from handoff_common.errors import ApiError, FieldError
from handoff_config.backends import Value, off_default
from handoff_config.contracts import Customer, entitlement
from handoff_config.services import (
    AnyServiceEvent,
    ProductDisabled,
    ProductEnabled,
    Service,
    Version,
    in_matching_order,
)

WEBSOCKETS = "websockets"
NGWAF = "ngwaf"
PRODUCTS = (WEBSOCKETS, NGWAF)


class Violation(Struct, frozen=True):
    """One thing that WebSockets does not go together with.

    object: `backend`, `director`, `websocket-rule` or `product`; name: which one; field: its
    setting; value: what it is; allowed: what it would have to be; reason: for a person.
    """

    object: str
    name: str
    field: str
    value: Value
    allowed: str
    reason: str

    @property
    def path(self) -> str:
        return f"{self.object}.{self.name}.{self.field}"

    def sentence(self) -> str:
        return f"{self.object} {self.name!r}: {self.reason}"


def violations(version: Version | None, *, ngwaf: bool) -> tuple[Violation, ...]:
    """Everything in the version (None: no version, nothing to check yet) that would stop
    WebSockets; `ngwaf` whether the next-gen WAF is on."""
    return tuple(_violations(version, ngwaf))


def _violations(version: Version | None, ngwaf: bool) -> Iterator[Violation]:
    if ngwaf:
        yield Violation(
            "product",
            NGWAF,
            "enabled",
            True,
            "false",
            "the next-gen WAF and WebSockets do not go together; disable one of them",
        )
    if version is None:
        return
    for director in version.directors.values():
        yield Violation(
            "director",
            director.name,
            "name",
            director.name,
            "no directors",
            "directors and WebSockets do not go together; delete it and use websocket-rules",
        )
    for backend in version.backends.values():
        for off in off_default(backend):
            if off.field == "shield":
                reason = f"shielding ({off.value!r}) and WebSockets do not go together"
            else:
                reason = f"{off.field} is {_short(off.value)}; allowed: {off.allowed}"
            yield Violation("backend", backend.name, off.field, off.value, off.allowed, reason)
    for rule in in_matching_order(version.rules.values()):
        if rule.backend not in version.backends:
            yield Violation(
                "websocket-rule",
                rule.name,
                "backend",
                rule.backend,
                ", ".join(version.backends) or "a backend of this version; there is none",
                f"it names backend {rule.backend!r}, which this version does not have",
            )


def _short(value: Value) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def of_version(service: Service, number: int) -> tuple[Violation, ...]:
    """What stands against activating the version while WebSockets is on."""
    if not service.enabled(WEBSOCKETS):
        return ()
    return violations(service.versions[number], ngwaf=service.enabled(NGWAF))


def enable(
    service: Service, product: str, customer: Customer | None, at_ms: int, *, contact: str
) -> Sequence[AnyServiceEvent]:
    """Raises 400 with the reason: not entitled (naming the contact), or everything that the
    product does not go together with. Enabling what is enabled is no event."""
    if service.enabled(product):
        return ()
    if product == WEBSOCKETS:
        lacking = entitlement(customer, product, at_ms).lacking
        if lacking is not None:
            raise ApiError(
                400,
                "not_entitled",
                f"customer is not entitled to enable {product}",
                f"{lacking}; to get one, contact {contact}",
            )
        against = violations(service.active, ngwaf=service.enabled(NGWAF))
        if against:
            raise incompatible(service.active_version, against)
    elif product == NGWAF and service.enabled(WEBSOCKETS):
        raise ApiError(
            400,
            "incompatible",
            f"{product} is not compatible with {WEBSOCKETS}",
            f"service {service.service_id} has {WEBSOCKETS} enabled; disable it first",
            [FieldError(f"product.{WEBSOCKETS}.enabled", "is true; allowed: false")],
        )
    return (ProductEnabled(product),)


def disable(service: Service, product: str, *, keep_open: bool) -> Sequence[AnyServiceEvent]:
    """Disabling what is off is no event."""
    return (ProductDisabled(product, keep_open),) if service.enabled(product) else ()


def incompatible(number: int | None, against: Sequence[Violation]) -> ApiError:
    where = "the service" if number is None else f"active version {number}"
    return ApiError(
        400,
        "incompatible",
        f"service is not compatible with {WEBSOCKETS}",
        f"in {where}: " + "; ".join(v.sentence() for v in against),
        [FieldError(v.path, v.reason) for v in against],
    )


def not_enabled(product: str, service_id: str) -> ApiError:
    return ApiError(
        400,
        "no_product_on_service",
        "no product on service",
        f"{product} is not enabled on service {service_id}",
    )
