"""Behind a load balancer: the client is who its PROXY protocol header names, and nobody else may
send one."""

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trustme

from handoff_common.events import ConnectionAccepted
from handoff_edge.protocol import Client
from handoff_relay import IMPLEMENTATIONS
from support.edge_events import request_bytes
from support.edge_world import PATIENCE, RawClient, World, parse, quick, soon, until, world
from support.proxy_headers import v2

T = TypeVar("T")
V1 = b"PROXY TCP4 203.0.113.9 198.51.100.1 40000 443\r\n"
V2 = v2(b"\x21\x21", "2001:db8:7::9", tlvs=b"\x01\x00\x02h2")
LOCAL = v2(b"\x20\x00")
HERE = "127.0.0.0/24"


async def networks(w: World) -> list[str]:
    return [e.data.client_network for e in await w.events() if isinstance(e, ConnectionAccepted)]


async def send_slowly(client: RawClient, data: bytes) -> None:
    for byte in data:
        await client.send(bytes([byte]))


@pytest.mark.parametrize(
    ("header", "network"),
    [
        (V1, "203.0.113.0/24"),
        (V2, "2001:db8:7::/48"),
        (b"PROXY UNKNOWN\r\n", HERE),
        (LOCAL, HERE),
    ],
)
@pytest.mark.parametrize("slowly", [False, True])
async def test_the_client_is_the_one_that_the_header_names(
    tmp_path: Path, header: bytes, network: str, slowly: bool
) -> None:
    async with world(tmp_path, proxy_protocol_from="192.0.2.1, 127.0.0.0/8") as w:
        client = await w.connect()
        sent = request_bytes()
        await (send_slowly if slowly else RawClient.send)(client, header + sent + b"early")
        assert (await client.head()).startswith(b"HTTP/1.1 101 ")
        assert await client.exactly(5) == b"early"
        assert w.origin.visits[0].head == sent, "the origin gets the request, and no header of ours"
        assert await networks(w) == [network]
        assert w.edge.state()["heads_waiting"] == 0


@pytest.mark.parametrize("header", [V1, V2])
@pytest.mark.parametrize("cut", [None, 1, 30, 60])
@pytest.mark.parametrize("relay", list(IMPLEMENTATIONS))
async def test_the_header_stands_before_the_tls_of_the_client(
    tmp_path: Path, header: bytes, cut: int | None, relay: str
) -> None:
    """cut: where a pause divides it and what follows, the ClientHello; None: nowhere."""
    authority = trustme.CA()
    (tmp_path / "certificates").mkdir()
    certified = authority.issue_cert("chat.example.com")
    certified.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "certificates/chat.pem"))
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(trusting)
    tls: dict[str, Any] = {"tls_certificates": tmp_path / "certificates", "edge_tls_port": 0}
    async with world(tmp_path, relay=quick(relay), proxy_protocol_from=HERE, **tls) as w:

        def talk() -> bytes:
            address = ("127.0.0.1", w.edge.tls_port)
            with socket.create_connection(address, PATIENCE) as sock:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                came, goes = ssl.MemoryBIO(), ssl.MemoryBIO()
                client = trusting.wrap_bio(came, goes, server_hostname="chat.example.com")

                def carry(step: Callable[[], T]) -> T:
                    while True:
                        try:
                            return step()
                        except ssl.SSLWantReadError:
                            sock.sendall(goes.read())
                            came.write(sock.recv(65536))

                with suppress(ssl.SSLWantReadError):
                    client.do_handshake()
                first = header + goes.read()
                if cut is not None:
                    sock.sendall(first[:cut])
                    time.sleep(0.05)
                sock.sendall(first[cut or 0 :])
                carry(client.do_handshake)
                client.write(request_bytes())
                return carry(client.read)

        answer = await asyncio.to_thread(talk)
        assert answer.startswith(b"HTTP/1.1 101 ")
        named = "203.0.113.0/24" if header == V1 else "2001:db8:7::/48"
        assert await networks(w) == [named]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (request_bytes(), "proxy_header_missing"),
        (b"PROXY TCP4 somewhere\r\n" + request_bytes(), "proxy_header_malformed"),
        (v2(b"\x21\x11") + request_bytes(), "proxy_header_malformed"),
        (V1 + V1 + request_bytes(), "proxy_header_unexpected"),
    ],
)
async def test_a_load_balancer_must_begin_with_one_header(
    tmp_path: Path, data: bytes, code: str
) -> None:
    async with world(tmp_path, proxy_protocol_from="127.0.0.1") as w:
        status, headers, _ = await w.ask(data)
        assert (status, headers["x-handoff-error"]) == (400, code)
        assert w.origin.connections == 0


@pytest.mark.parametrize("header", [V1, b"PROXY UNKNOWN\r\n", V2, LOCAL])
@pytest.mark.parametrize("trusted", ["", "192.0.2.0/24,2001:db8::/32"])
async def test_nobody_else_may_send_one(tmp_path: Path, header: bytes, trusted: str) -> None:
    async with world(tmp_path, proxy_protocol_from=trusted) as w:
        status, headers, _ = await w.ask(header + request_bytes())
        assert (status, headers["x-handoff-error"]) == (400, "proxy_header_unexpected")
        client = await w.connect()
        await send_slowly(client, header[:12])
        await send_slowly(client, header[12:])
        await client.send(request_bytes())
        assert parse(await client.rest())[1]["x-handoff-error"] == "proxy_header_unexpected"
        assert w.origin.connections == 0


async def test_clients_of_a_load_balancer_are_bounded_by_their_own_network(tmp_path: Path) -> None:
    async with world(
        tmp_path, proxy_protocol_from="127.0.0.1", max_heads=6, max_heads_per_network=2
    ) as w:

        def waiting() -> Any:
            return w.edge.state()["heads_waiting"]

        clients = [await w.connect() for _ in range(5)]
        await until(lambda: waiting() == 5, "the load balancer's own network is no bound")
        for client in clients[:3]:
            await client.send(V1)
        await until(lambda: waiting() == 4, "two of that network wait, the third was closed unread")
        await until(lambda: sum(client.reader.at_eof() for client in clients) == 1)
        await clients[3].send(V2)
        assert [await w.connect() for _ in range(2)]
        await until(lambda: waiting() == 6)
        refused = await w.connect()
        assert await soon(refused.reader.read()) == b"", "all count in total"
        refused.writer.close()
        await clients[3].send(request_bytes())
        assert (await clients[3].head()).startswith(b"HTTP/1.1 101 ")
        await until(lambda: waiting() == 5)


async def test_the_header_is_inside_the_deadline_of_the_head(tmp_path: Path) -> None:
    async with world(tmp_path, proxy_protocol_from="127.0.0.1", head_timeout=0.3) as w:
        for begun in (b"", V1[:9], V2[:20], V1):
            client = await w.connect()
            await client.send(begun) if begun else None
            status, headers, _ = parse(await client.rest())
            assert (status, headers["x-handoff-error"]) == (408, "head_timeout")
        assert w.edge.state()["heads_waiting"] == 0


async def test_a_health_check_that_goes_behind_its_header_is_no_trouble(tmp_path: Path) -> None:
    async with world(tmp_path, proxy_protocol_from="127.0.0.1") as w:
        for begun in (LOCAL, LOCAL[:7]):
            client = await w.connect()
            await client.send(begun)
            await until(lambda: w.edge.state()["heads_waiting"] == 1)
            client.writer.close()
            await until(lambda: w.edge.state()["heads_waiting"] == 0)


def test_nothing_behind_the_header_is_taken_with_it() -> None:
    for header in (V1, V2):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            client = Client(ours, "127.0.0.1", proxied=True)
            theirs.send(header + b"\x16\x03\x01")
            client.identify()
            assert not client.unidentified
            assert ours.recv(100) == b"\x16\x03\x01"
