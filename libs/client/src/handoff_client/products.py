"""`/enabled-products` and the dry run: what is switched on for a service as a whole."""

from typing import Literal

from handoff_client.answer import Answer, json_of, nothing
from handoff_client.call import Call, call

Product = Literal["websockets", "ngwaf"]
# Each product has paths of its own, so that they stand in the documents as they are here.
_MANY = "/enabled-products/v1/{product}/services"


class Reference(Answer, frozen=True, kw_only=True):
    """object: `product`, `service` or `customer`."""

    id: str
    object: str


class EnabledProduct(Answer, frozen=True, kw_only=True):
    product: Reference
    service: Reference


class EnabledServices(Answer, frozen=True, kw_only=True):
    """services: ids. customer: None where an operator asks for all."""

    product: Reference
    customer: Reference | None = None
    services: tuple[str, ...]


class Violation(Answer, frozen=True, kw_only=True):
    """One thing that WebSockets does not go together with. object: `backend`, `director`,
    `websocket-rule` or `product`; name: which one; field: its setting; allowed: what it would have
    to be; reason: for a person."""

    object: str
    name: str
    field: str
    value: bool | int | str
    allowed: str
    reason: str


class Check(Answer, frozen=True, kw_only=True):
    """version: the one looked at, None where none is active. entitlement: what is lacking, and
    contact: whom to ask for it; None where entitled. may_toggle: whether the asking token may
    enable and disable."""

    service_id: str
    version: int | None
    entitled: bool
    entitlement: str | None
    contact: str | None = None
    enabled: bool
    may_toggle: bool
    compatible: bool
    violations: tuple[Violation, ...]


def enabled_services(
    product: Product = "websockets", *, customer_id: str | None = None
) -> Call[EnabledServices]:
    """The services that have it. customer_id: operators may name one."""
    query = {"customer_id": customer_id}
    return call("GET", _many(product), json_of(EnabledServices), query=query)


def get(service_id: str, product: Product = "websockets") -> Call[EnabledProduct]:
    """Invalid with code `no_product_on_service` where it is off."""
    return call("GET", _one(product), json_of(EnabledProduct), service_id=service_id)


def enable(service_id: str, product: Product = "websockets") -> Call[EnabledProduct]:
    """Enabled already is fine. Invalid with code `not_entitled`, whose detail names whom to
    contact, or `incompatible`, whose errors name everything that stands against it."""
    return call("PUT", _one(product), json_of(EnabledProduct), service_id=service_id)


def disable(
    service_id: str, product: Product = "websockets", *, keep_open: bool = False
) -> Call[None]:
    """Off already is fine. keep_open: leave open connections alone instead of ending them."""
    query = {"keep_open": keep_open}
    return call("DELETE", _one(product), nothing, query=query, service_id=service_id)


def check(service_id: str, *, version: int | None = None) -> Call[Check]:
    """What would stop WebSockets, in `version` or the active one. Nothing is changed."""
    return call(
        "GET",
        "/v1/services/{service_id}/websockets/check",
        json_of(Check),
        query={"version": version},
        service_id=service_id,
    )


def _many(product: Product) -> str:
    return _MANY.replace("{product}", product)


def _one(product: Product) -> str:
    return _many(product) + "/{service_id}"
