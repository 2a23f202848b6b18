"""`python -m handoff_config serve | migrate`: the service as a process of its own."""

import os
import sys

from handoff_common import process, rest_process
from handoff_common.clock import SystemClock
from handoff_common.database import migrate
from handoff_common.settings import load, shown
from handoff_common.telemetry import get_logger
from handoff_config.settings import ConfigProcess, ConfigSettings
from handoff_config.wiring import PACKAGE, build


async def serve() -> None:
    """Until a signal."""
    own, where = load(ConfigSettings, os.environ), load(ConfigProcess, os.environ)
    get_logger("config").info("settings", **shown(own), **shown(where))
    await rest_process.serve(
        "config",
        lambda log, database: build(own, log=log, database=database, clock=SystemClock()),
        where,
        host=where.config_host,
        port=where.config_port,
    )


async def upgrade() -> None:
    """Bring the database to this release's tables."""
    database = rest_process.database_of(load(ConfigProcess, os.environ), "config")
    try:
        await migrate(database, PACKAGE)
    finally:
        await database.close()


def main(arguments: list[str]) -> int:
    commands = {"serve": serve, "migrate": upgrade}
    return process.main("handoff_config", commands, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
