"""Requests that another site has forged are refused.

Each session has a random token; every form sends it back in the field `csrf`, htmx in the header
`X-CSRF-Token`. Beside that, what the browser itself says of a request's origin is believed: a
cookie with SameSite=Lax alone would leave same-site neighbours out.
"""

import hmac
import secrets
from collections.abc import Mapping, MutableMapping
from typing import Any

FIELD = "csrf"
HEADER = "x-csrf-token"
_SESSION_KEY = "csrf"


def token_of(session: MutableMapping[str, Any]) -> str:
    """The session's token; made where there is none."""
    token = session.get(_SESSION_KEY)
    if not isinstance(token, str) or len(token) < 32:
        token = secrets.token_urlsafe(32)
        session[_SESSION_KEY] = token
    return token


def is_forged(session: Mapping[str, Any], headers: Mapping[str, str], given: str | None) -> bool:
    """Whether a writing request did not come from our own page."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return True
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != headers.get("host"):
        return True
    expected = session.get(_SESSION_KEY)
    if not isinstance(expected, str) or not given:
        return True
    return not hmac.compare_digest(expected.encode(), given.encode())
