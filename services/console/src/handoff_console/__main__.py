"""`python -m handoff_console serve`: the web interface as a process of its own."""

import os
import sys

from handoff_common import process
from handoff_common.clock import SystemClock
from handoff_common.service import listen, running, serving, stop_signals
from handoff_common.settings import load, shown
from handoff_common.telemetry import get_logger
from handoff_console.settings import ConsoleProcess, ConsoleSettings
from handoff_console.wiring import build


async def serve() -> None:
    """Until a signal."""
    own, where = load(ConsoleSettings, os.environ), load(ConsoleProcess, os.environ)
    logger = get_logger("console")
    logger.info("settings", **shown(own), **shown(where))
    service = build(own, api_url=where.console_api_url, clock=SystemClock())
    async with stop_signals() as stop, running(service) as failed:
        with listen(where.console_host, where.console_port) as listener:
            async with serving(service.app, listener, end_streams=service.end_streams):
                logger.info("ready", port=listener.getsockname()[1])
                failed.add_done_callback(lambda _: stop.set())
                await stop.wait()
                if failed.done():
                    failed.result()


def main(arguments: list[str]) -> int:
    return process.main("handoff_console", {"serve": serve}, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
