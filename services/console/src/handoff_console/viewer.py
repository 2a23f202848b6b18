"""Who looks at a page: what the session cookie holds, and what that lets them do.

Pure. The cookie is signed by Starlette's SessionMiddleware; here its content is read with suspicion
all the same, since a former release may have written it.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from handoff_common.access import ALLOWED, WRITING, Permission, Role

SESSION_KEY = "viewer"
COOKIE_SECONDS = 168 * 3_600
"""The longest HANDOFF_SESSION_HOURS; a session ends with its token, most often sooner."""
TOKEN_SECONDS = 12 * 3_600
"""Of a session that was begun with an API token, which may never end."""


class Viewer(NamedTuple):
    """token: the API token that the pages act with. customer_id: whose data is shown; None for an
    operator who has chosen nobody yet. until_ms: when they have to sign in again, epoch ms."""

    token: str
    login: str
    role: Role
    scope: Literal["global", "global:read"]
    customer_id: str | None
    customer_name: str
    until_ms: int

    @property
    def is_operator(self) -> bool:
        return self.role is Role.OPERATOR

    def can(self, permission: Permission) -> bool:
        """As `handoff_common.access.Principal.can`: what is not allowed is not offered. The API
        decides."""
        return permission in ALLOWED[self.role] and not (
            self.scope == "global:read" and permission in WRITING
        )

    @property
    def only_reads(self) -> bool:
        """By their token, whatever their role."""
        return self.scope == "global:read"

    def why_not(self, permission: Permission) -> str:
        """For those who may not: what stands against it, and what to do."""
        if permission in ALLOWED[self.role]:
            return "This token only reads. Sign in with one that may also change things."
        if permission is Permission.OPERATE:
            return "This is for operators only."
        return f"Your role ({self.role.value}) may not do this. Ask a superuser of your account."

    def packed(self) -> dict[str, Any]:
        return self._asdict() | {"role": self.role.value}


def shortened(text: str, longest: int = 80) -> str:
    """For the cookie, of which browsers keep 4 KiB: names may be longer than anybody shows them."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def viewer_of(session: Mapping[str, Any], now_ms: int) -> Viewer | None:
    """None where nobody has signed in, it is too long ago, or the cookie holds something else than
    this release writes."""
    held = session.get(SESSION_KEY)
    if not isinstance(held, Mapping) or held.keys() != set(Viewer._fields):
        return None
    try:
        role = Role(held["role"])
    except ValueError:
        return None
    texts = (held["token"], held["login"], held["customer_name"])
    if not all(isinstance(text, str) for text in texts) or held["scope"] not in (
        "global",
        "global:read",
    ):
        return None
    customer_id = held["customer_id"]
    if customer_id is not None and not isinstance(customer_id, str):
        return None
    until_ms = held["until_ms"]
    if type(until_ms) is not int or now_ms >= until_ms:
        return None
    return Viewer(
        held["token"], held["login"], role, held["scope"], customer_id, texts[2], until_ms
    )
