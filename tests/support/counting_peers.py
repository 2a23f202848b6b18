"""Both far ends of a connection through an edge, as the witness of what was on the wire.

Each peer counts what its own kernel took and gave, byte for byte; behind TLS it counts the stream
inside. Nothing of the product is used, so that the counts are not the ones that are on trial.
"""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

from support.edge_world import PATIENCE, Origin, soon

T = TypeVar("T")
HEAD_END = b"\r\n\r\n"
_RECORD = 16_384


class Peer:
    """One end, on a socket of its own. `sent`, `received`: bytes so far, the heads included."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.setblocking(False)
        self.sent = 0
        self.received = 0

    async def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            # By TLS, what is given at once is taken as a whole or not at all: one record.
            part = view[:_RECORD]
            taken = await _when_ready(self.sock, partial(self.sock.send, part), writes=True)
            self.sent += taken
            view = view[taken:]

    async def some(self, limit: int = 1 << 18) -> bytes:
        """What came, at least a byte; empty at the end of the stream."""
        try:
            data = await _when_ready(self.sock, partial(self.sock.recv, limit), writes=False)
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            return b""
        self.received += len(data)
        return data

    async def exactly(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            part = await self.some(min(size - len(parts), 1 << 18))
            assert part, f"ended after {len(parts)} of {size} bytes"
            parts += part
        return bytes(parts)

    async def rest(self) -> bytes:
        parts = bytearray()
        while part := await self.some():
            parts += part
        return bytes(parts)

    async def head(self) -> bytes:
        """Up to the empty line, and not one byte more, so that what is behind it can be told."""
        parts = bytearray()
        while not parts.endswith(HEAD_END):
            parts += await self.exactly(1)
        return bytes(parts)

    def finish(self) -> None:
        """FIN: nothing more will be sent, reading goes on."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()


async def call(port: int, tls: ssl.SSLContext | None = None, *, name: str, buffer: int = 0) -> Peer:
    """A client behind its connect, and behind its TLS handshake. buffer: of the kernel for what it
    has not read yet; 0: as the system has it."""
    sock = socket.socket()
    if buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    sock.setblocking(False)
    await soon(asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if tls is None:
        return Peer(sock)
    secured = tls.wrap_socket(sock, server_hostname=name, do_handshake_on_connect=False)
    await _when_ready(secured, secured.do_handshake, writes=False)
    return Peer(secured)


class CountingOrigin(Origin):
    """Gives each connection to the test as a peer, and answers nothing by itself.

    listener: of another machine; None: on loopback.
    """

    def __init__(self, *, buffer: int = 0, listener: socket.socket | None = None) -> None:
        super().__init__()
        self._buffer = buffer
        self._listener = listener
        self._tls: ssl.SSLContext | None = None
        self._peers: list[Peer] = []

    @asynccontextmanager
    async def serving(self, tls: ssl.SSLContext | None = None) -> AsyncIterator["CountingOrigin"]:
        self._tls = tls
        with self._listener or self._listening() as listener:
            listener.setblocking(False)
            self._listener = listener
            self.port = listener.getsockname()[1]
            try:
                yield self
            finally:
                for peer in self._peers:
                    peer.close()

    def _listening(self) -> socket.socket:
        listener = socket.socket()
        if self._buffer:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        return listener

    async def visit(self) -> Peer:
        """The next connection, behind its TLS handshake."""
        assert self._listener is not None
        sock, _ = await soon(asyncio.get_running_loop().sock_accept(self._listener))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is not None:
            sock.setblocking(False)
            sock = self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            await _when_ready(sock, sock.do_handshake, writes=False)
        peer = Peer(sock)
        self._peers.append(peer)
        return peer


def _wake(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)


async def _when_ready(sock: socket.socket, step: Callable[[], T], *, writes: bool) -> T:
    """Do it once it need not wait."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            return step()
        except ssl.SSLWantReadError:
            to_write = False
        except ssl.SSLWantWriteError:
            to_write = True
        except BlockingIOError:
            to_write = writes
        ready: asyncio.Future[None] = loop.create_future()
        descriptor = sock.fileno()
        (loop.add_writer if to_write else loop.add_reader)(descriptor, _wake, ready)
        try:
            # Not wait_for, which can swallow the cancelling of a send.
            async with asyncio.timeout(PATIENCE):
                await ready
        finally:
            (loop.remove_writer if to_write else loop.remove_reader)(descriptor)
