"""`python -m handoff_config serve | migrate`: the config service by itself."""

import asyncio
import os
import sys

from handoff_common.clock import SystemClock
from handoff_common.database import Database, migrate
from handoff_common.errors import HandoffError
from handoff_common.log_sqlite import SqliteLog
from handoff_common.service import listen, running, serving, stop_signals
from handoff_common.settings import load, shown
from handoff_common.telemetry import configure_logs, get_logger
from handoff_config.settings import ConfigSettings
from handoff_config.wiring import build

_COMMANDS = ("serve", "migrate")


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in _COMMANDS:
        sys.stderr.write(f"usage: python -m handoff_config {' | '.join(_COMMANDS)}\n")
        return 2
    try:
        settings = load(ConfigSettings, os.environ)
        configure_logs()
        get_logger("config").info("settings", **shown(settings))
        asyncio.run(serve(settings) if arguments == ["serve"] else upgrade(settings))
    except (HandoffError, OSError) as error:
        sys.stderr.write(f"handoff_config: {error}\n")
        return 1
    return 0


async def upgrade(settings: ConfigSettings) -> None:
    db = Database(settings.database_url)
    try:
        await migrate(db, "handoff_config")
    finally:
        await db.close()


async def serve(settings: ConfigSettings) -> None:
    """Until a signal. Raises HandoffError where a part cannot start or ends by itself."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    settings.log_path.parent.mkdir(parents=True, exist_ok=True)
    log = await SqliteLog.open(settings.log_path)
    db = Database(settings.database_url)
    try:
        service = build(settings, log=log, database=db, clock=SystemClock())
        async with stop_signals() as stop, running(service) as failed:
            with listen(settings.config_host, settings.config_port) as listener:
                async with serving(service.app, listener):
                    failed.add_done_callback(lambda _: stop.set())
                    await stop.wait()
                    if failed.done():
                        failed.result()
    finally:
        await db.close()
        await log.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
