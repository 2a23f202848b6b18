"""Whether a login and a password belong together: counted, bounded, and the same in time and answer
for a login that nobody has."""

from fastapi import Request
from prometheus_client import CollectorRegistry, Counter

from handoff_common.clock import Clock
from handoff_common.telemetry import get_logger
from handoff_config import errors, passwords
from handoff_config.credentials import Credential, Credentials
from handoff_config.hashing import Hasher


class SignIn:
    """Knows nothing of tokens: the routes make them."""

    def __init__(
        self, credentials: Credentials, hasher: Hasher, clock: Clock, registry: CollectorRegistry
    ) -> None:
        self._credentials = credentials
        self._hasher = hasher
        self._clock = clock
        self._logger = get_logger("config")
        self._checked = Counter(
            "handoff_config_sign_ins",
            "Passwords that were given, by what came of it: right, wrong, locked",
            ["result"],
            registry=registry,
        )

    async def check(self, request: Request, login: str, password: str) -> Credential | None:
        """Who it is; None where the login is nobody's or the password is another. The attempt
        counts as failed until `credentials.forgive` takes it back. Raises 429 `too_many_sign_ins`,
        503 `sign_in_busy`."""
        source = passwords.source_of(request.client.host if request.client else "")
        locked = await self._credentials.attempt(login, source)
        if locked is not None:
            self._checked.labels("locked").inc()
            wait_ms = max(1, locked - self._clock.now_ms())
            raise errors.too_many_sign_ins(-(-wait_ms // 1000))
        found = await self._credentials.of_login(login)
        if await self._hasher.matches(found.hash if found else None, password):
            self._checked.labels("right").inc()
            return found
        self._checked.labels("wrong").inc()
        # Without the login: it may be a password in the wrong field.
        user_id = found.user_id if found else None
        self._logger.info("wrong_password", source=source, user_id=user_id)
        return None

    async def hash(self, password: str) -> str:
        return await self._hasher.hash(password)

    async def better(self, found: Credential, password: str) -> str | None:
        """A new hash where the one that is kept was made with older parameters."""
        if found.hash is None or not self._hasher.is_outdated(found.hash):
            return None
        return await self._hasher.hash(password)
