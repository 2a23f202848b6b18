"""A backend: its fields, their defaults, what WebSockets allows, and how its place is given.

Pure. `FIELDS` is the one table behind requests, answers, incompatibility and the API's models.
A backend holds only what differs from the defaults: null, absent, empty and the default are equal.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from handoff_common.errors import FieldError, invalid
from handoff_config import fields

Value = bool | int | str
Kind = Literal["text", "int", "bool"]

_TLS_VERSIONS = ("1", "1.0", "1.1", "1.2", "1.3")
_PEM_LENGTH = 65_536
_SHARE_KEY = re.compile(r"[A-Za-z0-9]+")
_ALLOWED_ANY_NUMBER = (0, fields.INT32)


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a backend.

    default: what null, absent and empty stand for. free: WebSockets leaves it to the user.
    follows_address: equal to the address is as good as the default. secret: never shown in
    histories and reports. between: allowed range of an integer; values: allowed texts.
    """

    name: str
    kind: Kind
    default: Value | None = None
    free: bool = False
    follows_address: bool = False
    secret: bool = False
    between: tuple[int, int] = _ALLOWED_ANY_NUMBER
    values: tuple[str, ...] = ()
    longest: int = fields.MAX_NAME
    about: str = ""


FIELDS: tuple[Field, ...] = (
    Field("name", "text", free=True, about="Name, unique in its version."),
    Field(
        "address", "text", free=True, about="Host name or IP address; the preferred way to give it."
    ),
    Field("hostname", "text", free=True, about="The address, where it is a host name."),
    Field("ipv4", "text", free=True, about="The address, where it is an IPv4 address."),
    Field("ipv6", "text", free=True, about="The address, where it is an IPv6 address."),
    Field(
        "port",
        "int",
        80,
        free=True,
        between=(1, 65_535),
        about="443 sets `use_ssl` and 80 unsets it, unless it is given too.",
    ),
    Field("use_ssl", "bool", False, free=True, about="Whether to use TLS to the backend."),
    Field(
        "override_host",
        "text",
        free=True,
        about="Replaces the value of `Host`, and nothing else of the request.",
    ),
    Field("comment", "text", "", free=True, longest=fields.MAX_TEXT, about="For people."),
    Field("connect_timeout", "int", 1_000, about="Milliseconds. Must be at its default."),
    Field("first_byte_timeout", "int", 15_000, about="Milliseconds. Must be at its default."),
    Field("fetch_timeout", "int", 0, about="No effect. Must be at its default."),
    Field("between_bytes_timeout", "int", 10_000, about="Milliseconds. Must be at its default."),
    Field("max_conn", "int", 200, about="Must be at its default."),
    Field("weight", "int", 100, between=(1, fields.INT32), about="Must be at its default."),
    Field("error_threshold", "int", 0, about="Must be at its default."),
    Field("auto_loadbalance", "bool", False, about="Must be at its default."),
    Field("ssl_check_cert", "bool", True, about="Must be at its default: origins are verified."),
    Field("request_condition", "text", "", about="Must be at its default."),
    Field("prefer_ipv6", "bool", False, about="Must be at its default."),
    Field("max_use", "int", 0, about="Must be at its default."),
    Field("max_lifetime", "int", 0, about="Must be at its default."),
    Field("ssl_ca_cert", "text", longest=_PEM_LENGTH, about="Must be null."),
    Field("ssl_cert_hostname", "text", follows_address=True, about="Must be null or the address."),
    Field("ssl_sni_hostname", "text", follows_address=True, about="Must be null or the address."),
    Field("ssl_hostname", "text", follows_address=True, about="Must be null or the address."),
    Field("ssl_ciphers", "text", longest=fields.MAX_TEXT, about="Must be null."),
    Field("ssl_client_cert", "text", longest=_PEM_LENGTH, about="Must be null."),
    Field("ssl_client_key", "text", secret=True, longest=_PEM_LENGTH, about="Must be null."),
    Field("client_cert", "text", longest=_PEM_LENGTH, about="Must be null."),
    Field("min_tls_version", "text", values=_TLS_VERSIONS, about="Must be null."),
    Field("max_tls_version", "text", values=_TLS_VERSIONS, about="Must be null."),
    Field("shield", "text", about="Must be null: shielding and WebSockets do not go together."),
    Field("healthcheck", "text", about="Must be null."),
    Field("share_key", "text", about="Must be null."),
    Field("keepalive_time", "int", about="Must be null."),
    Field("tcp_keepalive_enable", "bool", about="Must be null."),
    Field("tcp_keepalive_interval", "int", about="Must be null."),
    Field("tcp_keepalive_probes", "int", about="Must be null."),
    Field("tcp_keepalive_time", "int", about="Must be null."),
)

BY_NAME: Mapping[str, Field] = {field.name: field for field in FIELDS}
_PLACES = ("address", "hostname", "ipv4", "ipv6")
_DERIVED = ("hostname", "ipv4", "ipv6")


class Backend(Struct, frozen=True, omit_defaults=True):
    """`settings` holds the fields that differ from their default, apart from name and address."""

    name: str
    address: str
    settings: dict[str, Value] = {}
    created_ms: int = 0
    updated_ms: int = 0

    @property
    def port(self) -> int:
        return int(self.settings.get("port", 80))

    @property
    def use_ssl(self) -> bool:
        return bool(self.settings.get("use_ssl", False))

    @property
    def override_host(self) -> str | None:
        value = self.settings.get("override_host")
        return None if value is None else str(value)


@dataclass(frozen=True, slots=True)
class OffDefault:
    """A setting that WebSockets does not support. `value` is starred where it is a secret."""

    field: str
    value: Value
    allowed: str


def merged(current: Backend | None, given: Mapping[str, Value | None]) -> Backend:
    """The backend after a create (`current` None) or an update with the given fields.

    A field left out stays as it is; null and empty put it back to its default. Raises `invalid`
    naming every wrong field, its value and what is allowed.
    """
    problems: list[FieldError] = []
    values = {k: None if v == "" else v for k, v in given.items() if k in BY_NAME}
    name = str(values["name"] or "") if "name" in values else current.name if current else ""
    problem = fields.name("name", name)
    if problem:
        problems.append(problem)
    address = _address(current.address if current else None, values, problems)
    settings = dict(current.settings) if current else {}
    for key, value in values.items():
        if key == "name" or key in _PLACES:
            continue
        wrong = None if value is None else _wrong(BY_NAME[key], value)
        if wrong:
            problems.append(wrong)
        elif value is None or value == BY_NAME[key].default:
            settings.pop(key, None)
        else:
            settings[key] = value
    if problems:
        raise invalid(problems)
    _follow_port(current, values, settings)
    if current is None:
        return Backend(name, address, settings)
    return replace(current, name=name, address=address, settings=settings)


def _follow_port(
    current: Backend | None, given: Mapping[str, Value | None], settings: dict[str, Value]
) -> None:
    if given.get("use_ssl") is not None:
        return
    port = settings.get("port", 80)
    if port == (current.port if current else 80):
        return
    if port == 443:
        settings["use_ssl"] = True
    elif port == 80:
        settings.pop("use_ssl", None)


def _address(
    current: str | None, given: Mapping[str, Value | None], problems: list[FieldError]
) -> str:
    """The one address that the four fields name.

    What merely repeats the present address is not a wish: a client that reads a backend, changes
    one of the four and writes all of them back gets what it changed.
    """
    for key in _PLACES:
        value = given.get(key)
        if value is not None:
            problem = _wrong_place(key, str(value))
            if problem:
                problems.append(problem)
                return current or ""
    wishes = {k: str(given[k]) for k in _PLACES if given.get(k) is not None}
    changes = {k: v for k, v in wishes.items() if v != current}
    if len(set(changes.values())) > 1:
        listed = ", ".join(f"{k} {v!r}" for k, v in changes.items())
        problems.append(FieldError("address", f"{listed} name different places; give one of them"))
        return current or ""
    if changes:
        return next(iter(changes.values()))
    if current is None or ("address" in given and not wishes):
        problems.append(
            FieldError("address", "is missing; allowed: a host name, IPv4 or IPv6 address")
        )
        return ""
    return current


def _wrong_place(key: str, value: str) -> FieldError | None:
    hostname, v4, v6 = fields.is_hostname(value), fields.is_ipv4(value), fields.is_ipv6(value)
    if key == "hostname":
        return None if hostname and not v4 else fields.refused(key, value, "a host name")
    if key == "ipv4":
        return None if v4 else fields.refused(key, value, "an IPv4 address")
    if key == "ipv6":
        return None if v6 else fields.refused(key, value, "an IPv6 address")
    if hostname or v6:
        return None
    return fields.refused(
        key, value, "a host name, IPv4 or IPv6 address; the port has its own field"
    )


def _wrong(field: Field, value: Value) -> FieldError | None:
    if field.kind == "bool":
        return None if isinstance(value, bool) else fields.refused(field.name, value, "true, false")
    if field.kind == "int":
        if isinstance(value, bool) or not isinstance(value, int):
            return fields.refused(field.name, value, "an integer")
        return fields.number(field.name, value, *field.between)
    text = str(value)
    if field.values:
        return fields.one_of(field.name, text, field.values)
    if field.name == "override_host" and not fields.is_host_and_port(text):
        return fields.refused(field.name, text, "a host name or IP address, with or without a port")
    if field.name == "share_key" and not _SHARE_KEY.fullmatch(text):
        return fields.refused(field.name, text, "letters and digits")
    return fields.text(field.name, text, longest=field.longest)


def off_default(backend: Backend) -> tuple[OffDefault, ...]:
    """Every setting that is not free and not at its default, in the table's order."""
    found = []
    for field in FIELDS:
        value = backend.settings.get(field.name)
        if field.free or value is None:
            continue
        if field.follows_address:
            if str(value).lower() == backend.address.lower():
                continue
            allowed = f"null, or the address ({backend.address})"
        elif field.default is None or field.default == "":
            allowed = "null"
        else:
            allowed = f"{_plain(field.default)} (the default)"
        found.append(OffDefault(field.name, "(secret)" if field.secret else value, allowed))
    return tuple(found)


def _plain(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def shown(backend: Backend, *, secrets: bool) -> dict[str, Value | None]:
    """Every field with its value or default, typed as clients expect; secret ones null unless
    `secrets`."""
    place = _place(backend.address)
    answer: dict[str, Value | None] = {}
    for field in FIELDS:
        if field.name == "name":
            answer["name"] = backend.name
        elif field.name == "address":
            answer["address"] = backend.address
        elif field.name in _DERIVED:
            answer[field.name] = backend.address if field.name == place else None
        elif field.secret and not secrets:
            answer[field.name] = None
        else:
            answer[field.name] = backend.settings.get(field.name, field.default)
    return answer


def _place(address: str) -> str:
    if fields.is_ipv4(address):
        return "ipv4"
    return "ipv6" if fields.is_ipv6(address) else "hostname"
