"""The rule book: service and customer snapshots and controls, folded into look-ups. Pure.

Snapshots bear a global revision and the greatest wins, so their order and repeats do not matter.
Controls come in the order of their key. Nothing here decides; `decision` and `endings` do.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from handoff_common.events import (
    ContractSnapshot,
    CustomerData,
    CustomerSnapshot,
    EndConnection,
    EndConnectionData,
    HardCap,
    HardCapData,
    ServiceData,
    ServiceSnapshot,
)
from handoff_common.instants import to_ms
from handoff_common.matching import domain_taking, normal_domain

PRODUCT = "websockets"


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """The rule book as it is kept on disk."""

    services: list[ServiceData]
    customers: list[CustomerData]
    caps: list[HardCapData]
    ends: list[EndConnectionData]


class RuleBook:
    """Domain → service, customer, caps and connections that are to end."""

    def __init__(self) -> None:
        self._services: dict[str, ServiceData] = {}
        self._customers: dict[str, CustomerData] = {}
        self._caps: dict[str, HardCapData] = {}
        self._ends: dict[str, EndConnectionData] = {}
        self._claims: dict[str, set[str]] = {}

    def apply(self, event: ServiceSnapshot | CustomerSnapshot | HardCap | EndConnection) -> bool:
        """Fold one event in; False where it says nothing new."""
        if isinstance(event, ServiceSnapshot):
            return self._apply_service(event.data)
        if isinstance(event, CustomerSnapshot):
            return self._apply_customer(event.data)
        if isinstance(event, HardCap):
            changed = self._caps.get(event.data.customer_id) != event.data
            self._caps[event.data.customer_id] = event.data
            return changed
        changed = self._ends.get(event.data.connection_id) != event.data
        self._ends[event.data.connection_id] = event.data
        return changed

    def service_for(self, host: str) -> ServiceData | None:
        """The service that has the domain: by its name, else by `*.` in place of its first label.

        Where two services claim a domain, the one with the greater revision has it: while a domain
        moves, its old owner may be read after its new one.
        """
        domain = domain_taking(host, self._claims)
        if domain is None:
            return None
        claims = self._claims[domain]
        winner = max(claims, key=lambda service: (self._services[service].revision, service))
        return self._services[winner]

    def service(self, service_id: str) -> ServiceData | None:
        """As last told, a deleted one too."""
        return self._services.get(service_id)

    def customer(self, customer_id: str) -> CustomerData | None:
        return self._customers.get(customer_id)

    def cap(self, customer_id: str) -> HardCapData | None:
        cap = self._caps.get(customer_id)
        return cap if cap is not None and cap.on else None

    def asked_ends(self, now_ms: int) -> list[EndConnectionData]:
        """Connections that are to end. Forgets what has expired."""
        expired = [key for key, end in self._ends.items() if to_ms(end.expires_at) <= now_ms]
        for key in expired:
            del self._ends[key]
        return list(self._ends.values())

    @property
    def services(self) -> int:
        return sum(1 for service in self._services.values() if service.deleted_at is None)

    @property
    def enabled(self) -> int:
        """Of the services, those with the product enabled."""
        known = self._services.values()
        return sum(1 for s in known if s.deleted_at is None and s.websockets_enabled)

    @property
    def domains(self) -> int:
        return len(self._claims)

    def saved(self) -> Saved:
        return Saved(
            services=list(self._services.values()),
            customers=list(self._customers.values()),
            caps=list(self._caps.values()),
            ends=list(self._ends.values()),
        )

    @classmethod
    def restored(cls, saved: Saved) -> "RuleBook":
        book = cls()
        for service in saved.services:
            book._apply_service(service)
        for customer in saved.customers:
            book._apply_customer(customer)
        book._caps = {cap.customer_id: cap for cap in saved.caps}
        book._ends = {end.connection_id: end for end in saved.ends}
        return book

    def _apply_service(self, data: ServiceData) -> bool:
        before = self._services.get(data.service_id)
        if before is not None and before.revision >= data.revision:
            return False
        for domain in _claimed(before) if before else ():
            claims = self._claims[domain]
            claims.discard(data.service_id)
            if not claims:
                del self._claims[domain]
        self._services[data.service_id] = data
        for domain in _claimed(data):
            self._claims.setdefault(domain, set()).add(data.service_id)
        return True

    def _apply_customer(self, data: CustomerData) -> bool:
        before = self._customers.get(data.customer_id)
        if before is not None and before.revision >= data.revision:
            return False
        self._customers[data.customer_id] = data
        return True


def _claimed(service: ServiceData) -> set[str]:
    if service.deleted_at is not None or service.active_version is None:
        return set()
    return {normal_domain(domain) for domain in service.domains}


@dataclass(frozen=True, slots=True)
class Entitlement:
    """Whether a WebSocket contract is in force; `ended_ms` is when the last one went out of force,
    None where there was none before now."""

    in_force: bool
    ended_ms: int | None


def entitlement(contracts: Iterable[ContractSnapshot], now_ms: int) -> Entitlement:
    """By the time given, not by when it was told: a contract that ends stops new handoffs at once,
    also while the configuration cannot be reached."""
    ended: int | None = None
    for contract in contracts:
        if contract.product != PRODUCT or to_ms(contract.starts_at) > now_ms:
            continue
        if contract.ends_at is None or now_ms < to_ms(contract.ends_at):
            return Entitlement(True, None)
        ended = max(ended or 0, to_ms(contract.ends_at))
    return Entitlement(False, ended)
