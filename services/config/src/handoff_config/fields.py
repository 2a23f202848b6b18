"""What a name, a host name, a number or a text may be; each refusal says field, value, allowed.

Pure. A check returns the FieldError or None, so that a caller can report every wrong field at once.
"""

import ipaddress
import re
from collections.abc import Iterable

from handoff_common.errors import FieldError, invalid

MAX_NAME = 255
MAX_TEXT = 4_096
INT32 = 2_147_483_647

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII | re.IGNORECASE)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s]{1,190}")
_PRODUCT = re.compile(r"[a-z][a-z0-9_-]{0,63}")


def refused(field: str, value: object, allowed: str) -> FieldError:
    """`value` is shown, shortened where it is long."""
    shown = repr(value)
    if len(shown) > 80:
        shown = f"{shown[:77]}…"
    return FieldError(field, f"is {shown}; allowed: {allowed}")


def require(problems: Iterable[FieldError | None]) -> None:
    """Raise `invalid` (422) with every problem there is."""
    found = [problem for problem in problems if problem is not None]
    if found:
        raise invalid(found)


def name(field: str, value: str) -> FieldError | None:
    """1–255 printable characters. A slash would end a path segment, so that nothing could reach the
    object again; the same goes for the two dot segments."""
    ok = 1 <= len(value) <= MAX_NAME and value.isprintable() and value == value.strip()
    if ok and "/" not in value and value not in (".", ".."):
        return None
    return refused(
        field,
        value,
        f"1 to {MAX_NAME} printable characters without '/' and without blanks at the ends",
    )


def text(field: str, value: str, *, longest: int = MAX_TEXT) -> FieldError | None:
    if len(value) <= longest and is_storable(value):
        return None
    return refused(field, value, f"at most {longest} characters of Unicode, none of them NUL")


def is_storable(value: str) -> bool:
    """Whether every database can hold the text: no NUL, no half of a surrogate pair."""
    return "\x00" not in value and not any("\ud800" <= char <= "\udfff" for char in value)


def number(field: str, value: int, low: int, high: int) -> FieldError | None:
    return None if low <= value <= high else refused(field, value, f"{low} to {high}")


def one_of(field: str, value: object, allowed: Iterable[object]) -> FieldError | None:
    choices = list(allowed)
    return None if value in choices else refused(field, value, ", ".join(map(str, choices)))


def is_hostname(value: str) -> bool:
    """Letters, digits, `-` and `_` in labels of at most 63, together at most 253. An
    internationalised name is given in its ASCII form (`xn--…`)."""
    return len(value) <= 253 and all(_LABEL.fullmatch(label) for label in value.split("."))


def is_ipv4(value: str) -> bool:
    try:
        ipaddress.IPv4Address(value)
    except ValueError:
        return False
    return True


def is_ipv6(value: str) -> bool:
    try:
        return ipaddress.IPv6Address(value).scope_id is None
    except ValueError:
        return False


def is_host_and_port(value: str) -> bool:
    """What may stand in a `Host` header: a name or address, with or without a port."""
    if value.startswith("["):
        host, bracket, rest = value[1:].partition("]")
        return bool(bracket) and is_ipv6(host) and (not rest or _is_port(rest))
    host, colon, port = value.partition(":")
    return is_hostname(host) and (not colon or _is_port(f":{port}"))


def _is_port(value: str) -> bool:
    digits = value[1:]
    number = digits.isascii() and digits.isdigit() and len(digits) <= 5
    return value[0] == ":" and number and 1 <= int(digits) <= 65_535


def domain(field: str, value: str) -> FieldError | None:
    """A host name, or `*.` and a host name."""
    if is_hostname(value.removeprefix("*.")):
        return None
    return refused(
        field,
        value,
        "a host name of at most 253 characters in ASCII, with or without a leading '*.'",
    )


def header_name(field: str, value: str) -> FieldError | None:
    if _TOKEN.fullmatch(value) and len(value) <= MAX_NAME:
        return None
    return refused(field, value, "an HTTP token: letters, digits and !#$%&'*+-.^_`|~")


def email(field: str, value: str) -> FieldError | None:
    if _EMAIL.fullmatch(value) and value.isprintable():
        return None
    return refused(field, value, "an e-mail address")


def product(field: str, value: str) -> FieldError | None:
    if _PRODUCT.fullmatch(value):
        return None
    return refused(field, value, "a product's identifier, as 'websockets'")
