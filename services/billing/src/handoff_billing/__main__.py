"""`python -m handoff_billing serve | migrate`: the service as a process of its own."""

import os
import sys

from handoff_billing.settings import BillingProcess, BillingSettings
from handoff_billing.wiring import PACKAGE, build
from handoff_common import process, rest_process
from handoff_common.clock import SystemClock
from handoff_common.database import migrate
from handoff_common.settings import load, shown
from handoff_common.telemetry import get_logger


async def serve() -> None:
    """Until a signal."""
    own, where = load(BillingSettings, os.environ), load(BillingProcess, os.environ)
    get_logger("billing").info("settings", **shown(own), **shown(where))
    await rest_process.serve(
        "billing",
        lambda log, database: build(own, log=log, database=database, clock=SystemClock()),
        where,
        host=where.billing_host,
        port=where.billing_port,
    )


async def upgrade() -> None:
    """Bring the database to this release's tables."""
    database = rest_process.database_of(load(BillingProcess, os.environ), "billing")
    try:
        await migrate(database, PACKAGE)
    finally:
        await database.close()


def main(arguments: list[str]) -> int:
    commands = {"serve": serve, "migrate": upgrade}
    return process.main("handoff_billing", commands, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
