"""A service as a process of its own: its command line, its log by URL, its memory.

What the processes of all services share, and nothing of what any of them does. No database is in
here: an edge has none, and should start without loading what reaches one.
"""

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field

from handoff_common.errors import HandoffError, LogUnreachable, SettingError
from handoff_common.log import EventLog
from handoff_common.log_kafka import SCHEME as KAFKA
from handoff_common.log_kafka import KafkaLog
from handoff_common.log_kafka.topics import REPLICATION, Wanted, check
from handoff_common.log_sqlite import SqliteLog
from handoff_common.settings import DatabaseSettings
from handoff_common.telemetry import configure_logs, get_logger

SQLITE = "sqlite:///"
T = TypeVar("T")
_LOG_SECONDS = 120.0
_LOG_RETRY_SECONDS = 1.0

LogUrl = Annotated[
    str,
    Field(
        pattern=f"^({KAFKA}|{SQLITE}).+$",
        description="the log: kafka://host:port[,host:port], or sqlite:///path for one process",
    ),
]
Replication = Annotated[
    int,
    Field(
        ge=1,
        le=9,
        description="copies that Kafka must keep of each partition; 3 or more in production",
    ),
]


class ProcessSettings(DatabaseSettings):
    """What a service with a REST API needs besides its own settings when it is a process."""

    log: LogUrl
    database_url: str = Field(
        description="SQLAlchemy URL of this service's database: postgresql+asyncpg://… or "
        "sqlite+aiosqlite:///path"
    )
    topic_replication: Replication = REPLICATION


def settle_memory() -> None:
    """Look for cycles less often: a batch is tens of thousands of objects without any, and by the
    defaults a third of a projection's time went into looking through them."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """On uvloop where it is installed; the standard library's loop does the same with more CPU."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def main(
    name: str, commands: Mapping[str, Callable[[], Coroutine[Any, Any, None]]], arguments: list[str]
) -> int:
    """Run one command: 0; 1 with the error's code and text; 2 for a wrong setting or command."""
    if len(arguments) != 1 or arguments[0] not in commands:
        sys.stderr.write(f"usage: python -m {name} {' | '.join(commands)}\n")
        return 2
    configure_logs()
    try:
        run_async(commands[arguments[0]]())
    except SettingError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except HandoffError as error:
        sys.stderr.write(f"{error.code}: {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"{name}: {error}\n")
        return 1
    return 0


@asynccontextmanager
async def log_of(url: str, *, replication: int = REPLICATION) -> AsyncIterator[EventLog]:
    """The log that the URL names, closed at the end.

    Waits for a broker that is not there yet, bounded. Raises TopicUnfit, LogUnreachable,
    AlreadyInUse.
    """
    if url.startswith(KAFKA):
        bootstrap = url.removeprefix(KAFKA)
        await _checked(bootstrap, replication)
        kafka = KafkaLog(bootstrap)
        try:
            yield kafka
        finally:
            await kafka.close()
        return
    path = Path(url.removeprefix(SQLITE))
    path.parent.mkdir(parents=True, exist_ok=True)
    embedded = await SqliteLog.open(path)
    try:
        yield embedded
    finally:
        await embedded.close()


async def _checked(bootstrap: str, replication: int) -> None:
    wanted = Wanted(replication=replication)
    deadline = asyncio.get_running_loop().time() + _LOG_SECONDS
    while True:
        try:
            return await check(bootstrap, wanted)
        except LogUnreachable as error:
            if asyncio.get_running_loop().time() > deadline:
                raise
            get_logger("log").warning("broker_away", detail=str(error))
            await asyncio.sleep(_LOG_RETRY_SECONDS)
