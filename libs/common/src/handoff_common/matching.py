"""Which domain, which rule and so which backend an upgrade request takes. Pure.

The edge decides by this, and config foretells by it: with one copy they cannot disagree.
"""

from collections.abc import Container, Sequence
from typing import Literal, NamedTuple, Protocol

from handoff_common.events import BackendSnapshot, RuleSnapshot
from handoff_common.request_head import HeaderField

Condition = Literal["host", "path_prefix", "path_pattern", "header", "query", "subprotocol"]


class UpgradeRequest(Protocol):
    """What matching reads of a request.

    host: lower-cased, without port and trailing dot. path: as presented, undecoded.
    parameters: the query, decoded. subprotocols: offered, in order.
    """

    @property
    def host(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def fields(self) -> Sequence[HeaderField]: ...
    @property
    def parameters(self) -> Sequence[tuple[str, str]]: ...
    @property
    def subprotocols(self) -> Sequence[str]: ...


class Route(NamedTuple):
    """Where a request goes. rule: None where there are no rules."""

    rule: str | None
    backend: BackendSnapshot


class NoRoute(NamedTuple):
    """Why a request goes nowhere, for a person."""

    text: str


def normal_domain(name: str) -> str:
    """The form in which domains and hosts are compared."""
    return name.lower().removesuffix(".")


def domain_taking(host: str, domains: Container[str]) -> str | None:
    """Which of the domains, each in its normal form, takes the host: the one of its name, else `*.`
    in place of its first label. None: none does."""
    host = normal_domain(host)
    if host in domains:
        return host
    _, dot, parent = host.partition(".")
    wildcard = f"*.{parent}"
    return wildcard if dot and wildcard in domains else None


def route(
    rules: Sequence[RuleSnapshot], backends: Sequence[BackendSnapshot], request: UpgradeRequest
) -> Route | NoRoute:
    """The first rule that matches names the backend; without rules the only backend takes all.

    rules: in the order in which they are tried. A rule that matches and whose backend is missing
    ends the search: nobody meant the next rule to have its requests.
    """
    if not rules:
        if len(backends) == 1:
            return Route(None, backends[0])
        return NoRoute(
            f"the service has no rule and {len(backends)} backends; exactly one would take all"
        )
    for rule in rules:
        if unmet_condition(rule, request) is None:
            for backend in backends:
                if backend.name == rule.backend:
                    return Route(rule.name, backend)
            return NoRoute(
                f"rule {rule.name!r} names backend {rule.backend!r}, which does not exist"
            )
    return NoRoute("no rule of the service matches the request")


def unmet_condition(rule: RuleSnapshot, request: UpgradeRequest) -> Condition | None:
    """The first condition of the rule that does not hold; None where the rule matches. Paths are
    compared as presented, undecoded; the names of headers and hosts without regard to case."""
    if rule.host is not None and not _host_matches(rule.host, request.host):
        return "host"
    if rule.path_prefix is not None and not request.path.startswith(rule.path_prefix):
        return "path_prefix"
    if rule.path_pattern is not None and not glob_matches(rule.path_pattern, request.path):
        return "path_pattern"
    if rule.header is not None:
        wanted, name = rule.header.value, rule.header.name.lower()
        values = [field.value for field in request.fields if field.name == name]
        if not values or (wanted is not None and wanted not in values):
            return "header"
    if rule.query is not None:
        wanted = rule.query.value
        given = [value for name, value in request.parameters if name == rule.query.name]
        if not given or (wanted is not None and wanted not in given):
            return "query"
    if rule.subprotocol is not None and rule.subprotocol not in request.subprotocols:
        return "subprotocol"
    return None


def _host_matches(pattern: str, host: str) -> bool:
    pattern = normal_domain(pattern)
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
