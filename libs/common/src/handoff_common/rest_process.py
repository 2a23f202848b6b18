"""A service with a REST API as a process of its own: its database, its log, its HTTP port."""

from collections.abc import Callable

from handoff_common.database import Database, Limits
from handoff_common.log import EventLog
from handoff_common.process import ProcessSettings, log_of, settle_memory
from handoff_common.service import Service, listen, running, serving, stop_signals
from handoff_common.telemetry import get_logger


def database_of(settings: ProcessSettings, name: str) -> Database:
    """The service's database; the server's list of connections calls this process by `name`."""
    return Database(settings.database_url, limits=Limits.of(settings), name=f"handoff-{name}")


async def serve(
    name: str,
    build: Callable[[EventLog, Database], Service],
    settings: ProcessSettings,
    *,
    host: str,
    port: int,
) -> None:
    """Until a signal. Raises HandoffError where a part cannot start or ends by itself."""
    database = database_of(settings, name)
    try:
        async with log_of(settings.log, replication=settings.topic_replication) as log:
            service = build(log, database)
            async with stop_signals() as stop, running(service) as failed:
                with listen(host, port) as listener:
                    async with serving(service.app, listener):
                        get_logger(service.name).info("ready", port=listener.getsockname()[1])
                        settle_memory()
                        failed.add_done_callback(lambda _: stop.set())
                        await stop.wait()
                        if failed.done():
                            failed.result()
    finally:
        await database.close()
