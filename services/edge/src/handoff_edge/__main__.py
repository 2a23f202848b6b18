"""`python -m handoff_edge serve`: one edge, with its admin port."""

import asyncio
import os
import resource
import sys

from handoff_common.clock import SystemClock
from handoff_common.errors import HandoffError
from handoff_common.log_sqlite import SqliteLog
from handoff_common.service import listen, running, serving, stop_signals
from handoff_common.settings import load, shown
from handoff_common.telemetry import configure_logs, get_logger
from handoff_edge.settings import EdgeSettings
from handoff_edge.wiring import build


def new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where it is installed; the standard library's does the same with more CPU."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def main(arguments: list[str]) -> int:
    if arguments != ["serve"]:
        sys.stderr.write("usage: python -m handoff_edge serve\n")
        return 2
    try:
        settings = load(EdgeSettings, os.environ)
        configure_logs()
        get_logger("edge").info("settings", **shown(settings))
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(serve(settings))
    except (HandoffError, OSError) as error:
        sys.stderr.write(f"handoff_edge: {error}\n")
        return 1
    return 0


async def serve(settings: EdgeSettings) -> None:
    """Until a signal. Raises HandoffError where a part cannot start or ends by itself."""
    raise_descriptor_limit()
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    log = await SqliteLog.open(settings.log_path)
    try:
        service = build(settings, log=log, clock=SystemClock())
        async with stop_signals() as stop, running(service) as failed:
            with listen(settings.edge_admin_host, settings.edge_admin_port) as admin:
                async with serving(service.app, admin):
                    stopped = asyncio.create_task(stop.wait())
                    failed.add_done_callback(lambda _: stop.set())
                    await stopped
                    if failed.done():
                        failed.result()
    finally:
        await log.close()


def raise_descriptor_limit() -> None:
    """Two descriptors stand for each connection: take as many as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
