"""The embedded system: every service in one process, on one log and three SQLite databases.

It owns the data folder, the order of start and stop, and the two ports. The services are those that
run alone in production: only the log and the engines differ.
"""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from handoff_billing import wiring as billing
from handoff_billing.settings import BillingSettings
from handoff_common.clock import SystemClock
from handoff_common.database import Database
from handoff_common.errors import SettingError
from handoff_common.log_sqlite import SqliteLog
from handoff_common.service import Service, listen, running, serving, stop_signals
from handoff_common.settings import Settings, load, variable
from handoff_common.telemetry import get_logger
from handoff_config import wiring as config
from handoff_config.settings import ConfigSettings
from handoff_console import wiring as console
from handoff_console.settings import ConsoleSettings
from handoff_edge import wiring as edge
from handoff_edge.settings import EdgeSettings
from handoff_metering import rebuild as metering_rebuild
from handoff_metering import wiring as metering
from handoff_metering.rebuild import Rebuilt
from handoff_metering.settings import MeteringSettings
from handoff_standalone.damage import named
from handoff_standalone.gateway import Gateway, OnBehalf
from handoff_standalone.settings import StandaloneSettings, shown_here

READY_SECONDS = 30.0


class Models(NamedTuple):
    config: ConfigSettings
    metering: MeteringSettings
    billing: BillingSettings
    edge: EdgeSettings
    console: ConsoleSettings


class Endpoints(NamedTuple):
    """Where the running system is; written to `<data>/endpoints.json`, since ports may be free
    ones."""

    api_url: str
    edge_port: int
    edge_admin_port: int
    pid: int


class System(NamedTuple):
    endpoints: Endpoints
    log: SqliteLog
    failed: asyncio.Future[None]
    data_dir: Path


@asynccontextmanager
async def system(settings: StandaloneSettings, environ: Mapping[str, str]) -> AsyncIterator[System]:
    """The whole system, ready. On leaving, the edge stops first: what it still publishes is
    metered, and what metering publishes is billed, before the log closes.

    Raises SettingError, also for an address that cannot be listened on and a folder that cannot be
    used; AlreadyInUse, LogCorrupt, DatabaseDamaged.
    """
    logger = get_logger("standalone")
    data = settings.data_dir
    with _setting("data_dir", data, "a folder that this process may write in"):
        data.mkdir(parents=True, exist_ok=True)
    environ = dict(environ) | {variable("data_dir"): str(data)}
    models = Models(
        load(ConfigSettings, environ),
        load(MeteringSettings, environ),
        load(BillingSettings, environ),
        load(EdgeSettings, environ),
        load(ConsoleSettings, environ),
    )
    for name, model in {"standalone": settings, **models._asdict()}.items():
        logger.info("settings", service=name, **shown_here(model))
    async with AsyncExitStack() as stack:
        with _setting("data_dir", data, "a folder that this process may write in"):
            log = await SqliteLog.open(data / "log.db")
        stack.push_async_callback(log.close)
        databases = {}
        for name in ("config", "metering", "billing"):
            databases[name] = Database(f"sqlite+aiosqlite:///{data / name}.db")
            stack.push_async_callback(databases[name].close)
        api = stack.enter_context(_listen(settings, "api"))
        admin = stack.enter_context(_listen(models.edge, "edge_admin"))
        clients = stack.enter_context(_listen(models.edge, "edge"))
        endpoints = Endpoints(
            f"http://{_reachable(api)}:{_port(api)}", _port(clients), _port(admin), os.getpid()
        )
        services = _build(models, databases, log, clients)
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        stack.callback(failed.cancel)
        for service in services:
            try:
                ended = await stack.enter_async_context(running(service))
            except Exception as error:
                raise named(error, data, service.name) from error
            ended.add_done_callback(partial(_pass_on, data, service.name, failed))
        apps = {service.name: service.app for service in services}
        await stack.enter_async_context(serving(apps.pop("edge"), admin))
        gateway = Gateway(apps, lambda: _not_ready(services))
        web = console.build(
            models.console,
            # The APIs are reached in the process itself; the name stands in no request that leaves.
            api_url="http://gateway",
            transport=httpx.ASGITransport(app=OnBehalf(gateway)),
            clock=SystemClock(),
        )
        await stack.enter_async_context(running(web))
        gateway.console = web.app
        await stack.enter_async_context(serving(gateway, api, end_streams=web.end_streams))
        await _until_ready(services, failed)
        _write(data / "endpoints.json", json.dumps(endpoints._asdict()))
        logger.info("ready", **endpoints._asdict())
        yield System(endpoints, log, failed, data)
        logger.info("stopping")


async def serve(settings: StandaloneSettings, environ: Mapping[str, str]) -> int:
    """Run until a signal: 0. Raises HandoffError where a loop ends, besides what `system` does."""
    async with stop_signals() as stop, system(settings, environ) as running_system:
        await until(stop, running_system)
        return 0


async def until(stop: asyncio.Event, running_system: System) -> None:
    """Wait for `stop`. Raises HandoffError where a loop of the system ends before."""
    waiting = asyncio.create_task(stop.wait())
    try:
        either: set[asyncio.Future[Any]] = {waiting, running_system.failed}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    if running_system.failed.done():
        running_system.failed.result()


async def rebuild(settings: StandaloneSettings, environ: Mapping[str, str]) -> Rebuilt:
    """Make metering's projections again from the log. Raises AlreadyInUse while the system runs."""
    environ = dict(environ) | {variable("data_dir"): str(settings.data_dir)}
    log = await SqliteLog.open(settings.data_dir / "log.db")
    database = Database(f"sqlite+aiosqlite:///{settings.data_dir / 'metering'}.db")
    try:
        return await metering_rebuild.rebuild(
            load(MeteringSettings, environ), log=log, database=database, clock=SystemClock()
        )
    except Exception as error:
        raise named(error, settings.data_dir, "metering") from error
    finally:
        await database.close()
        await log.close()


def _build(
    models: Models, databases: Mapping[str, Database], log: SqliteLog, clients: socket.socket
) -> list[Service]:
    """The services in their order of start; they stop in the reverse order."""
    clock = SystemClock()
    return [
        config.build(models.config, log=log, database=databases["config"], clock=clock),
        billing.build(models.billing, log=log, database=databases["billing"], clock=clock),
        metering.build(models.metering, log=log, database=databases["metering"], clock=clock),
        edge.build(models.edge, log=log, clock=clock, listener=clients),
    ]


@contextmanager
def _setting(field: str, value: object, allowed: str) -> Iterator[None]:
    """Names the setting where the system refuses what it says."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise SettingError(f"{variable(field)} = {str(value)!r}: {why}; takes {allowed}") from None


def _listen(settings: Settings, name: str) -> socket.socket:
    """Listen where the settings `<name>_host` and `<name>_port` say."""
    host, port = (getattr(settings, f"{name}_{part}") for part in ("host", "port"))
    try:
        return listen(host, port)
    except socket.gaierror as error:
        raise SettingError(
            f"{variable(f'{name}_host')} = {host!r}: {error.strerror}; takes an address of this "
            "machine"
        ) from None
    except OSError as error:
        raise SettingError(
            f"{variable(f'{name}_port')} = {port}, {variable(f'{name}_host')} = {host!r}: "
            f"{error.strerror}; take a free port (0: any) and an address of this machine"
        ) from None


def _pass_on(
    data: Path, service: str, failed: "asyncio.Future[None]", one: "asyncio.Future[None]"
) -> None:
    error = None if one.cancelled() else one.exception()
    if error is not None and not failed.done():
        failed.set_exception(named(error, data, service))
        failed.exception()


def _not_ready(services: Sequence[Service]) -> list[str]:
    return [f"{service.name}: {reason}" for service in services for reason in service.not_ready()]


async def _until_ready(services: Sequence[Service], failed: "asyncio.Future[None]") -> None:
    async with asyncio.timeout(READY_SECONDS):
        while _not_ready(services):
            if failed.done():
                failed.result()
            await asyncio.sleep(0.01)


def _port(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


def _reachable(listener: socket.socket) -> str:
    host = str(listener.getsockname()[0])
    return "127.0.0.1" if host == "0.0.0.0" else f"[{host}]" if ":" in host else host  # noqa: S104


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    beside = path.with_suffix(".new")
    beside.write_text(text + "\n")
    beside.replace(path)
