"""A TCP proxy on loopback that cuts, swallows, delays, slows and restores on command.

It owns the connections that go through it. It knows no protocol: a broker that stands behind one
must advertise the proxy's port (`KafkaBroker.add_listener`), or clients go around it.

    cut()        every connection is reset, and each new one too, until restore()
    blackhole()  nothing passes and nobody is told; what was sent meanwhile passes after restore(),
                 as it does when a network heals
    delay()      every byte arrives that much later
    throttle()   each connection passes at most so many bytes a second
    hold_ends()  bytes pass, and that a side has ended or reset is not told before restore()
"""

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

CHUNK = 65_536
# Chunks held per connection and way: what a black hole or a delay keeps in memory, at most 1 MiB.
HELD = 16
STEPS_PER_SECOND = 20
DIAL_SECONDS = 10.0

Direction = Literal["to_upstream", "to_client", "both"]


@dataclass
class Way:
    """One direction of all connections. carried: bytes handed on so far."""

    delay: float = 0.0
    rate: float | None = None
    open: asyncio.Event = field(default_factory=asyncio.Event)
    ends: asyncio.Event = field(default_factory=asyncio.Event)
    carried: int = 0

    def __post_init__(self) -> None:
        self.open.set()
        self.ends.set()


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST, at once."""
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@dataclass
class Proxy:
    """Stands in front of `upstream_port` from start() to close(); clients use `port`."""

    upstream_port: int = 0
    host: str = "127.0.0.1"
    to_upstream: Way = field(default_factory=Way)
    to_client: Way = field(default_factory=Way)
    accepted: int = 0
    _cut: bool = False
    _server: asyncio.Server | None = None
    _tasks: "set[asyncio.Task[None]]" = field(default_factory=set)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, self.host, 0)

    async def close(self) -> None:
        """Reset everything and leave the port."""
        if self._server is not None:
            self._server.close()
        await self._reset_all()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def port(self) -> int:
        assert self._server is not None, "the proxy is not started"
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def connections(self) -> int:
        """How many go through it now."""
        return len(self._tasks)

    async def cut(self) -> None:
        """Reset every connection, and each new one until `restore`."""
        self._cut = True
        await self._reset_all()

    def blackhole(self, direction: Direction = "both") -> None:
        """Pass nothing on, in one direction or both, and let nobody know.

        With "to_client" requests arrive and answers do not: what a lost acknowledgement looks like.
        """
        for way in self._ways(direction):
            way.open.clear()

    def delay(self, seconds: float, direction: Direction = "both") -> None:
        """Hold every chunk that long; chunks are held side by side, so it costs no throughput."""
        for way in self._ways(direction):
            way.delay = seconds

    def throttle(self, bytes_per_second: float, direction: Direction = "both") -> None:
        """Slow each connection down to that."""
        for way in self._ways(direction):
            way.rate = bytes_per_second

    def hold_ends(self, direction: Direction = "both") -> None:
        """Pass all bytes on, and no end of a stream: the moment between a peer's last word and its
        end, for as long as it is wanted."""
        for way in self._ways(direction):
            way.ends.clear()

    def restore(self) -> None:
        """All is as at the start: what was held is passed on, new connections are let through."""
        self._cut = False
        for way in self._ways("both"):
            way.delay = 0.0
            way.rate = None
            way.open.set()
            way.ends.set()

    def _ways(self, direction: Direction) -> list[Way]:
        ways = {"to_upstream": [self.to_upstream], "to_client": [self.to_client]}
        return ways.get(direction, [self.to_upstream, self.to_client])

    async def _reset_all(self) -> None:
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self._cut:
            reset(writer)
            return
        task = asyncio.create_task(self._join(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection from its dial to its end; cancelling it resets both sides."""
        upstream: asyncio.StreamWriter | None = None
        try:
            await self.to_upstream.open.wait()
            async with asyncio.timeout(DIAL_SECONDS):
                answers, upstream = await asyncio.open_connection(self.host, self.upstream_port)
            async with asyncio.TaskGroup() as both:
                both.create_task(carry(reader, upstream, self.to_upstream))
                both.create_task(carry(answers, writer, self.to_client))
            upstream.close()
            writer.close()
        except (OSError, TimeoutError, ExceptionGroup):
            reset_both(writer, upstream)
        except asyncio.CancelledError:
            reset_both(writer, upstream)
            raise


def reset_both(*writers: asyncio.StreamWriter | None) -> None:
    for writer in writers:
        if writer is not None:
            reset(writer)


async def carry(source: asyncio.StreamReader, target: asyncio.StreamWriter, way: Way) -> None:
    """Everything from source to target, in order, until source ends. A reset raises, once it is
    due."""
    clock = asyncio.get_running_loop().time
    # An empty chunk is the end of the stream, None a reset.
    held: asyncio.Queue[tuple[float, bytes | None]] = asyncio.Queue(HELD)

    async def take() -> None:
        chunk: bytes | None = b"x"
        while chunk:
            try:
                chunk = await source.read(CHUNK)
            except OSError:
                chunk = None
            await held.put((clock() + way.delay, chunk))

    async def give() -> None:
        while True:
            due, chunk = await held.get()
            await asyncio.sleep(max(0.0, due - clock()))
            await way.open.wait()
            if not chunk:
                await way.ends.wait()
            if chunk is None:
                raise ConnectionResetError
            if not chunk:
                if target.can_write_eof():
                    target.write_eof()
                return
            await pour(chunk, target, way)

    async with asyncio.TaskGroup() as both:
        both.create_task(take())
        both.create_task(give())


async def pour(chunk: bytes, target: asyncio.StreamWriter, way: Way) -> None:
    """One chunk, in as many steps as the rate asks for."""
    while chunk:
        rate = way.rate
        size = len(chunk) if rate is None else max(1, int(rate / STEPS_PER_SECOND))
        if rate is not None:
            await asyncio.sleep(min(size, len(chunk)) / rate)
            await way.open.wait()
        target.write(chunk[:size])
        await target.drain()
        way.carried += min(size, len(chunk))
        chunk = chunk[size:]
