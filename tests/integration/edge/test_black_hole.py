"""A peer whose packets are dropped, from one moment to the next and without a word: it is gone
within its bound, and is billed until the edge saw that."""

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from handoff_common.events import ConnectionClosed, Reason
from handoff_relay import IMPLEMENTATIONS
from support.black_hole import FarMachine, far_machine, relays_end
from support.counting_peers import CountingOrigin, Peer
from support.edge_events import request_bytes
from support.edge_world import agree, quick, soon, until, world

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])
DEAD_AFTER_MS = 400
BOUND_SECONDS = 10.0
HELLO = b"\x82\x85abcd" + bytes(5)


@pytest.fixture
def machine() -> Iterator[FarMachine]:
    with far_machine() as machine:
        yield machine


def finds_dead_peers(sock: socket.socket) -> None:
    """Within two minutes, as it is set; and from here on soon enough for a test."""
    options = [
        sock.getsockopt(socket.IPPROTO_TCP, name)
        for name in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    ]
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert options[0] + options[1] * options[2] <= 120
    assert 0 < sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 120_000
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_AFTER_MS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)


@pytest.mark.parametrize("relay", list(IMPLEMENTATIONS))
@pytest.mark.parametrize(
    ("dead", "silent"),
    [("client", False), ("client", True), ("origin", False)],
    ids=["client-sent-to", "client-idle", "origin-sent-to"],
)
async def test_a_black_holed_peer_is_dead_and_billed_until_that_was_seen(
    tmp_path: Path, machine: FarMachine, relay: str, dead: str, silent: bool
) -> None:
    def listening() -> socket.socket:
        return socket.create_server((machine.far, 0))

    there = machine.there(listening) if dead == "origin" else None
    origin = CountingOrigin(listener=there)
    backend = {"address": machine.far} if dead == "origin" else {}
    async with world(
        tmp_path, origin=origin, backend=backend, relay=quick(relay), edge_host=machine.near
    ) as w:
        sock = machine.there(socket.socket) if dead == "client" else socket.socket()
        client = Peer(sock)
        await soon(asyncio.get_running_loop().sock_connect(sock, (machine.near, w.edge.port)))
        request = request_bytes()
        await client.send(request)
        server = await origin.visit()
        head = await server.head()
        await server.send(agree(head))
        answer = await client.head()
        await client.send(HELLO)
        assert await server.exactly(len(HELLO)) == HELLO
        await server.send(HELLO)
        assert await client.exactly(len(HELLO)) == HELLO

        gone, left = (client, server) if dead == "client" else (server, client)
        with relays_end(gone.sock.getsockname()[:2]) as own:
            finds_dead_peers(own)
        cut_at, began = datetime.now(UTC), time.monotonic()
        machine.cut()
        more = b"" if silent else b"\x82\x7f" + (3_000).to_bytes(8, "big") + os.urandom(3_000)
        await left.send(more)
        await until(lambda: not len(w.edge.tunnels), "the edge has seen that it is dead")
        assert time.monotonic() - began < BOUND_SECONDS
        # The other is not left waiting.
        assert await left.rest() == b""
        left.close()

        assert await w.edge.recorder.flushed(timeout=5)
        *_, closed = await w.events()
        assert isinstance(closed, ConnectionClosed)
        data = closed.data
        assert (data.reason, data.closed_by) == (Reason.DEAD_PEER, dead)
        assert cut_at < closed.time <= datetime.now(UTC)
        assert data.elapsed_ms >= (cut_at - data.accepted_at).total_seconds() * 1000 + DEAD_AFTER_MS
        # What the living one sent is billed; what the dead one's kernel was given, too.
        up, down = (more, b"") if dead == "origin" else (b"", more)
        assert data.req_body_bytes == data.bereq_body_bytes == len(HELLO) + len(up)
        assert data.beresp_body_bytes == data.resp_body_bytes == len(HELLO) + len(down)
        assert (data.req_header_bytes, data.resp_header_bytes) == (len(request), len(answer))
        gone.close()
