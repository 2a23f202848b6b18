"""The decision: where a request head goes, or why it goes nowhere. Pure and in memory.

The order of the refusals is part of the interface: the first that applies is the one told.
"""

from collections.abc import Callable
from dataclasses import dataclass

from handoff_common.events import BackendSnapshot, Limits, RuleSnapshot, ServiceData
from handoff_edge.errors import Refusal
from handoff_edge.head import Head
from handoff_edge.rulebook import RuleBook, entitlement


@dataclass(frozen=True, slots=True)
class Counts:
    """Of one service on this node: connections open or being opened, and those begun within the
    last second."""

    open: int = 0
    recent: int = 0


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
    book: RuleBook, head: Head, now_ms: int, counts: Callable[[str], Counts]
) -> Handoff | Refusal:
    """What happens to the request, by the configuration in `book`.

    counts: service id → what this node carries of it now.
    """
    service = book.service_for(head.host)
    if service is None:
        return Refusal("unknown_domain", f"no service has the domain {head.host!r}")
    if refusal := entitled(book, service, now_ms):
        return refusal
    if book.cap(service.customer_id) is not None:
        return Refusal("over_budget", "the customer's budget for this month is used up")
    found = _match(service, head)
    if isinstance(found, Refusal):
        return found
    rule, backend = found
    if refusal := _over_limit(service.limits, counts(service.service_id)):
        return refusal
    return Handoff(
        service_id=service.service_id,
        customer_id=service.customer_id,
        service_version=service.active_version or 0,
        domain=head.host,
        rule=rule,
        backend=backend,
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


def _match(service: ServiceData, head: Head) -> tuple[str | None, BackendSnapshot] | Refusal:
    backends = {backend.name: backend for backend in service.backends}
    if not service.rules and len(backends) == 1:
        return None, service.backends[0]
    for rule in service.rules:
        if rule_matches(rule, head):
            if rule.backend in backends:
                return rule.name, backends[rule.backend]
            text = f"rule {rule.name!r} names backend {rule.backend!r}, which does not exist"
            return Refusal("no_rule", text)
    if service.rules:
        return Refusal("no_rule", "no rule of the service matches the request")
    text = f"the service has no rule and {len(backends)} backends; exactly one would take all"
    return Refusal("no_rule", text)


def rule_matches(rule: RuleSnapshot, head: Head) -> bool:
    """Whether every condition of the rule holds. Paths are compared as presented, undecoded; the
    names of headers and hosts without regard to case."""
    if rule.host is not None and not _host_matches(rule.host, head.host):
        return False
    if rule.path_prefix is not None and not head.path.startswith(rule.path_prefix):
        return False
    if rule.path_pattern is not None and not glob_matches(rule.path_pattern, head.path):
        return False
    if rule.header is not None:
        wanted, name = rule.header.value, rule.header.name.lower()
        values = [field.value for field in head.fields if field.name == name]
        if not values or (wanted is not None and wanted not in values):
            return False
    if rule.query is not None:
        wanted = rule.query.value
        given = [value for name, value in head.parameters if name == rule.query.name]
        if not given or (wanted is not None and wanted not in given):
            return False
    return rule.subprotocol is None or rule.subprotocol in head.subprotocols


def _host_matches(pattern: str, host: str) -> bool:
    pattern = pattern.lower().removesuffix(".")
    if pattern.startswith("*."):
        _, dot, parent = host.partition(".")
        return bool(dot) and parent == pattern[2:]
    return pattern == host


def glob_matches(pattern: str, text: str) -> bool:
    """Whether `text` as a whole fits `pattern`, in which `*` is any run of characters.

    Linear in the text for each part, so that no pattern can stall the edge.
    """
    first, *middle = pattern.split("*")
    if not middle:
        return pattern == text
    last = middle.pop()
    if not text.startswith(first) or len(text) < len(first) + len(last):
        return False
    at, end = len(first), len(text) - len(last)
    if not text.endswith(last):
        return False
    for part in middle:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def _over_limit(limits: Limits, counts: Counts) -> Refusal | None:
    if limits.max_connections is not None and counts.open >= limits.max_connections:
        text = f"the service has {counts.open} open connections; {limits.max_connections} allowed"
        return Refusal("too_many_connections", text, retry_after=5)
    if limits.max_new_per_second is not None and counts.recent >= limits.max_new_per_second:
        text = f"the service takes {limits.max_new_per_second} new connections per second"
        return Refusal("too_many_new", text, retry_after=1)
    return None
