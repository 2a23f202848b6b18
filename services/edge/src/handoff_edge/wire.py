"""Waiting on a non-blocking socket, plain or TLS, until it is handed to the relay.

asyncio's own socket calls know no TLS, and its transports cannot be taken apart again without their
buffers; here nothing is ever between the socket and its reader. A socket that was waited on is in
no event loop afterwards, also where the wait was cancelled.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from handoff_relay import Stream, TlsStream

T = TypeVar("T")


async def receive(sock: Stream, size: int) -> bytes:
    """Some bytes, or none at the end of the stream. Raises OSError."""
    try:
        return await _until_done(sock, lambda: sock.recv(size), writes=False)
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
        return b""


async def send_all(sock: Stream, data: bytes, sent: Callable[[int], None] = lambda _: None) -> None:
    """Until the kernel took all; `sent` is told of each part. Raises OSError."""
    view = memoryview(data)
    while view:
        rest = view
        count = await _until_done(sock, lambda rest=rest: sock.send(rest), writes=True)  # type: ignore[misc]
        sent(count)
        view = view[count:]


async def shake_hands(sock: TlsStream) -> None:
    """The TLS handshake. Raises OSError (ssl.SSLError among them)."""
    await _until_done(sock, sock.do_handshake, writes=False)


async def _until_done(sock: Stream, attempt: Callable[[], T], *, writes: bool) -> T:
    while True:
        try:
            return attempt()
        except ssl.SSLWantWriteError:
            wait_to_write = True
        except ssl.SSLWantReadError:
            wait_to_write = False
        except (BlockingIOError, InterruptedError):
            wait_to_write = writes
        await _ready(sock.fileno(), to_write=wait_to_write)


async def _ready(descriptor: int, *, to_write: bool) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    try:
        (loop.add_writer if to_write else loop.add_reader)(descriptor, wake)
    except RuntimeError as error:
        # uvloop: a descriptor whose polling ended with an error cannot be polled again.
        raise ConnectionResetError(str(error)) from None
    try:
        await ready
    finally:
        (loop.remove_writer if to_write else loop.remove_reader)(descriptor)


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
