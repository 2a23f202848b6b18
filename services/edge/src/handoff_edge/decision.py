"""The decision: where a request head goes, or why it goes nowhere. Pure and in memory.

The order of the refusals is part of the interface: the first that applies is the one told.
"""

from dataclasses import dataclass

from handoff_common.events import BackendSnapshot, Limits, ServiceData
from handoff_common.matching import NoRoute, route
from handoff_edge.errors import Refusal
from handoff_edge.head import Head
from handoff_edge.rulebook import RuleBook, entitlement


@dataclass(frozen=True, slots=True)
class Handoff:
    """Where the request goes. rule: None where the service has no rules. domain: as asked for."""

    service_id: str
    customer_id: str
    service_version: int
    domain: str
    rule: str | None
    backend: BackendSnapshot
    limits: Limits


def decide(
    book: RuleBook, head: Head, now_ms: int, server_name: str | None = None
) -> Handoff | Refusal:
    """What happens to the request, by the configuration in `book`. The service's limits come next:
    a place is taken where it is counted, in one step (`limits`)."""
    service = book.service_for(head.host)
    if service is None:
        return Refusal("unknown_domain", f"no service has the domain {head.host!r}")
    if server_name is not None:
        # One connection speaks for one customer: a name that is nobody's here is a load balancer's.
        named = book.service_for(server_name.lower().rstrip("."))
        if named is not None and named.customer_id != service.customer_id:
            text = (
                f"the TLS name {server_name!r} is another customer's than the domain {head.host!r}"
            )
            return Refusal("tls_name_mismatch", text)
    if refusal := entitled(book, service, now_ms):
        return refusal
    if book.cap(service.customer_id) is not None:
        return Refusal("over_budget", "the customer's budget for this month is used up")
    found = route(service.rules, service.backends, head)
    if isinstance(found, NoRoute):
        return Refusal("no_rule", found.text)
    return Handoff(
        service_id=service.service_id,
        customer_id=service.customer_id,
        service_version=service.active_version or 0,
        domain=head.host,
        rule=found.rule,
        backend=found.backend,
        limits=service.limits,
    )


def entitled(book: RuleBook, service: ServiceData, now_ms: int) -> Refusal | None:
    """Why the service may hand nothing off, or None where it may."""
    if not service.websockets_enabled:
        return Refusal("not_enabled", "WebSockets are not enabled for this service")
    customer = book.customer(service.customer_id)
    contracts = customer.contracts if customer is not None and not customer.deleted_at else ()
    if customer is None or not entitlement(contracts, now_ms).in_force:
        return Refusal("no_contract", "the customer has no contract in force for WebSockets")
    if customer.account_type == "trial":
        return Refusal("trial_account", "a trial account has no WebSockets")
    if customer.suspended:
        return Refusal("suspended", "the customer's account is suspended")
    return None
