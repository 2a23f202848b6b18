"""`python -m handoff_metering serve | migrate | rebuild`: metering by itself, on an embedded log.

The embedded log belongs to one process, so `serve` is for looking at a log whose system is stopped;
the whole system in one process is `handoff up`.
"""

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from handoff_common import settings
from handoff_common.clock import SystemClock
from handoff_common.database import Database, migrate
from handoff_common.errors import HandoffError, SettingError
from handoff_common.log_sqlite import SqliteLog
from handoff_common.service import listen, running, serving, stop_signals
from handoff_common.telemetry import configure_logs
from handoff_metering.rebuild import rebuild
from handoff_metering.settings import MeteringSettings
from handoff_metering.wiring import PACKAGE, build

_SCHEME = "sqlite:///"


class ProcessSettings(settings.Settings):
    """Where metering finds its log and its database when it is a process of its own."""

    log: Annotated[
        str, Field(pattern=f"^{_SCHEME}.+", description="the log: sqlite:///path/of/log.db")
    ]
    database_url: str = Field(
        "sqlite+aiosqlite:///metering.db", description="SQLAlchemy URL of this service's database"
    )
    metering_host: str = Field("127.0.0.1", description="address of the API")
    metering_port: Annotated[
        int, Field(ge=0, le=65535, description="port of the API; 0 takes a free one")
    ] = 8002


async def _run(command: str, environ: Mapping[str, str]) -> None:
    process = settings.load(ProcessSettings, environ)
    own = settings.load(MeteringSettings, environ)
    database = Database(process.database_url)
    try:
        if command == "migrate":
            await migrate(database, PACKAGE)
            return
        log = await SqliteLog.open(Path(process.log.removeprefix(_SCHEME)))
        try:
            clock = SystemClock()
            if command == "rebuild":
                await rebuild(own, log=log, database=database, clock=clock)
                return
            service = build(own, log=log, database=database, clock=clock)
            listener = listen(process.metering_host, process.metering_port)
            async with stop_signals() as stop, running(service) as failed:
                async with serving(service.app, listener):
                    stopped = asyncio.create_task(stop.wait())
                    ends: list[asyncio.Future[Any]] = [stopped, failed]
                    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                    stopped.cancel()
                if failed.done():
                    failed.result()
        finally:
            await log.close()
    finally:
        await database.close()


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in ("serve", "migrate", "rebuild"):
        sys.stderr.write("usage: python -m handoff_metering serve | migrate | rebuild\n")
        return 2
    configure_logs()
    try:
        asyncio.run(_run(arguments[0], os.environ))
    except SettingError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except HandoffError as error:
        sys.stderr.write(f"{error.code}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
