"""Hashes of passwords: argon2id, off the event loop, few at a time.

A hash costs memory and CPU on purpose, so how many are made at once is bounded, and so is how many
wait for it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

from handoff_config import errors
from handoff_config.passwords import octets

# OWASP's recommendation for argon2id; about 20 ms of one core each.
_ARGON2: Final = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
_AT_ONCE: Final = 2
_MOST: Final = 64


class Hasher:
    """most: hashes under way and waiting; one more is refused with 503 `sign_in_busy`."""

    def __init__(self, *, at_once: int = _AT_ONCE, most: int = _MOST) -> None:
        self._turns = asyncio.Semaphore(at_once)
        self._most = most
        self._under_way = 0
        self._nobodys = _ARGON2.hash("nobody's")

    async def hash(self, password: str) -> str:
        """In the PHC string format, with parameters and salt."""
        async with self._turn():
            return await asyncio.to_thread(_ARGON2.hash, octets(password))

    async def matches(self, known: str | None, password: str) -> bool:
        """Whether it is the password of that hash. None, for nobody's, takes as long and is False:
        who asks cannot tell whether there is a hash."""
        async with self._turn():
            found = await asyncio.to_thread(_verify, known or self._nobodys, octets(password))
        return found and known is not None

    def is_outdated(self, known: str) -> bool:
        """Whether it was made with other parameters than new ones are."""
        return _ARGON2.check_needs_rehash(known)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        if self._under_way >= self._most:
            raise errors.sign_in_busy()
        self._under_way += 1
        try:
            async with self._turns:
                yield
        finally:
            self._under_way -= 1


def _verify(known: str, password: bytes) -> bool:
    try:
        return _ARGON2.verify(known, password)
    except VerifyMismatchError:
        return False
