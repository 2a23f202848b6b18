"""`python -m handoff_metering serve | migrate | rebuild`: the service as a process of its own."""

import os
import sys

from handoff_common import process, rest_process
from handoff_common.clock import SystemClock
from handoff_common.settings import load, shown
from handoff_common.telemetry import get_logger
from handoff_metering.rebuild import rebuild as rebuilt
from handoff_metering.settings import MeteringProcess, MeteringSettings
from handoff_metering.wiring import build
from handoff_metering.wiring import upgrade as upgraded


async def serve() -> None:
    """Until a signal."""
    own, where = load(MeteringSettings, os.environ), load(MeteringProcess, os.environ)
    get_logger("metering").info("settings", **shown(own), **shown(where))
    await rest_process.serve(
        "metering",
        lambda log, database: build(own, log=log, database=database, clock=SystemClock()),
        where,
        host=where.metering_host,
        port=where.metering_port,
    )


async def upgrade() -> None:
    """Bring the database to this release's tables."""
    database = rest_process.database_of(load(MeteringProcess, os.environ), "metering")
    try:
        await upgraded(load(MeteringSettings, os.environ), database=database, clock=SystemClock())
    finally:
        await database.close()


async def rebuild() -> None:
    """Make the projections again from the log, with every worker of the service stopped."""
    own, where = load(MeteringSettings, os.environ), load(MeteringProcess, os.environ)
    database = rest_process.database_of(where, "metering")
    try:
        async with process.log_of(where.log, replication=where.topic_replication) as log:
            done = await rebuilt(own, log=log, database=database, clock=SystemClock())
    finally:
        await database.close()
    get_logger("metering").info("rebuilt", **done._asdict())


def main(arguments: list[str]) -> int:
    commands = {"serve": serve, "migrate": upgrade, "rebuild": rebuild}
    return process.main("handoff_metering", commands, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
