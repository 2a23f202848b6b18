"""How the parts of an upgrade request's head are read: target, host, fields and lists. Pure.

For whoever must read a request as the edge does. Whether a whole head may pass is the edge's.
"""

import ipaddress
import re
from collections.abc import Iterable
from typing import Final, Protocol
from urllib.parse import parse_qsl

HEAD_MAX: Final = 16 * 1024
"""Bytes of a request head at most, its empty line included."""

TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
FIELD_VALUE: Final = re.compile(rb"[\x21-\x7e\x80-\xff \t]*")
TARGET: Final = re.compile(rb"/[\x21\x22\x24-\x7e]*")
"""A path with or without a query; percent-encoding is the client's and stays."""

_REG_NAME = re.compile(r"[A-Za-z0-9._\-]+")


class HeaderField(Protocol):
    """`name` is lower-cased; `value` is Latin-1, without the white space around it."""

    @property
    def name(self) -> str: ...
    @property
    def value(self) -> str: ...


def path_of(target: str) -> str:
    """As presented, undecoded."""
    return target.partition("?")[0]


def query_of(target: str) -> str:
    """As presented, without the question mark."""
    return target.partition("?")[2]


def parameters_of(target: str) -> list[tuple[str, str]]:
    """The query, decoded; a name without a value has an empty one."""
    return parse_qsl(query_of(target), keep_blank_values=True)


def listed(fields: Iterable[HeaderField], name: str) -> list[str]:
    """The elements of a comma-separated header, over all its lines."""
    return elements(field.value for field in fields if field.name == name)


def elements(values: Iterable[str]) -> list[str]:
    """The elements of comma-separated values; empty ones are none."""
    return [part for value in values for item in value.split(",") if (part := item.strip(" \t"))]


def host_name(value: str) -> str | None:
    """The host of a `Host` header: lower-cased, without port and trailing dot, an IPv6 address
    without its brackets. None unless the value is a name or address with an optional port."""
    host, port = value, ""
    if value.startswith("["):
        host, closing, rest = value[1:].partition("]")
        try:
            host = str(ipaddress.IPv6Address(host))
        except ValueError:
            return None
        if not closing or (rest and not rest.startswith(":")):
            return None
        port = rest[1:]
    else:
        host, _, port = value.partition(":")
        if not _REG_NAME.fullmatch(host):
            return None
        host = host.lower().removesuffix(".")
    digits = port.isascii() and port.isdigit() and len(port) <= 5
    if not host or (port and not (digits and int(port) <= 65535)):
        return None
    return host
