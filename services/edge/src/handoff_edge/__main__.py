"""`python -m handoff_edge serve`: one edge node, with its admin port.

`worker` and `adopt` are for the node itself: one worker of several, and the journals that no worker
owns.
"""

import asyncio
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from socket import socket

from handoff_common import process
from handoff_common.clock import SystemClock
from handoff_common.errors import HandoffError, LogUnreachable, SettingError
from handoff_common.log_kafka import SCHEME as KAFKA
from handoff_common.log_kafka import KafkaLog
from handoff_common.log_kafka.topics import Wanted, check
from handoff_common.log_sqlite import SqliteLog
from handoff_common.service import (
    Loop,
    Service,
    listen,
    listen_on_path,
    running,
    serving,
    stop_signals,
)
from handoff_common.settings import load, shown, variable
from handoff_common.telemetry import configure_logs, get_logger
from handoff_edge import journals, node
from handoff_edge.node_counts import COUNTS, NodeCounts
from handoff_edge.settings import EdgeSettings
from handoff_edge.wiring import Edge, assemble

_ADOPT_SECONDS = 60.0
_CHECK_SECONDS = 5.0
_ADOPT_AGAIN_SECONDS = 30.0


def main(arguments: list[str]) -> int:
    command, *rest = arguments or [""]
    if command not in ("serve", "worker", "adopt") or (rest and command != "adopt"):
        sys.stderr.write("usage: python -m handoff_edge serve\n")
        return 2
    try:
        settings = load(EdgeSettings, os.environ)
        configure_logs()
        if command == "adopt":
            process.run_async(adopt(settings, [Path(folder) for folder in rest]))
        elif command == "worker":
            process.run_async(serve_worker(settings))
        else:
            get_logger("edge").info("settings", **shown(settings))
            process.run_async(serve(settings))
    except (HandoffError, OSError) as error:
        sys.stderr.write(f"handoff_edge: {error}\n")
        return 1
    return 0


async def serve(settings: EdgeSettings) -> None:
    """Until a signal. Raises HandoffError where a part cannot start or ends by itself."""
    await asyncio.to_thread(settings.data_dir.mkdir, parents=True, exist_ok=True)
    if settings.edge_workers > 1:
        if not settings.log.startswith(KAFKA):
            raise SettingError(
                f"{variable('edge_workers')} = {settings.edge_workers}: the embedded log belongs "
                f"to one process; takes 1, or {variable('log')} = kafka://…"
            )
        await _check_topics(settings)
        await node.serve(settings)
        return
    if settings.log.startswith(KAFKA):
        await _check_topics(settings)
    raise_descriptor_limit()
    async with AsyncExitStack() as stack:
        edge, adopting = await _edge(settings, stack)
        service = edge.service
        if adopting is not None:
            service.loops["edge-adopter"] = adopting
        admin = listen(settings.edge_admin_host, settings.edge_admin_port)
        stack.callback(admin.close)
        async with stop_signals() as stop, _running(service, admin) as failed:
            process.settle_memory()
            await _until(stop, failed)


async def serve_worker(settings: EdgeSettings) -> None:
    """One worker of several: its admin port is a Unix socket, and it ends, with a drain,
    when the process that started it has gone."""
    raise_descriptor_limit()
    path = settings.edge_admin_socket
    if settings.edge_journal is None or path is None:
        names = f"{variable('edge_journal')}, {variable('edge_admin_socket')}"
        raise SettingError(f"{names}: the node sets them for its workers")
    async with AsyncExitStack() as stack:
        edge, _ = await _edge(settings, stack)
        service = edge.service
        admin = listen_on_path(path)
        stack.callback(admin.close)
        async with (
            stop_signals() as stop,
            _leaving(edge, stop),
            _running(service, admin) as failed,
        ):
            process.settle_memory()
            watching = asyncio.create_task(_orphaned(stop))
            try:
                await _until(stop, failed)
            finally:
                watching.cancel()


@asynccontextmanager
async def _running(service: Service, admin: socket) -> AsyncIterator["asyncio.Future[None]"]:
    """As `running`, with the admin port open from the end of the recovery, which probes wait for,
    to the end of the drain, which people want to watch."""
    async with AsyncExitStack() as outer:

        async def begin() -> None:
            await outer.enter_async_context(serving(service.app, admin))
            await service.once_running()

        async with running(replace(service, once_running=begin)) as failed:
            yield failed


@asynccontextmanager
async def _leaving(edge: Edge, stop: asyncio.Event) -> AsyncIterator[None]:
    """On SIGHUP, by which the node restarts a worker while the others have the port: leave that,
    and then stop."""
    loop = asyncio.get_running_loop()
    tasks: list[asyncio.Task[None]] = []

    async def leave() -> None:
        try:
            await edge.leave()
        finally:
            stop.set()

    def on_signal() -> None:
        if not tasks:
            tasks.append(asyncio.create_task(leave()))

    loop.add_signal_handler(signal.SIGHUP, on_signal)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def adopt(settings: EdgeSettings, own: Sequence[Path]) -> None:
    """Adopt what no worker owns, and try again what the log did not take."""
    async with AsyncExitStack() as stack:
        kafka = KafkaLog(settings.log.removeprefix(KAFKA))
        stack.push_async_callback(kafka.close)
        async with stop_signals() as stop:
            await _adopt_until_done(settings, own, kafka, stop)


async def _check_topics(settings: EdgeSettings) -> None:
    """Raises TopicUnfit where Kafka would lose what is delivered to it. Where Kafka is away nothing
    is known, and the edge works from its journal and its last configuration."""
    bootstrap = settings.log.removeprefix(KAFKA)
    wanted = Wanted(replication=settings.topic_replication)
    try:
        await check(bootstrap, wanted, timeout=_CHECK_SECONDS)
    except LogUnreachable as error:
        get_logger("edge").warning("topics_unchecked", detail=str(error))


async def _edge(settings: EdgeSettings, stack: AsyncExitStack) -> tuple[Edge, Loop | None]:
    """The edge on its log, and on a journal where the log is Kafka; and the loop that adopts other
    journals, where nobody else does."""
    clock = SystemClock()
    if not settings.log.startswith(KAFKA):
        log = await SqliteLog.open(settings.log_path)
        stack.push_async_callback(log.close)
        return assemble(settings, log=log, clock=clock), None
    kafka = KafkaLog(settings.log.removeprefix(KAFKA))
    stack.push_async_callback(kafka.close)
    [folder] = journals.wanted(settings.data_dir, 1)
    folder = settings.edge_journal or folder
    journal = await journals.open_journal(folder)
    stack.push_async_callback(journal.close)
    counts: NodeCounts | None = None
    if settings.edge_journal is not None:
        counts = await asyncio.to_thread(NodeCounts, settings.data_dir / COUNTS)
        stack.callback(counts.close)
    own = settings.model_copy(update={"data_dir": folder, "edge_journal": folder})
    edge = assemble(
        own,
        log=kafka,
        journal=journal,
        clock=clock,
        appended_at=lambda: kafka.last_append_ms,
        reuse_port=settings.edge_journal is not None,
        shared=counts,
    )
    if settings.edge_journal is not None:
        return edge, None

    async def adopting() -> None:
        await _adopt_until_done(settings, [folder], kafka, asyncio.Event())
        await asyncio.Event().wait()

    return edge, adopting


async def _adopt_until_done(
    settings: EdgeSettings, own: Sequence[Path], log: KafkaLog, stop: asyncio.Event
) -> None:
    while not stop.is_set():
        left = await journals.adopt_all(
            settings.data_dir,
            list(own),
            settings,
            log=log,
            clock=SystemClock(),
            timeout=_ADOPT_SECONDS,
        )
        if not left:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_ADOPT_AGAIN_SECONDS):
                await stop.wait()


async def _until(stop: asyncio.Event, failed: "asyncio.Future[None]") -> None:
    failed.add_done_callback(lambda _: stop.set())
    await stop.wait()
    if failed.done():
        failed.result()


async def _orphaned(stop: asyncio.Event) -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()
    get_logger("edge").info("left_by_node")
    stop.set()


def raise_descriptor_limit() -> None:
    """Two descriptors stand for each connection: take as many as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
