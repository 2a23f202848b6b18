"""What a password may be, and when signing in is refused because too many were wrong.

Pure. No value of a password is in any text that this makes.
"""

import hashlib
import ipaddress
import unicodedata
from collections.abc import Iterable

from handoff_common.errors import FieldError
from handoff_config.fields import is_storable

MIN_PASSWORD = 12
MAX_PASSWORD = 256
WINDOW_MS = 15 * 60_000
FAILURES_PER_LOGIN = 10
"""Within the window; then the login is locked until fewer are left in it."""
FAILURES_PER_SOURCE = 100
"""The same for one address, whatever logins it tried. Many people may share one."""


def problem(field: str, password: str, login: str) -> FieldError | None:
    """Length in characters of Unicode; no rules of composition, which make passwords worse."""
    allowed = f"allowed: {MIN_PASSWORD} to {MAX_PASSWORD} characters"
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        return FieldError(field, f"has {len(password)} characters; {allowed}")
    if not is_storable(password):
        return FieldError(field, f"holds what is no character; {allowed} of Unicode, none NUL")
    if _same(password) == _same(login):
        return FieldError(field, f"is the login; {allowed} that are not the login")
    return None


def octets(password: str) -> bytes:
    """What is hashed: the same for every way in which keyboards compose the same text."""
    return unicodedata.normalize("NFKC", password).encode("utf-8", "surrogatepass")


def login_key(login: str) -> str:
    """Hex SHA-256 of a login, in lower case as logins are compared."""
    return hashlib.sha256(login.lower().encode("utf-8", "surrogatepass")).hexdigest()


def source_of(address: str) -> str:
    """What counts as one source: an IPv4 address, or an IPv6 network /64, of which whoever has one
    address has them all. What is no address is a source by its name."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((int(found), 64), strict=False))


def locked_until(failures: Iterable[int], allowed: int, now_ms: int) -> int | None:
    """When fewer than `allowed` of the failures will be within the window, epoch ms; None: that is
    so now. failures: their instants, epoch ms, in any order."""
    recent = sorted((at for at in failures if at > now_ms - WINDOW_MS), reverse=True)
    return recent[allowed - 1] + WINDOW_MS if len(recent) >= allowed else None


def _same(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()
