"""Which rule and backend of a version an upgrade request would take, said before it is activated.

Pure. Owns how a request is described by a URL, headers and subprotocols, and what of it is refused.
Does not own the matching: that is the edge's own, in `handoff_common.matching`.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from handoff_common.errors import FieldError
from handoff_common.events import RuleSnapshot
from handoff_common.matching import (
    Condition,
    NoRoute,
    Route,
    UpgradeRequest,
    domain_taking,
    route,
    unmet_condition,
)
from handoff_common.request_head import (
    FIELD_VALUE,
    HEAD_MAX,
    TARGET,
    host_name,
    listed,
    parameters_of,
    path_of,
)
from handoff_config import fields as checks
from handoff_config import snapshots
from handoff_config.services import Version

# --- The request ---------------------------------------------------------------------------------

_URL = re.compile(r"([^:/?#]*)://([^/?#]*)(.*)", re.DOTALL)
_SCHEMES = ("ws", "wss")
_UPGRADE = (
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
)
"""What every upgrade request has, since a rule may ask for it. What a caller gives goes before."""


class Field(NamedTuple):
    """A header: `name` lower-cased, `value` without the white space around it."""

    name: str
    value: str


class Request(NamedTuple):
    """An upgrade request, read as the edge reads its head."""

    host: str
    path: str
    fields: tuple[Field, ...]
    parameters: list[tuple[str, str]]
    subprotocols: tuple[str, ...]


def request_of(
    url: str, headers: Sequence[tuple[str, str]], subprotocols: Sequence[str]
) -> Request:
    """The request that a client would send to open `url`.

    headers: (name, value) in order, without Host, which is the URL's. subprotocols: offered besides
    those in a Sec-WebSocket-Protocol among the headers. Raises `invalid` (422) with every problem.
    """
    parts = _URL.fullmatch(url)
    scheme, authority, rest = parts.groups() if parts else ("", "", "")
    target = rest if rest.startswith("/") else f"/{rest}"
    host = host_name(authority)
    checks.require(
        [
            _url_problem(url, scheme, host, target),
            *(p for i, (name, value) in enumerate(headers) for p in _problems(i, name, value)),
            *(checks.header_name(f"subprotocols.{i}", name) for i, name in enumerate(subprotocols)),
        ]
    )
    given = [Field(name.lower(), value.strip(" \t")) for name, value in headers]
    named = {field.name for field in given}
    offered = [Field("sec-websocket-protocol", ", ".join(subprotocols))] if subprotocols else []
    implied = [Field(name, value) for name, value in _UPGRADE if name not in named]
    fields = (Field("host", authority), *implied, *given, *offered)
    checks.require([_size_problem(target, fields, headers, subprotocols)])
    return Request(
        host=host or "",
        path=path_of(target),
        fields=fields,
        parameters=parameters_of(target),
        subprotocols=tuple(listed(fields, "sec-websocket-protocol")),
    )


def _url_problem(url: str, scheme: str, host: str | None, target: str) -> FieldError | None:
    if scheme.lower() not in _SCHEMES:
        return checks.refused("url", url, "ws:// or wss://, a host, and a path with its query")
    if host is None:
        allowed = "a host name or address behind ://, with an optional port and nothing else"
        return checks.refused("url", url, allowed)
    if not (target.isascii() and TARGET.fullmatch(target.encode())):
        allowed = "a path and query of visible ASCII characters without #, others percent-encoded"
        return checks.refused("url", url, allowed)
    return None


def _problems(index: int, name: str, value: str) -> Iterable[FieldError | None]:
    place = f"headers.{index}"
    yield checks.header_name(f"{place}.0", name)
    if name.lower() == "host":
        yield checks.refused(f"{place}.0", name, "any but Host, which the url says")
    if not _is_field_value(value):
        allowed = "characters of Latin-1 that are no control characters"
        yield checks.refused(f"{place}.1", value, allowed)


def _is_field_value(value: str) -> bool:
    try:
        return FIELD_VALUE.fullmatch(value.encode("latin-1")) is not None
    except UnicodeEncodeError:
        return False


def _size_problem(
    target: str,
    fields: Iterable[Field],
    headers: Iterable[tuple[str, str]],
    subprotocols: Iterable[str],
) -> FieldError | None:
    """The edge takes no longer head. Names the field that makes the most of it."""
    line = len(f"GET {target} HTTP/1.1\r\n\r\n")
    size = line + sum(len(f"{name}: {value}\r\n") for name, value in fields)
    if size <= HEAD_MAX:
        return None
    shares = {
        "url": len(target),
        "headers": sum(len(name) + len(value) for name, value in headers),
        "subprotocols": sum(map(len, subprotocols)),
    }
    most = max(shares, key=shares.__getitem__)
    return FieldError(
        most, f"makes a request head of {size} bytes, {shares[most]} of them; allowed: {HEAD_MAX}"
    )


# --- What becomes of it --------------------------------------------------------------------------


class Refusal(NamedTuple):
    """The code is the edge's; `text` is for a person."""

    code: Literal["unknown_domain", "no_rule"]
    text: str


class Trial(NamedTuple):
    """One rule that was tried. failed: its first condition that does not hold; None: it matches."""

    rule: str
    failed: Condition | None


class Outcome(NamedTuple):
    """domain: as the version names it; None where it has none that takes the host. tried: in order,
    up to the first rule that matches."""

    domain: str | None
    found: Route | Refusal
    tried: tuple[Trial, ...]


def outcome(version: Version, request: UpgradeRequest) -> Outcome:
    """What an edge would do with the request if the version were active, the domain its own and
    WebSockets enabled: entitlement, limits and what others have are no matter of a version."""
    domain = domain_taking(request.host, version.domains)
    if domain is None:
        text = f"version {version.number} has no domain that takes {request.host!r}"
        return Outcome(None, Refusal("unknown_domain", text), ())
    rules = snapshots.rules_of(version)
    found = route(rules, snapshots.backends_of(version), request)
    return Outcome(
        version.domains[domain].name,
        Refusal("no_rule", found.text) if isinstance(found, NoRoute) else found,
        tuple(_trials(rules, request)),
    )


def _trials(rules: Iterable[RuleSnapshot], request: UpgradeRequest) -> Iterable[Trial]:
    for rule in rules:
        failed = unmet_condition(rule, request)
        yield Trial(rule.name, failed)
        if failed is None:
            return
