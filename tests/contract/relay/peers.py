"""The two ends of a tunnel as the tests play them: real sockets, with every wait bounded."""

import asyncio
import os
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import trustme
from websockets.frames import Close, Frame, Opcode
from websockets.streams import StreamReader

from handoff_relay import (
    End,
    Identity,
    Relay,
    RelayLimits,
    Stream,
    TlsStream,
    Tunnel,
    load_tls,
)

T = TypeVar("T")
PATIENCE = 20.0
"""Seconds that a test waits for what must happen."""


async def soon(awaitable: Awaitable[T]) -> T:
    return await asyncio.wait_for(awaitable, PATIENCE)


async def until(condition: Callable[[], object]) -> None:
    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.002)

    await soon(poll())


class Clock:
    """Monotonic nanoseconds that move when a test says so."""

    def __init__(self) -> None:
        self.ns = 5_000_000_000

    def __call__(self) -> int:
        return self.ns

    def advance(self, *, ms: int) -> None:
        self.ns += ms * 1_000_000


class Remote:
    """One peer of the relay, on a plain socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.setblocking(False)

    async def send(self, data: bytes) -> None:
        await soon(asyncio.get_running_loop().sock_sendall(self.sock, data))

    async def some(self, limit: int = 65536) -> bytes:
        """What came, at least a byte; empty at the end."""
        return await soon(asyncio.get_running_loop().sock_recv(self.sock, limit))

    async def exactly(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            part = await self.some(min(size - len(parts), 1 << 18))
            assert part, f"ended after {len(parts)} of {size} bytes: {bytes(parts[-80:])!r}"
            parts += part
        return bytes(parts)

    async def rest(self) -> bytes:
        """Everything up to the peer's FIN."""
        parts = bytearray()
        while part := await self.some(1 << 18):
            parts += part
        return bytes(parts)

    def finish(self) -> None:
        """FIN: nothing more will be sent, reading goes on."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self.sock.close()


class TlsRemote(Remote):
    """The same behind TLS. An end without close_notify raises ssl.SSLEOFError."""

    sock: ssl.SSLSocket

    def __init__(self, sock: ssl.SSLSocket) -> None:
        super().__init__(sock)
        setattr(sock, "suppress_ragged_eofs", False)  # noqa: B010 - typeshed lacks it

    async def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[await when_ready(self.sock, partial(self.sock.send, view)) :]

    async def some(self, limit: int = 65536) -> bytes:
        return await when_ready(self.sock, partial(self.sock.recv, limit))

    def finish(self) -> None:
        """FIN without close_notify: what comes can still be decrypted."""
        socket.socket.shutdown(self.sock, socket.SHUT_WR)

    async def end_tls(self) -> None:
        """close_notify, and the peer's is waited for."""
        await when_ready(self.sock, self.sock.unwrap)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def tcp() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far


def small_tcp() -> tuple[socket.socket, socket.socket]:
    """With kernel buffers so small that a reader who stops is soon felt."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        near = socket.socket()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        near.connect(listener.getsockname())
        far, _ = listener.accept()
    return near, far


def deep_tcp() -> tuple[socket.socket, socket.socket]:
    """Whose far end's kernel holds hundreds of kilobytes that the near end has not read."""
    return _tcp(far_sends=400_000, near_receives=8192)


def roomy_tcp() -> tuple[socket.socket, socket.socket]:
    """With buffers of some records, so that a reader frees room before epoll tells of it."""
    return _tcp(far_sends=50_000, near_receives=50_000)


def _tcp(*, far_sends: int, near_receives: int) -> tuple[socket.socket, socket.socket]:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, far_sends)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        near = socket.socket()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, near_receives)
        near.connect(listener.getsockname())
        far, _ = listener.accept()
    return near, far


def unix() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair()


Wire = Callable[[], tuple[socket.socket, socket.socket]]


@dataclass(frozen=True)
class Secrets:
    """What a TLS connection of the tests is made of. calling, serving: of the far peer; identity,
    roots: of the relay's own side."""

    calling: ssl.SSLContext
    serving: ssl.SSLContext
    identity: Identity
    roots: Path


def identity_of(certified: trustme.LeafCert, *names: str) -> Identity:
    chain = b"".join(blob.bytes() for blob in certified.cert_chain_pems)
    return Identity(names, chain, certified.private_key_pem.bytes())


async def tls(
    rig: "Rig", secrets: Secrets, *, relay_serves: bool, wire: Wire = tcp
) -> tuple[TlsRemote, TlsStream]:
    """A TLS connection: the far peer, and the stream for the relay."""
    far, near = wire()
    far.settimeout(PATIENCE)
    near.setblocking(False)
    own = load_tls(rig.name)
    if relay_serves:
        stream = own.server([secrets.identity]).wrap(near)
        wrap = partial(secrets.calling.wrap_socket, far, server_hostname="origin.test")
    else:
        stream = own.client(secrets.roots).wrap(near, "origin.test")
        wrap = partial(secrets.serving.wrap_socket, far, server_side=True)
    remote, _ = await asyncio.gather(asyncio.to_thread(wrap), shake_hands(stream))
    return TlsRemote(remote), stream


async def shake_hands(stream: TlsStream) -> None:
    await when_ready(stream, stream.do_handshake)


async def when_ready(stream: Stream, step: Callable[[], T]) -> T:
    """Do it once it need not wait."""
    loop = asyncio.get_running_loop()
    while True:
        ready: asyncio.Future[None] = loop.create_future()
        try:
            return step()
        except (ssl.SSLWantReadError, BlockingIOError):
            add, remove = loop.add_reader, loop.remove_reader
        except ssl.SSLWantWriteError:
            add, remove = loop.add_writer, loop.remove_writer
        number = stream.fileno()
        add(number, _set, ready)
        try:
            await soon(ready)
        finally:
            if stream.fileno() >= 0:
                remove(number)


class Taken:
    """A socket that the relay owns, as far as a test may still touch it: its options."""

    def __init__(self, sock: Stream) -> None:
        self._number = sock.fileno()

    def option(self, name: int, level: int = socket.IPPROTO_TCP) -> int:
        with socket.socket(fileno=os.dup(self._number)) as sock:
            return sock.getsockopt(level, name)

    async def expect_dead_after(self, ms: int) -> None:
        """In place of the relay's own bound, which it has set by then."""
        await until(lambda: self.option(socket.TCP_USER_TIMEOUT) > 0)
        with socket.socket(fileno=os.dup(self._number)) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, ms)


@dataclass
class Running:
    """A tunnel with both of its far ends."""

    client: Remote
    origin: Remote
    client_sock: Taken
    origin_sock: Taken
    tunnel: Tunnel
    ends: list[End]

    async def ended(self) -> End:
        await until(lambda: bool(self.ends))
        # A second report would come at once, if at all.
        await asyncio.sleep(0.01)
        assert len(self.ends) == 1
        return self.ends[0]


@dataclass
class Rig:
    """A relay, its clock, and tunnels through it. `complaints` is what reached the event loop's
    exception handler. name: of the implementation."""

    name: str
    relay: Relay
    clock: Clock
    complaints: list[dict[str, Any]]
    remotes: list[Remote]

    def tunnel(
        self,
        wire: Wire = tcp,
        *,
        limits: RelayLimits | None = None,
        to_origin: bytes = b"",
        to_client: bytes = b"",
        client_eof: bool = False,
    ) -> Running:
        client, client_sock = wire()
        origin, origin_sock = wire()
        return self.join(
            (Remote(client), client_sock),
            (Remote(origin), origin_sock),
            limits=limits,
            to_origin=to_origin,
            to_client=to_client,
            client_eof=client_eof,
        )

    def join(
        self,
        client: tuple[Remote, Stream],
        origin: tuple[Remote, Stream],
        *,
        limits: RelayLimits | None = None,
        to_origin: bytes = b"",
        to_client: bytes = b"",
        client_eof: bool = False,
    ) -> Running:
        ends: list[End] = []
        taken = Taken(client[1]), Taken(origin[1])
        tunnel = self.relay.start(
            client[1],
            origin[1],
            to_origin=to_origin,
            to_client=to_client,
            client_eof=client_eof,
            limits=limits or RelayLimits(),
            on_end=ends.append,
        )
        assert not ends, "reported from within start"
        self.remotes += [client[0], origin[0]]
        return Running(client[0], origin[0], *taken, tunnel, ends)


def text(message: bytes, *, mask: bool, fin: bool = True) -> bytes:
    return Frame(Opcode.TEXT, message, fin=fin).serialize(mask=mask)


def binary(message: bytes, *, mask: bool) -> bytes:
    return Frame(Opcode.BINARY, message).serialize(mask=mask)


def close(code: int, reason: str = "", *, mask: bool) -> bytes:
    return Frame(Opcode.CLOSE, Close(code, reason).serialize()).serialize(mask=mask)


def frames(data: bytes, *, mask: bool) -> list[Frame]:
    """The frames in `data`, which must hold nothing else, masked or not as said."""
    reader = StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    found = []
    while reader.buffer:
        parsing = Frame.parse(reader.read_exact, mask=mask, max_size=None)
        try:
            next(parsing)
        except StopIteration as parsed:
            found.append(parsed.value)
        else:
            raise AssertionError("the stream ends inside a frame")
    return found


def said(frame: Frame) -> tuple[int, str]:
    """Code and reason of a Close frame."""
    assert frame.opcode is Opcode.CLOSE
    parsed = Close.parse(frame.data)
    return parsed.code, parsed.reason
