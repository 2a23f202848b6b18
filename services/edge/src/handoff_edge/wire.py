"""Waiting on a non-blocking socket, plain or TLS, until it is handed to the relay.

asyncio's own socket calls know no TLS, and its transports cannot be taken apart again without their
buffers; here nothing is ever between the socket and its reader. A socket that was waited on is in
no event loop afterwards, also where the wait was cancelled.

deadline: by the event loop's clock, in seconds; where it passes in a wait, TimeoutError is raised.
It costs nothing where nothing has to be waited for, which a time-out around the call would.
"""

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from handoff_relay import Stream, TlsStream

T = TypeVar("T")


async def receive(sock: Stream, size: int, *, deadline: float | None = None) -> bytes:
    """Some bytes, or none at the end of the stream. Raises OSError."""
    try:
        return await _until_done(sock, lambda: sock.recv(size), writes=False, deadline=deadline)
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
        return b""


async def send_all(
    sock: Stream,
    data: bytes,
    sent: Callable[[int], None] = lambda _: None,
    *,
    deadline: float | None = None,
) -> None:
    """Until the kernel took all; `sent` is told of each part. Raises OSError."""
    view = memoryview(data)
    while view:
        rest = view
        attempt = lambda rest=rest: sock.send(rest)  # noqa: E731
        count = await _until_done(sock, attempt, writes=True, deadline=deadline)
        sent(count)
        view = view[count:]


async def connect(sock: socket.socket, address: Any, *, deadline: float | None = None) -> None:
    """Raises OSError."""
    error = sock.connect_ex(address)
    if error == errno.EINPROGRESS:
        await _ready(sock.fileno(), to_write=True, deadline=deadline)
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, os.strerror(error))


async def shake_hands(sock: TlsStream, *, deadline: float | None = None) -> None:
    """The TLS handshake. Raises OSError (ssl.SSLError among them)."""
    await _until_done(sock, sock.do_handshake, writes=False, deadline=deadline)


async def _until_done(
    sock: Stream, attempt: Callable[[], T], *, writes: bool, deadline: float | None
) -> T:
    while True:
        try:
            return attempt()
        except ssl.SSLWantWriteError:
            wait_to_write = True
        except ssl.SSLWantReadError:
            wait_to_write = False
        except (BlockingIOError, InterruptedError):
            wait_to_write = writes
        await _ready(sock.fileno(), to_write=wait_to_write, deadline=deadline)


async def _ready(descriptor: int, *, to_write: bool, deadline: float | None) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    def expire() -> None:
        if not ready.done():
            ready.set_exception(TimeoutError())

    try:
        (loop.add_writer if to_write else loop.add_reader)(descriptor, wake)
    except RuntimeError as error:
        # uvloop: a descriptor whose polling ended with an error cannot be polled again.
        raise ConnectionResetError(str(error)) from None
    timer = loop.call_at(deadline, expire) if deadline is not None else None
    try:
        await ready
    finally:
        (loop.remove_writer if to_write else loop.remove_reader)(descriptor)
        if timer is not None:
            timer.cancel()


def close(sock: Stream) -> None:
    with suppress(OSError):
        sock.close()


async def close_politely(sock: Stream, *, seconds: float, most: int) -> None:
    """Close so that what was sent arrives: a close with unread bytes would reset the connection and
    take the answer with it. Reads and drops up to `most` bytes for `seconds` at most."""
    try:
        sock.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(seconds):
            while most > 0:
                data = await receive(sock, 65536)
                if not data:
                    break
                most -= len(data)
    except (OSError, TimeoutError):
        pass
    finally:
        close(sock)
