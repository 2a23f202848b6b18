"""Where hashes of passwords and failed sign-ins are kept. Part of the store.

Functions that take a transaction belong to a change of the user's customer: its stream is locked
then, so that a hash and the event that says so are never apart.
"""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import delete, insert, select, update

from handoff_common.clock import Clock
from handoff_common.database import Database, Tx, lock_name
from handoff_config import passwords, tables
from handoff_config.fields import is_storable

_TRIM = 1_000
"""Failures that one attempt takes away at most; it adds one, so none pile up."""


class Credential(NamedTuple):
    """hash: None for a user without a password."""

    user_id: str
    customer_id: str
    hash: str | None


async def keep(tx: Tx, user_id: str, hashed: str) -> None:
    """From now on this is the hash of the user's password."""
    table = tables.passwords
    changed = await tx.execute(update(table).where(table.c.user_id == user_id).values(hash=hashed))
    if changed.rowcount == 0:
        await tx.execute(insert(table).values(user_id=user_id, hash=hashed))


async def is_still(tx: Tx, user_id: str, hashed: str | None) -> bool:
    """Whether the hash is the one that was read before; None: there was none."""
    table = tables.passwords
    return await tx.scalar(select(table.c.hash).where(table.c.user_id == user_id)) == hashed


async def forget(tx: Tx, user_ids: Sequence[str]) -> None:
    """The hashes of users who are gone."""
    await tx.execute(delete(tables.passwords).where(tables.passwords.c.user_id.in_(user_ids)))


async def forgive(tx: Tx, login: str) -> None:
    """The failures with a login do not count any more."""
    table = tables.sign_in_failures
    await tx.execute(delete(table).where(table.c.login_sha256 == passwords.login_key(login)))


class Credentials:
    """What signing in reads and counts by itself."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def of_login(self, login: str) -> Credential | None:
        users, hashes = tables.users, tables.passwords
        if not is_storable(login):
            return None
        query = (
            select(users.c.user_id, users.c.customer_id, hashes.c.hash)
            .join(hashes, hashes.c.user_id == users.c.user_id, isouter=True)
            .where(users.c.login == login.lower())
        )
        async with self._db.read() as tx:
            row = (await tx.execute(query)).one_or_none()
        return None if row is None else Credential(*row)

    async def attempt(self, login: str, source: str) -> int | None:
        """Count an attempt as failed, until `forgive`; or, where too many were, until when no more
        may be made, epoch ms. Counting first bounds those that come at the same time too.

        Whether anybody has the login makes no difference.
        """
        table, key, now = tables.sign_in_failures, passwords.login_key(login), self._clock.now_ms()
        after = now - passwords.WINDOW_MS
        async with self._db.transaction() as tx:
            await lock_name(tx, f"sign-in of {key}")
            await lock_name(tx, f"sign-in from {source}")
            # Others' rows are passed over, so that no two transactions wait for each other.
            old = (
                select(table.c.id)
                .where(table.c.at_ms <= after)
                .limit(_TRIM)
                .with_for_update(skip_locked=True)
            )
            await tx.execute(delete(table).where(table.c.id.in_(old)))
            by_login = await tx.scalars(
                select(table.c.at_ms).where(table.c.login_sha256 == key, table.c.at_ms > after)
            )
            by_source = await tx.scalars(
                select(table.c.at_ms).where(table.c.source == source, table.c.at_ms > after)
            )
            ends = [
                passwords.locked_until(by_login, passwords.FAILURES_PER_LOGIN, now),
                passwords.locked_until(by_source, passwords.FAILURES_PER_SOURCE, now),
            ]
            locked = max((end for end in ends if end is not None), default=None)
            if locked is None:
                await tx.execute(insert(table).values(login_sha256=key, source=source, at_ms=now))
        return locked
