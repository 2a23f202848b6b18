"""A service: an ASGI app plus the loops that feed it, started and stopped in order.

A loop that ends, by an error or by itself, ends the process: a service that has silently stopped
projecting must not go on answering.
"""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from handoff_common.errors import HandoffError
from handoff_common.telemetry import get_logger

Loop = Callable[[], Awaitable[None]]
STOP_SECONDS = 30.0


class LoopEnded(HandoffError):
    """A loop of a running service returned or raised."""

    code = "loop_ended"


async def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Service:
    """name: for logs. app: its HTTP application. loops: name → coroutine function that runs for
    ever. on_start runs before the loops (migrations, recovery), once_running after they began;
    on_stop runs while the loops still do, so that what it produces is delivered; it has
    `stop_seconds`. end_streams: for `serving`."""

    name: str
    app: ASGIApp
    loops: dict[str, Loop] = field(default_factory=dict)
    on_start: Callable[[], Awaitable[None]] = _nothing
    once_running: Callable[[], Awaitable[None]] = _nothing
    on_stop: Callable[[], Awaitable[None]] = _nothing
    end_streams: Callable[[], Awaitable[None]] = _nothing
    not_ready: Callable[[], Sequence[str]] = tuple
    stop_seconds: float = STOP_SECONDS


@asynccontextmanager
async def running(service: Service) -> AsyncIterator[asyncio.Future[None]]:
    """The service with its loops going. Yields a future that fails when a loop ends.

    On leaving: on_stop, then the loops are cancelled and waited for.
    """
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    logger = get_logger("service")
    stopping = False

    def ended(task: "asyncio.Task[None]") -> None:
        if stopping or failed.done():
            return
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        logger.error("loop_ended", service=service.name, loop=task.get_name(), exc_info=error)
        reason = LoopEnded(f"{service.name}: loop {task.get_name()} ended: {error!r}")
        reason.__cause__ = error
        failed.set_exception(reason)

    async def started(loop: Loop) -> None:
        await loop()

    await service.on_start()
    tasks = []
    for name, loop in service.loops.items():
        task = asyncio.create_task(started(loop), name=name)
        task.add_done_callback(ended)
        tasks.append(task)
    try:
        await service.once_running()
        yield failed
    finally:
        try:
            async with asyncio.timeout(service.stop_seconds):
                await service.on_stop()
        except TimeoutError:
            logger.error("stop_timed_out", service=service.name, seconds=service.stop_seconds)
        stopping = True
        for task in reversed(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if failed.done():
            failed.exception()
        else:
            failed.cancel()


@asynccontextmanager
async def serving(
    app: ASGIApp,
    listener: socket.socket,
    *,
    end_streams: Callable[[], Awaitable[None]] = _nothing,
) -> AsyncIterator[None]:
    """The application on a listening socket, by uvicorn, without its signal handling.

    end_streams: awaited before the server stops, which waits for answers that are under way; it
    ends those that would not end by themselves.
    """
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            timeout_keep_alive=30,
            timeout_graceful_shutdown=5,
        )
    )
    task = asyncio.create_task(server._serve([listener]), name="http")
    try:
        while not server.started:
            if task.done():
                task.result()
                raise LoopEnded("the HTTP server ended at its start")
            await asyncio.sleep(0.005)
        yield
    finally:
        try:
            await end_streams()
        finally:
            server.should_exit = True
            await task


def listen(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    """A listening TCP socket; port 0 takes a free one. reuse_port: others may share it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse_port:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return _listening(listener, (host, port))


def listen_on_path(path: Path) -> socket.socket:
    """A listening Unix socket, readable by its owner only; one that was left there is replaced."""
    path.unlink(missing_ok=True)
    listener = _listening(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), str(path))
    path.chmod(0o600)
    return listener


def _listening(listener: socket.socket, address: tuple[str, int] | str) -> socket.socket:
    try:
        listener.bind(address)
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


@asynccontextmanager
async def stop_signals() -> AsyncIterator[asyncio.Event]:
    """An event that SIGTERM or SIGINT sets, and SIGHUP, by which a terminal that closes says so,
    unless the process was told to ignore it (`nohup`). A second signal ends the process the usual
    way."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)

    def on_signal(number: signal.Signals) -> None:
        stop.set()
        loop.remove_signal_handler(number)

    for number in numbers:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield stop
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
