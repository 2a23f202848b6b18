"""Whether a database is away, and what a loop does about it.

The one place that knows how asyncpg and SQLAlchemy say that Postgres does not answer: it is down,
starting, full, has cut the connection, or a bounded wait was over.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import asyncpg
from sqlalchemy import exc as sa_errors

from handoff_common.errors import DatabaseAway, HandoffError, LogUnreachable
from handoff_common.telemetry import get_logger

BACK_OFF_SECONDS: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Waits between tries; the last one is repeated."""

T = TypeVar("T")

_AWAY: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,  # shutting down, starting, statement time-out
    asyncpg.InsufficientResourcesError,  # too many connections, disk full, out of memory
    asyncpg.LockNotAvailableError,
    asyncpg.TransactionRollbackError,  # deadlock, serialization
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,  # a standby, until the address leads to the new primary
    asyncpg.InvalidCachedStatementError,  # a migration beside us; the cache is dropped by now
)


def why_away(error: BaseException) -> str | None:
    """Why the database cannot be asked now; None for any other error, which asking again will not
    mend. The one place that knows how each of them looks."""
    if isinstance(error, DatabaseAway):
        return str(error)
    if isinstance(error, sa_errors.DBAPIError):
        cause = error.orig.__cause__ if error.orig is not None else None
        if error.connection_invalidated or (cause is not None and _is_away(cause)):
            return _said(cause or error.orig or error)
        return None
    return _said(error) if _is_away(error) else None


def _is_away(error: BaseException) -> bool:
    if isinstance(error, asyncpg.InterfaceError):
        # Most are mistakes of the caller. Two are a server that has gone: a connection that is
        # closed, and a rollback that the driver refuses behind a statement that found it gone.
        behind = error.__context__
        return "closed" in str(error) or (behind is not None and why_away(behind) is not None)
    return isinstance(error, (*_AWAY, sa_errors.TimeoutError, OSError, TimeoutError))


def _said(error: BaseException) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


async def until_back(work: Callable[[], Awaitable[T]], *, what: str) -> T:
    """Do the work, again with back-off for as long as the database or the log is away.

    The work must bear being repeated after a commit whose answer was lost.
    """
    failures = 0
    while True:
        try:
            return await work()
        except (DatabaseAway, LogUnreachable) as error:
            await back_off(error, failures, what=what)
            failures += 1


async def back_off(error: HandoffError, failures: int, *, what: str) -> None:
    """Wait before the next try, after `failures` ones before this."""
    pause = BACK_OFF_SECONDS[min(failures, len(BACK_OFF_SECONDS) - 1)]
    get_logger("away").warning(
        error.code, doing=what, detail=str(error), failures=failures + 1, retry_in=pause
    )
    await asyncio.sleep(pause)
