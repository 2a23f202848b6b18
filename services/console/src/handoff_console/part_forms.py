"""The forms of a version's parts: which fields there are, of what kind, and how what was typed
becomes what the API takes. Pure.

What a field may hold is the API's to say: here a text only becomes a number, a flag or nothing.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, get_type_hints

from handoff_client import backends, websocket_rules

Kind = Literal["text", "lines", "number", "flag", "choice"]
"""lines: a text of several, as PEM has them. choice: yes, no, or nothing said: its default."""


class Field(NamedTuple):
    """label: in words. hint: what it is for, or what stands when it is empty."""

    name: str
    label: str
    kind: Kind
    hint: str = ""


class NotANumber(ValueError):
    """field, value: what was typed where digits belong."""

    def __init__(self, field: Field, value: str) -> None:
        super().__init__(f"{field.label}: {value!r} is not a whole number")
        self.field = field


BACKEND = (
    Field("name", "Name", "text", "How rules call it"),
    Field("address", "Address", "text", "Host name or IP address"),
    Field("port", "Port", "number", "80 where it is empty, 443 with TLS"),
    Field("use_ssl", "TLS to the origin", "flag"),
    Field("override_host", "Override host", "text", "Sent in place of the request's Host"),
    Field("comment", "Comment", "text"),
)
"""What WebSockets leaves to the user."""

RULE = (
    Field("name", "Name", "text"),
    Field("priority", "Priority", "number", "Lower is tried first; 100 where it is empty"),
    Field("backend", "Backend", "text"),
    Field("host", "Host", "text", "chat.example.com, or *.example.com"),
    Field("path_prefix", "Path prefix", "text", "As /chat; or a pattern, not both"),
    Field("path_pattern", "Path pattern", "text", "* stands for any run of characters"),
    Field("header_name", "Header", "text"),
    Field("header_value", "Header value", "text", "Empty: any value"),
    Field("query_name", "Query parameter", "text"),
    Field("query_value", "Parameter value", "text", "Empty: any value"),
    Field("subprotocol", "Subprotocol", "text"),
    Field("comment", "Comment", "text"),
)

DOMAIN = (
    Field("name", "Domain", "text", "chat.example.com, or *.example.com for every name below it"),
    Field("comment", "Comment", "text"),
)


_PEM = frozenset({"ssl_ca_cert", "ssl_client_cert", "ssl_client_key", "client_cert"})


def _others() -> tuple[Field, ...]:
    main = {field.name for field in BACKEND} | {"hostname", "ipv4", "ipv6"}
    fields = []
    for name, kind in get_type_hints(backends.Settings).items():
        if name not in main:
            fields.append(Field(name, name, "lines" if name in _PEM else _kind(kind)))
    return tuple(fields)


def _kind(annotation: Any) -> Kind:
    kinds = getattr(annotation, "__args__", (annotation,))
    return "choice" if bool in kinds else "number" if int in kinds else "text"


BACKEND_OTHERS = _others()
"""Stored and given back; at its default each, where WebSockets is to be enabled."""

assert {field.name for field in RULE} - {"name"} == get_type_hints(websocket_rules.Settings).keys()


def values(fields: tuple[Field, ...], typed: Callable[[str], str | None]) -> dict[str, Any]:
    """Field → what the API takes; what the form did not have is left out, what is empty is None.

    Raises NotANumber.
    """
    found: dict[str, Any] = {}
    for field in fields:
        text = typed(field.name)
        if field.kind == "flag":
            # A box that is not checked sends nothing; its hidden twin tells that it was there.
            if typed(f"{field.name}.there") is not None:
                found[field.name] = text is not None
        elif text is None:
            continue
        elif not text:
            found[field.name] = None
        elif field.kind == "choice":
            found[field.name] = text == "true"
        elif field.kind == "number":
            found[field.name] = _number(field, text)
        else:
            found[field.name] = text
    return found


def typed_text(sent: str) -> str:
    """What was typed, of what a browser sends: its line ends are CR LF, and spaces at the ends are
    slips."""
    return sent.replace("\r\n", "\n").replace("\r", "\n").strip()


def untouched(given: Mapping[str, Any], held: Mapping[str, Any]) -> dict[str, Any]:
    """What is to be saved; a text that nobody has changed is the held one, to the last line end,
    where the form's text is another only by how forms are sent."""
    return {
        name: held[name]
        if isinstance(value, str)
        and isinstance(before := held.get(name), str)
        and typed_text(before) == value
        else value
        for name, value in given.items()
    }


def _number(field: Field, text: str) -> int:
    if not text.isascii() or not text.removeprefix("-").isdigit() or len(text) > 18:
        raise NotANumber(field, text)
    return int(text)


def mark_of(held: Mapping[str, Any]) -> str:
    """Of what stands in a form: another one as soon as anything in it is another."""
    text = json.dumps(held, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def shown(fields: tuple[Field, ...], part: Any) -> dict[str, Any]:
    """Field → what stands in the form; `part` is an answer of the API, or a mapping."""
    if isinstance(part, Mapping):
        return {field.name: part.get(field.name) for field in fields}
    return {field.name: getattr(part, field.name, None) for field in fields}
