"""An edge on real sockets with a raw origin and raw clients, for tests of the edge alone.

The origin keeps the exact bytes it was sent, and says whether anything came before it answered.
"""

import asyncio
import base64
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from handoff_common import codec
from handoff_common.clock import Clock, SystemClock
from handoff_common.events import (
    BackendSnapshot,
    ConnectionEvent,
    EdgeEvent,
    EdgeWatermark,
    Envelope,
)
from handoff_common.log import EventLog, JournaledLog, Message, Record
from handoff_common.log_sqlite import SqliteLog
from handoff_common.service import running
from handoff_common.topics import CONNECTIONS, CONTROLS, CUSTOMERS, EDGES, SERVICES
from handoff_edge.answer import accept_for
from handoff_edge.origin import LookUp
from handoff_edge.settings import EdgeSettings
from handoff_edge.wiring import Edge, assemble
from handoff_relay import Implementation, Relay, active, load, load_tls
from support.edge_events import customer, request_bytes, service

T = TypeVar("T")
PATIENCE = 15.0
_TOPIC_OF: dict[str, tuple[str, Callable[[Any], str]]] = {
    "ServiceSnapshot": (SERVICES.name, lambda e: e.data.service_id),
    "CustomerSnapshot": (CUSTOMERS.name, lambda e: e.data.customer_id),
    "HardCap": (CONTROLS.name, lambda e: f"customer/{e.data.customer_id}"),
    "EndConnection": (CONTROLS.name, lambda e: f"connection/{e.data.connection_id}"),
}


async def soon(awaitable: Awaitable[T]) -> T:
    return await asyncio.wait_for(awaitable, PATIENCE)


async def until(condition: Callable[[], Any], what: str = "the condition holds") -> None:
    """Wait for a condition; fails after PATIENCE seconds."""

    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.002)

    try:
        await soon(poll())
    except TimeoutError:
        raise AssertionError(f"after {PATIENCE} s it is still not so that {what}") from None


def agree(head: bytes, *extra: str) -> bytes:
    """The 101 that answers a head."""
    fields = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
    }
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept_for(fields[b'sec-websocket-key'].decode())}",
        *extra,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@dataclass
class Visit:
    """One connection that the origin got. head: up to its empty line. early: what had come behind
    it before the origin answered. later: what came after."""

    head: bytes
    early: bytes
    later: bytearray = field(default_factory=bytearray)
    ended: bool = False
    writer: asyncio.StreamWriter | None = None


Answer = Callable[[bytes], bytes | Awaitable[bytes]]


class Origin:
    """Answers each head with what `answer` makes of it, then echoes (or closes)."""

    def __init__(self, answer: Answer = agree) -> None:
        self.answer = answer
        self.echo = True
        self.close_after_answer = False
        self.early_seconds = 0.03
        """How long it looks, before it answers, for what should not come yet."""
        self.visits: list[Visit] = []
        self.connections = 0
        self.port = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    @asynccontextmanager
    async def serving(self, tls: ssl.SSLContext | None = None) -> AsyncIterator["Origin"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for visit in self.visits:
                if visit.writer is not None:
                    visit.writer.transport.abort()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        try:
            await self._visit(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        except asyncio.CancelledError:
            pass  # the end of the test: asyncio's own callback would complain
        finally:
            writer.transport.abort() if not writer.is_closing() else None

    async def _visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        visit = Visit(head, b"", writer=writer)
        self.visits.append(visit)
        with suppress(TimeoutError):
            visit.early = await asyncio.wait_for(reader.read(65536), self.early_seconds)
        answer = self.answer(head)
        writer.write(answer if isinstance(answer, bytes) else await answer)
        await writer.drain()
        if self.close_after_answer:
            writer.close()
            return
        while data := await reader.read(65536):
            visit.later += data
            if self.echo:
                writer.write(data)
                await writer.drain()
        visit.ended = True
        if self.echo:
            writer.close()


class RawClient:
    """A client that says exactly what it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> bytes:
        return await soon(self.reader.readuntil(b"\r\n\r\n"))

    async def rest(self) -> bytes:
        """All until the end, which is answered with ours."""
        try:
            return await soon(self.reader.read())
        finally:
            self.writer.close()

    async def told(self) -> tuple[int, str]:
        """Code and reason of the edge's Close frame, to which this client closes."""
        first, length = await self.exactly(2)
        assert first == 0x88, first
        payload = await self.exactly(length)
        self.writer.close()
        return int.from_bytes(payload[:2], "big"), payload[2:].decode()

    async def exactly(self, count: int) -> bytes:
        return await soon(self.reader.readexactly(count))

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class World:
    """An edge that runs, its log, and one origin."""

    def __init__(self, edge: Edge, log: JournaledLog, origin: Origin) -> None:
        self.edge = edge
        self.log = log
        self.origin = origin
        self.clients: list[RawClient] = []

    async def connect(self) -> RawClient:
        client = RawClient(*await asyncio.open_connection("127.0.0.1", self.edge.port))
        self.clients.append(client)
        return client

    async def ask(self, data: bytes) -> tuple[int, dict[str, str], bytes]:
        """Send, and read the whole answer: (status, headers, body)."""
        client = await self.connect()
        await client.send(data)
        return parse(await client.rest())

    async def open(self, **request: Any) -> RawClient:
        """A client behind its 101."""
        request.setdefault("key", base64.b64encode(os.urandom(16)).decode())
        client = await self.connect()
        await client.send(request_bytes(**request))
        head = await client.head()
        assert head.startswith(b"HTTP/1.1 101 "), head
        return client

    async def tell(self, *events: Envelope) -> None:
        """Publish configuration, and wait until the edge has folded it in."""
        await publish(self.log, *events)
        configuration = self.edge.configuration
        ends = {topic: await self.log.ends(topic) for topic in _CONFIGURATION}

        def known() -> bool:
            read = {(p.topic, p.number): at for p, at in configuration.positions.items()}
            return all(
                read.get((topic, number), 0) >= end
                for topic, partitions in ends.items()
                for number, (_, end) in partitions.items()
            )

        await until(known, "the edge has read its configuration")

    async def events(self) -> list[ConnectionEvent]:
        """Every connection event, a connection's in order."""
        return await connection_events(self.log)

    async def watermark(self) -> EdgeWatermark:
        """The last one."""
        found = [e for e in await edge_events(self.log) if isinstance(e, EdgeWatermark)]
        return found[-1]

    def closed(self) -> None:
        for client in self.clients:
            client.writer.transport.abort()


_CONFIGURATION = (SERVICES.name, CUSTOMERS.name, CONTROLS.name)


async def publish(log: EventLog, *events: Envelope) -> None:
    for event in events:
        topic, key = _TOPIC_OF[type(event).__name__]
        await log.append(topic, [Message(key(event), codec.encode(event))])


async def all_records(log: EventLog, topic: str) -> list[Record]:
    async def from_start(_: Sequence[Any]) -> dict[Any, int]:
        return {}

    subscription = log.subscribe([topic], group=None, positions=from_start)
    found: list[Record] = []
    try:
        while batches := await subscription.fetch(max_records=10_000, timeout=0.01):
            for batch in batches:
                found += batch.records
    finally:
        await subscription.close()
    return found


async def edge_events(log: EventLog) -> list[EdgeEvent]:
    records = await all_records(log, EDGES.name)
    return [codec.decode(EDGES.name, record.value) for record in records]


async def connection_events(log: EventLog) -> list[ConnectionEvent]:
    records = await all_records(log, CONNECTIONS.name)
    return [codec.decode(CONNECTIONS.name, record.value) for record in records]


def parse(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    line, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    return int(line.split(" ")[1]), headers, body


def edge_settings(data: Path, **changes: Any) -> EdgeSettings:
    values: dict[str, Any] = {
        "data_dir": data,
        "edge_host": "127.0.0.1",
        "edge_port": 0,
        "allow_private_origins": True,
        "watermark_interval": 60,
        "drain_grace": 0,
        "drain_spread": 0,
        "disable_grace": 0.05,
        **changes,
    }
    return EdgeSettings(**values)


def quick(name: str) -> Implementation:
    """That relay on real time, whatever clock the edge has, looking at its deadlines often."""

    def new(**arguments: Any) -> Relay:
        return load(name)(tick_ms=10)

    return Implementation(new, load_tls(name))


QUICK_RELAY = quick(active)


@asynccontextmanager
async def world(
    data: Path,
    *,
    origin: Origin | None = None,
    origin_tls: ssl.SSLContext | None = None,
    backend: dict[str, Any] | None = None,
    clock: Clock | None = None,
    log: JournaledLog | None = None,
    look_up: LookUp | None = None,
    relay: Implementation = QUICK_RELAY,
    configured: bool = True,
    service_changes: dict[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[World]:
    """An edge with one enabled service, `chat.example.com`, whose only backend is the origin."""
    mine = log is None
    opened = log or await SqliteLog.open(data / "log.db")
    try:
        async with (origin or Origin()).serving(origin_tls) as there:
            if configured:
                await publish(
                    opened,
                    service(
                        100,
                        backends=(backend_of(there, **(backend or {})),),
                        **(service_changes or {}),
                    ),
                    customer(100),
                )
            edge = assemble(
                edge_settings(data, **settings),
                log=opened,
                clock=clock or SystemClock(),
                relay=relay,
                look_up=look_up,
            )
            async with running(edge.service) as failed:
                found = World(edge, opened, there)
                if configured:
                    await until(lambda: edge.configuration.seen, "the edge has its configuration")
                try:
                    yield found
                    assert not failed.done() or failed.result() is None
                finally:
                    found.closed()
    finally:
        if mine:
            await opened.close()


def backend_of(origin: Origin, **changes: Any) -> BackendSnapshot:
    values: dict[str, Any] = {"name": "main", "address": "127.0.0.1", "port": origin.port}
    return BackendSnapshot(**{**values, **changes})
