"""`python -m handoff_billing serve | migrate`: billing by itself, on an embedded log.

The embedded log belongs to one process, so `serve` is for looking at a log whose system is stopped;
the whole system in one process is `handoff up`.
"""

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from handoff_billing.settings import BillingSettings
from handoff_billing.wiring import PACKAGE, build
from handoff_common import settings
from handoff_common.clock import SystemClock
from handoff_common.database import Database, migrate
from handoff_common.errors import HandoffError, SettingError
from handoff_common.log_sqlite import SqliteLog
from handoff_common.service import listen, running, serving, stop_signals
from handoff_common.telemetry import configure_logs

_SCHEME = "sqlite:///"


class ProcessSettings(settings.Settings):
    """Where billing finds its log and its database when it is a process of its own."""

    log: str = Field(pattern=f"^{_SCHEME}.+", description="the log: sqlite:///path/of/log.db")
    database_url: str = Field(
        "sqlite+aiosqlite:///billing.db", description="SQLAlchemy URL of this service's database"
    )
    billing_host: str = Field("127.0.0.1", description="address of the API")
    billing_port: int = Field(
        8003, ge=0, le=65535, description="port of the API; 0 takes a free one"
    )


async def _run(command: str, environ: Mapping[str, str]) -> None:
    process = settings.load(ProcessSettings, environ)
    own = settings.load(BillingSettings, environ)
    database = Database(process.database_url)
    try:
        if command == "migrate":
            await migrate(database, PACKAGE)
            return
        log = await SqliteLog.open(Path(process.log.removeprefix(_SCHEME)))
        try:
            service = build(own, log=log, database=database, clock=SystemClock())
            listener = listen(process.billing_host, process.billing_port)
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
    if len(arguments) != 1 or arguments[0] not in ("serve", "migrate"):
        sys.stderr.write("usage: python -m handoff_billing serve | migrate\n")
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
