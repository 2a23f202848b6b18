"""What is billed is what was on the wire: all eight counters of a `closed`, to the byte, against
peers that count for themselves. By TLS it is the stream inside, as each peer's own library has it.
"""

import asyncio
import os
import random
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from websockets.frames import Close, Frame, Opcode

from handoff_common.events import ConnectionBytes, ConnectionClosed, Counters, Reason, counters_of
from handoff_relay import IMPLEMENTATIONS
from support.counting_peers import CountingOrigin, Peer, call
from support.edge_events import end_connection, request_bytes
from support.edge_world import World, agree, quick, until, world

# Both relays wait by an epoll of their own: the loop above makes no difference to what they count.
pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])

MIB = 1 << 20
CHAT = "chat.example.com"
ORIGIN = "origin.test"
CA = trustme.CA()


def frame(payload: bytes, *, mask: bool, opcode: Opcode = Opcode.BINARY) -> bytes:
    return Frame(opcode, payload).serialize(mask=mask)


def block(size: int) -> bytes:
    """So many bytes that cannot be mixed up, all in one frame: none is a Close frame by chance."""
    return b"\x82\x7f" + size.to_bytes(8, "big") + os.urandom(size)


@dataclass
class Wire:
    """A connection with both of its far ends. heads: as they were sent and received by the client,
    sent and received by the origin."""

    w: World
    client: Peer
    origin: Peer
    heads: tuple[int, int, int, int]

    @property
    def passed(self) -> Counters:
        """What the peers counted, in the order of a record: the client's first, as the edge has
        it."""
        request, answer, sent, received = self.heads
        client, origin = self.client, self.origin
        return Counters(
            req_header_bytes=request,
            req_body_bytes=client.sent - request,
            resp_header_bytes=answer,
            resp_body_bytes=client.received - answer,
            bereq_header_bytes=sent,
            bereq_body_bytes=origin.received - sent,
            beresp_header_bytes=received,
            beresp_body_bytes=origin.sent - received,
        )

    async def up(self, data: bytes) -> None:
        """From the client to the origin."""
        _, got = await asyncio.gather(self.client.send(data), self.origin.exactly(len(data)))
        assert got == data

    async def down(self, data: bytes) -> None:
        _, got = await asyncio.gather(self.origin.send(data), self.client.exactly(len(data)))
        assert got == data

    async def hang_up(self) -> None:
        """The client ends, and then the origin."""
        self.client.finish() if not self.tls else self.client.close()
        assert await self.origin.rest() == b""
        self.origin.close()

    @property
    def tls(self) -> bool:
        return isinstance(self.client.sock, ssl.SSLSocket)

    async def closed(self) -> ConnectionClosed:
        await until(lambda: not len(self.w.edge.tunnels), "the connection has ended")
        assert await self.w.edge.recorder.flushed(timeout=5)
        *_, last = await self.w.events()
        assert isinstance(last, ConnectionClosed)
        return last


@pytest.fixture(params=["plain", "tls"])
def secrets(request: pytest.FixtureRequest, tmp_path: Path) -> ssl.SSLContext | None:
    """What the client trusts, and the edge's certificate on disk; None: no TLS."""
    if request.param == "plain":
        return None
    folder = tmp_path / "certificates"
    folder.mkdir()
    certified = CA.issue_cert(CHAT)
    certified.private_key_and_cert_chain_pem.write_to_path(str(folder / "chat.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    CA.configure_trust(context)
    return context


@pytest.fixture
def origin_by_tls(tmp_path: Path) -> dict[str, Any]:
    """What makes an edge's world one whose origin speaks TLS."""
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CA.issue_cert(ORIGIN).configure_cert(serving)
    CA.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return {
        "origin_tls": serving,
        "backend": {"address": ORIGIN, "use_ssl": True},
        "look_up": to_loopback,
        "extra_ca": tmp_path / "ca.pem",
    }


async def to_loopback(host: str, port: int) -> Sequence[Any]:
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]


@pytest.fixture(params=list(IMPLEMENTATIONS))
def relay(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def edge(
    tmp_path: Path, relay: str, secrets: ssl.SSLContext | None, *, buffer: int = 0, **more: Any
) -> AsyncIterator[World]:
    if secrets is not None:
        more |= {"tls_certificates": tmp_path / "certificates", "edge_tls_port": 0}
    origin = CountingOrigin(buffer=buffer)
    async with world(tmp_path, origin=origin, relay=quick(relay), **more) as w:
        yield w


async def connect(
    w: World,
    secrets: ssl.SSLContext | None,
    *,
    early_up: bytes = b"",
    early_down: bytes = b"",
    buffer: int = 0,
) -> Wire:
    """Behind the handshake; what is early goes out in one piece with the head that it follows."""
    assert isinstance(w.origin, CountingOrigin)
    port = w.edge.port if secrets is None else w.edge.tls_port
    client = await call(port, secrets, name=CHAT, buffer=buffer)
    request = request_bytes(extra="X-Odd:  spaced \t\r\n")
    await client.send(request + early_up)
    origin = await w.origin.visit()
    assert await origin.head() == request
    answer = agree(request, "X-Also: odd")
    await origin.send(answer + early_down)
    assert await client.head() == answer
    return Wire(w, client, origin, (len(request), len(answer), len(request), len(answer)))


Scenario = Callable[[Wire], Awaitable[None]]


async def echo(wire: Wire) -> None:
    chance = random.Random(7)
    for _ in range(40):
        payload = chance.randbytes(chance.choice([0, 1, 125, 126, 700, 65_535, 65_536]))
        await wire.up(frame(payload, mask=True))
        await wire.down(frame(payload, mask=False))


async def bulk_up(wire: Wire) -> None:
    await wire.up(block(3 * MIB + 1))


async def bulk_down(wire: Wire) -> None:
    await wire.down(block(3 * MIB + 1))


async def bulk_both_ways(wire: Wire) -> None:
    await asyncio.gather(wire.up(block(2 * MIB)), wire.down(block(2 * MIB + 7)))


async def messages_of_a_mebibyte(wire: Wire) -> None:
    for _ in range(2):
        await wire.up(frame(os.urandom(MIB), mask=True))
        await wire.down(frame(os.urandom(MIB), mask=False))


async def segments_of_one_byte(wire: Wire) -> None:
    for byte in frame(b"x" * 150, mask=True):
        await wire.up(bytes([byte]))
        await wire.down(bytes([byte]))


async def pings_and_no_message(wire: Wire) -> None:
    for _ in range(5):
        await wire.up(frame(b"?", mask=True, opcode=Opcode.PING))
        await wire.down(frame(b"?", mask=False, opcode=Opcode.PONG))


async def no_frames_at_all(wire: Wire) -> None:
    """A length that is none, control frames too long and cut in two, and then anything."""
    for bad in (b"\x82\xff" + b"\xff" * 8, b"\x89\xfe\x01\x00", b"\x09\x80abcd", b"\xff" * 999):
        await wire.up(bad + os.urandom(1000))
        await wire.down(bad + os.urandom(1000))


async def a_close_handshake(wire: Wire) -> None:
    await wire.up(frame(Close(4001, "enough").serialize(), mask=True, opcode=Opcode.CLOSE))
    await wire.down(frame(Close(4001, "enough").serialize(), mask=False, opcode=Opcode.CLOSE))


async def nothing(wire: Wire) -> None:
    """Neither side says a word."""


@pytest.mark.parametrize(
    "talk",
    [
        echo,
        bulk_up,
        bulk_down,
        bulk_both_ways,
        messages_of_a_mebibyte,
        segments_of_one_byte,
        pings_and_no_message,
        no_frames_at_all,
        a_close_handshake,
        nothing,
    ],
)
async def test_billed_is_what_both_peers_counted(
    tmp_path: Path, relay: str, secrets: ssl.SSLContext | None, talk: Scenario
) -> None:
    async with edge(tmp_path, relay, secrets) as w:
        wire = await connect(w, secrets)
        await talk(wire)
        await wire.hang_up()
        closed = await wire.closed()
        assert counters_of(closed.data) == wire.passed
        assert closed.data.reason is Reason.CLIENT_CLOSED
        wire.client.close()


@pytest.mark.parametrize(
    "talk", [echo, bulk_up, bulk_down, bulk_both_ways, segments_of_one_byte, a_close_handshake]
)
async def test_billed_is_what_an_origin_by_tls_counted(
    tmp_path: Path,
    relay: str,
    secrets: ssl.SSLContext | None,
    origin_by_tls: dict[str, Any],
    talk: Scenario,
) -> None:
    up, down = frame(os.urandom(30_000), mask=True), frame(os.urandom(40_000), mask=False)
    async with edge(tmp_path, relay, secrets, **origin_by_tls) as w:
        wire = await connect(w, secrets, early_up=up, early_down=down)
        assert isinstance(wire.origin.sock, ssl.SSLSocket)
        assert await wire.origin.exactly(len(up)) == up
        assert await wire.client.exactly(len(down)) == down
        await talk(wire)
        await wire.hang_up()
        assert counters_of((await wire.closed()).data) == wire.passed
        wire.client.close()


async def test_what_came_in_one_piece_with_a_head_is_body(
    tmp_path: Path, relay: str, secrets: ssl.SSLContext | None
) -> None:
    up, down = frame(os.urandom(30_000), mask=True), frame(os.urandom(40_000), mask=False)
    async with edge(tmp_path, relay, secrets) as w:
        wire = await connect(w, secrets, early_up=up, early_down=down)
        assert await wire.origin.exactly(len(up)) == up
        assert await wire.client.exactly(len(down)) == down
        await wire.hang_up()
        billed = counters_of((await wire.closed()).data)
        assert billed == wire.passed
        assert (billed.req_body_bytes, billed.resp_body_bytes) == (len(up), len(down))
        wire.client.close()


async def test_a_half_closed_connection_is_billed_on(tmp_path: Path, relay: str) -> None:
    """Plain only: TLS has no half-close."""
    async with edge(tmp_path, relay, None) as w:
        wire = await connect(w, None)
        await wire.up(frame(b"a question", mask=True))
        wire.client.finish()
        assert await wire.origin.rest() == b""
        await wire.down(frame(os.urandom(MIB), mask=False))
        wire.origin.close()
        assert await wire.client.rest() == b""
        assert counters_of((await wire.closed()).data) == wire.passed
        wire.client.close()


@pytest.mark.parametrize("slow", ["client", "origin"])
@pytest.mark.parametrize("origin", ["plain", "tls"])
async def test_slow_readers_are_billed_what_they_read(
    tmp_path: Path,
    relay: str,
    secrets: ssl.SSLContext | None,
    slow: str,
    origin: str,
    origin_by_tls: dict[str, Any],
) -> None:
    """Small kernel buffers, so that the reader's pace is felt by the writer; and a checkpoint in
    the middle, which must neither be ahead of the reader nor be billed twice."""
    more = origin_by_tls if origin == "tls" else {}
    data = block(MIB)
    size = len(data)
    async with edge(tmp_path, relay, secrets, buffer=4096, **more) as w:
        wire = await connect(w, secrets, buffer=4096)
        reader, writer = (
            (wire.client, wire.origin) if slow == "client" else (wire.origin, wire.client)
        )
        before = writer.sent
        sending = asyncio.create_task(writer.send(data))
        await until(lambda: writer.sent > before, "the first bytes are on their way")
        got = 0
        while got < size:
            got += len(await reader.some(1500))
            if got == 1500:
                await w.edge.checkpoints.all()
        await sending
        await wire.hang_up()
        billed = counters_of((await wire.closed()).data)
        assert billed == wire.passed
        steps = [e for e in await w.events() if isinstance(e, ConnectionBytes)]
        for step in steps:
            told = counters_of(step.data)
            assert all(part <= whole for part, whole in zip(told, billed, strict=True))
        wire.client.close()


async def test_a_checkpoint_says_what_both_peers_counted_so_far(
    tmp_path: Path, relay: str, secrets: ssl.SSLContext | None
) -> None:
    async with edge(tmp_path, relay, secrets) as w:
        wire = await connect(w, secrets)
        told = []
        for _ in range(3):
            await echo(wire)
            await w.edge.checkpoints.all()
            # Until it is on disk, the next would take its place.
            assert await w.edge.recorder.flushed(timeout=5)
            told.append(wire.passed)
        await wire.hang_up()
        assert counters_of((await wire.closed()).data) == told[-1]
        steps = [counters_of(e.data) for e in await w.events() if isinstance(e, ConnectionBytes)]
        assert steps == told
        wire.client.close()


@pytest.mark.parametrize("breaks", ["client", "origin"])
async def test_a_reset_bills_what_had_passed(
    tmp_path: Path, relay: str, secrets: ssl.SSLContext | None, breaks: str
) -> None:
    async with edge(tmp_path, relay, secrets) as w:
        wire = await connect(w, secrets)
        await echo(wire)
        peer, other = (
            (wire.client, wire.origin) if breaks == "client" else (wire.origin, wire.client)
        )
        peer.reset()
        closed = await wire.closed()
        assert closed.data.reason is Reason(f"{breaks}_reset")
        assert counters_of(closed.data) == wire.passed
        assert await other.rest() == b""
        other.close()


@pytest.mark.parametrize("breaks", ["client", "origin"])
async def test_a_reset_in_the_middle_bills_no_byte_that_did_not_pass(
    tmp_path: Path, relay: str, secrets: ssl.SSLContext | None, breaks: str
) -> None:
    """Whoever breaks may have sent what the edge never got to read, and what the edge had sent it
    may have died in its kernel; between the edge and the other, each byte is known."""
    async with edge(tmp_path, relay, secrets) as w:
        wire = await connect(w, secrets)
        sender, reader = (
            (wire.client, wire.origin) if breaks == "client" else (wire.origin, wire.client)
        )
        sending = asyncio.create_task(sender.send(block(64 * MIB)))
        await reader.exactly(2 * MIB)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        sender.reset()
        await reader.rest()
        billed, passed = counters_of((await wire.closed()).data), wire.passed
        if breaks == "client":
            taken, given = billed.req_body_bytes, billed.bereq_body_bytes
            sent, received = passed.req_body_bytes, passed.bereq_body_bytes
        else:
            taken, given = billed.beresp_body_bytes, billed.resp_body_bytes
            sent, received = passed.beresp_body_bytes, passed.resp_body_bytes
        # What was queued is still delivered behind the report of the end, and is not billed.
        assert given <= received <= taken <= sent
        assert received > 2 * MIB - 1
        reader.close()


async def test_the_edges_own_close_frame_is_not_billed(
    tmp_path: Path, relay: str, secrets: ssl.SSLContext | None
) -> None:
    async with edge(tmp_path, relay, secrets) as w:
        wire = await connect(w, secrets)
        await wire.up(frame(b"hello", mask=True))
        (opened,) = list(w.edge.tunnels)
        until_then = datetime.now(UTC) + timedelta(minutes=5)
        await w.tell(end_connection(opened.connection.connection_id, until_then))
        lengths = []
        for peer, mask in ((wire.client, 0), (wire.origin, 4)):
            first, length = await peer.exactly(2)
            assert first == 0x88
            await peer.exactly((length & 0x7F) + mask)
            lengths.append(2 + (length & 0x7F) + mask)
        # Behind its sealing a stream is read, counted as received, and dropped.
        answer = frame(Close(1008, "").serialize(), mask=True, opcode=Opcode.CLOSE)
        await wire.client.send(answer)
        wire.origin.close()
        wire.client.close() if wire.tls else wire.client.finish()
        billed, passed = counters_of((await wire.closed()).data), wire.passed
        assert billed.resp_body_bytes == passed.resp_body_bytes - lengths[0]
        assert billed.bereq_body_bytes == passed.bereq_body_bytes - lengths[1]
        assert billed.req_body_bytes == passed.req_body_bytes
        assert billed.beresp_body_bytes == passed.beresp_body_bytes
        wire.client.close()


async def test_override_host_is_billed_as_it_is_sent(tmp_path: Path, relay: str) -> None:
    backend = {"override_host": "a.much.longer.name.of.the.origin.example.net"}
    async with edge(tmp_path, relay, None, backend=backend) as w:
        assert isinstance(w.origin, CountingOrigin)
        client = await call(w.edge.port, name=CHAT)
        request = request_bytes()
        await client.send(request)
        origin = await w.origin.visit()
        head = await origin.head()
        assert len(head) == len(request) + len(backend["override_host"]) - len(CHAT)
        # Skipped answers are bytes from the origin too; the client gets only the last.
        answer = agree(request)
        await origin.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + answer)
        assert await client.head() == answer
        wire = Wire(w, client, origin, (len(request), len(answer), len(head), origin.sent))
        await echo(wire)
        await wire.hang_up()
        assert counters_of((await wire.closed()).data) == wire.passed
        client.close()
