"""What an event changed, for a person: the object, and it before and after.

Pure. Written beside each event when it is appended, from the state on its two sides. Secrets are
starred; hashes of tokens are left out.
"""

from typing import Any

from msgspec import Struct, to_builtins

from handoff_config import services
from handoff_config.backends import BY_NAME, Backend
from handoff_config.contracts import AnyCustomerEvent, AnyOperatorsEvent, Customer, Operators
from handoff_config.services import AnyServiceEvent, Service, Version

State = Service | Customer | Operators
AnyEvent = AnyServiceEvent | AnyCustomerEvent | AnyOperatorsEvent
View = dict[str, Any]

_PARTS = {
    "domain": "domains",
    "backend": "backends",
    "director": "directors",
    "websocket_rule": "rules",
}


class Change(Struct, frozen=True):
    """object: its kind; name: which one; version: of the service, where it has one; before, after:
    None where it did not exist."""

    object: str
    name: str
    version: int | None
    before: View | None
    after: View | None


def change(before: State | None, event: AnyEvent, after: State) -> Change:
    kind = tag(event).partition(".")[0]
    number: int | None = getattr(event, "version", None)
    if isinstance(after, Service):
        old = before if isinstance(before, Service) else None
        if kind in _PARTS and number is not None:
            return _part_change(kind, number, event, old, after)
        if kind == "version" and number is not None:
            was = _version(old.versions.get(number), old) if old else None
            return Change(kind, str(number), number, was, _version(after.versions[number], after))
        if kind == "product":
            product: str = event.product  # type: ignore[union-attr]
            return Change(kind, product, None, _product(old, product), _product(after, product))
        if kind == "limits":
            return Change(
                kind,
                after.service_id,
                None,
                to_builtins(old.limits) if old else None,
                to_builtins(after.limits),
            )
        return Change(
            "service", after.service_id, None, _service(old) if old else None, _service(after)
        )
    return _account_change(kind, event, before, after)


def tag(event: AnyEvent) -> str:
    return str(event.__struct_config__.tag)


def _part_change(
    kind: str, number: int, event: AnyEvent, before: Service | None, after: Service
) -> Change:
    def part(state: Service | None, name: str | None) -> View | None:
        version = state.versions.get(number) if state else None
        if version is None or name is None:
            return None
        found = getattr(version, _PARTS[kind]).get(name.lower() if kind == "domain" else name)
        return None if found is None else _part(found)

    old = getattr(event, "was", None) or getattr(event, "name", None)
    saved = next(
        (getattr(event, k) for k in ("domain", "backend", "director", "rule") if hasattr(event, k)),
        None,
    )
    new = None if saved is None else saved.name
    return Change(kind, str(new or old), number, part(before, old), part(after, new))


def _part(part: Struct) -> View:
    if isinstance(part, Backend):
        shown = {
            key: "(secret)" if BY_NAME[key].secret else value
            for key, value in part.settings.items()
        }
        return {"name": part.name, "address": part.address, **shown}
    view: View = to_builtins(part)
    return {k: v for k, v in view.items() if k not in ("created_ms", "updated_ms")}


def _version(version: Version | None, service: Service) -> View | None:
    if version is None:
        return None
    return {
        "number": version.number,
        "comment": version.comment,
        "locked": version.locked,
        "active": service.active_version == version.number,
    }


def _product(service: Service | None, product: str) -> View:
    state = service.products.get(product) if service else None
    state = state or services.Enablement()
    return {"enabled": state.enabled, "keep_open": state.keep_open}


def _service(service: Service) -> View:
    return {
        "name": service.name,
        "comment": service.comment,
        "type": service.type,
        "customer_id": service.customer_id,
        "deleted": service.deleted_ms is not None,
    }


def _account_change(kind: str, event: AnyEvent, before: State | None, after: State) -> Change:
    if kind == "customer" and isinstance(after, Customer):
        old = before if isinstance(before, Customer) else None
        return Change(
            kind, after.customer_id, None, _customer(old) if old else None, _customer(after)
        )
    key = _account_key(kind, event)

    def one(state: State | None) -> View | None:
        found = getattr(state, f"{kind}s", {}).get(key) if state is not None else None
        if found is None:
            return None
        view: View = to_builtins(found)
        return {k: v for k, v in view.items() if k not in ("sha256", "created_ms", "updated_ms")}

    return Change(kind, key, None, one(before), one(after))


def _account_key(kind: str, event: AnyEvent) -> str:
    held = getattr(event, kind, None)
    return str(getattr(held if held is not None else event, f"{kind}_id"))


def _customer(customer: Customer) -> View:
    return {
        "name": customer.name,
        "account_type": customer.account_type,
        "billing_email": customer.billing_email,
        "suspended": customer.suspended,
        "deleted": customer.deleted_ms is not None,
    }
