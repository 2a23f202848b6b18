"""Clients by `wss://`: certificates by name, reloaded; what goes wrong; what is counted."""

import asyncio
import os
import shutil
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from prometheus_client import Gauge

from handoff_common.errors import SettingError
from handoff_common.events import ConnectionAccepted, ConnectionClosed
from handoff_relay import IMPLEMENTATIONS
from support.edge_events import customer, request_bytes, service
from support.edge_world import (
    RawClient,
    World,
    agree,
    parse,
    quick,
    soon,
    until,
    world,
)

CA = trustme.CA()
CHAT, OTHER = "chat.example.com", "other.example.net"


def put(folder: Path, name: str, *names: str) -> None:
    certified = CA.issue_cert(*names)
    folder.mkdir(parents=True, exist_ok=True)
    chain = b"".join(blob.bytes() for blob in certified.cert_chain_pems)
    (folder / f"{name}.crt").write_bytes(chain)
    (folder / f"{name}.key").write_bytes(certified.private_key_pem.bytes())


def calling() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    CA.configure_trust(context)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "certificates"
    put(folder, "default", "edge.example.org")
    put(folder, "chat", CHAT)
    # As Kubernetes mounts a secret.
    put(folder / "wild", "tls", "*.example.net")
    return folder


@pytest.fixture(params=list(IMPLEMENTATIONS))
async def w(request: pytest.FixtureRequest, tmp_path: Path, folder: Path) -> AsyncIterator[World]:
    async with secured(tmp_path, folder, relay=quick(request.param)) as w:
        yield w


@asynccontextmanager
async def secured(tmp_path: Path, folder: Path, **more: Any) -> AsyncIterator[World]:
    settings = {"tls_certificates": folder, "edge_tls_port": 0, "tls_interval": 0.02, **more}
    async with world(tmp_path, **settings) as w:
        yield w


async def connect(
    w: World, name: str | None = CHAT, context: ssl.SSLContext | None = None
) -> RawClient:
    """A client behind its TLS handshake. name: None asks for none."""
    context = context or calling()
    if name is None:
        context.check_hostname = False
    opening = asyncio.open_connection(
        "127.0.0.1", w.edge.tls_port, ssl=context, server_hostname=name or ""
    )
    client = RawClient(*await soon(opening))
    w.clients.append(client)
    return client


def refused(w: World, code: str) -> float:
    found = w.edge.metrics.registry.get_sample_value("handoff_edge_refused_total", {"code": code})
    return found or 0


def value_of(gauge: Gauge) -> float:
    [sample] = [sample for family in gauge.collect() for sample in family.samples]
    return sample.value


def certificate_of(client: RawClient) -> list[str]:
    stream = client.writer.get_extra_info("ssl_object")
    certificate = x509.load_der_x509_certificate(stream.getpeercert(binary_form=True))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return names.value.get_values_for_type(x509.DNSName)


async def test_a_connection_by_tls_is_handed_off_counted_and_told(w: World) -> None:
    client = await connect(w)
    assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
    # The first frames come in one record with the head.
    early = b"\x82\x83abcd" + bytes(3)
    await client.send(request_bytes() + early)
    assert (await client.head()).startswith(b"HTTP/1.1 101 ")
    assert await soon(client.reader.readexactly(len(early))) == early
    block = os.urandom(100_000)
    await client.send(block)
    assert await soon(client.reader.readexactly(len(block))) == block
    client.writer.close()
    await until(lambda: not len(w.edge.tunnels))
    assert await w.edge.recorder.flushed(timeout=5)
    accepted, *_, closed = await w.events()
    assert isinstance(accepted, ConnectionAccepted) and isinstance(closed, ConnectionClosed)
    assert accepted.data.tls is True
    counted = closed.data
    # Plaintext; nothing of TLS is billed.
    assert counted.req_body_bytes == counted.bereq_body_bytes == len(block) + len(early)
    assert counted.resp_body_bytes == counted.beresp_body_bytes == len(block) + len(early)


async def test_the_certificate_is_the_names(w: World) -> None:
    for name, expected in (
        (CHAT, [CHAT]),
        ("CHAT.example.com", [CHAT]),
        ("any.example.net", ["*.example.net"]),
        ("edge.example.org", ["edge.example.org"]),
    ):
        client = await connect(w, name)
        assert certificate_of(client) == expected
        client.writer.close()
    for unheard in ("unheard.example.info", "two.deep.example.net", None):
        context = calling()
        context.check_hostname = False
        client = await connect(w, unheard, context)
        assert certificate_of(client) == ["edge.example.org"]
        client.writer.close()


async def test_certificates_are_replaced_without_a_restart(w: World, folder: Path) -> None:
    open_before = await connect(w)
    await open_before.send(request_bytes())
    await open_before.head()
    put(folder, "chat", CHAT, "new.example.com")

    async def served() -> list[str]:
        client = await connect(w)
        client.writer.close()
        return certificate_of(client)

    async with asyncio.timeout(15):
        while await served() != [CHAT, "new.example.com"]:
            await asyncio.sleep(0.02)
    # One that cannot be used changes nothing.
    unusable = w.edge.metrics.certificates_unusable
    (folder / "chat.key").write_bytes(b"no key")
    put(folder, "more", "more.example.com")
    await until(lambda: value_of(unusable) == 1)
    assert await served() == [CHAT, "new.example.com"]
    put(folder, "chat", CHAT, "new.example.com")
    await until(lambda: value_of(unusable) == 0)
    folder.rename(folder.with_name("elsewhere"))
    await until(lambda: value_of(unusable) == 1)
    assert await served() == [CHAT, "new.example.com"]
    await open_before.send(b"still there")
    assert await soon(open_before.reader.readexactly(11)) == b"still there"


async def test_a_refusal_is_read_through_tls(w: World) -> None:
    client = await connect(w)
    await client.send(request_bytes(host="nobody.example.com"))
    status, headers, _ = parse(await client.rest())
    assert (status, headers["x-handoff-error"]) == (421, "unknown_domain")


async def test_a_tls_name_of_another_customer_is_421(w: World, folder: Path) -> None:
    await w.tell(
        service(service_id="two", customer_id="two", domains=(OTHER,)), customer(customer_id="two")
    )
    client = await connect(w, OTHER)
    await client.send(request_bytes(host=CHAT))
    status, headers, _ = parse(await client.rest())
    assert (status, headers["x-handoff-error"]) == (421, "tls_name_mismatch")
    # A name that is nobody's here is the deployment's own.
    client = await connect(w, "edge.example.org")
    await client.send(request_bytes(host=CHAT))
    assert (await client.head()).startswith(b"HTTP/1.1 101 ")


async def test_what_is_no_tls_is_closed_and_counted(w: World) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", w.edge.tls_port)
    writer.write(request_bytes())
    answer = b""
    with suppress(ConnectionError):
        answer = await soon(reader.read())
    assert not answer.startswith(b"HTTP")
    writer.close()
    await until(lambda: refused(w, "tls_failed"))


async def test_a_client_that_closes_before_the_origin_has_answered_owes_nothing(w: World) -> None:
    over = asyncio.Event()

    async def slow(head: bytes) -> bytes:
        await soon(over.wait())
        return agree(head)

    w.origin.answer = slow
    client = await connect(w)
    await client.send(request_bytes())
    await until(lambda: w.origin.connections)
    client.writer.close()
    await until(lambda: refused(w, "client_gone") == 1)
    over.set()
    assert await w.edge.recorder.flushed(timeout=5)
    assert await w.events() == []


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x00\x10abc"], ids=["nothing", "a beginning"])
async def test_clients_that_reset_at_once_leave_nothing_behind(w: World, sent: bytes) -> None:
    # Nothing is awaited in between: they are gone before the edge has accepted them.
    for _ in range(5):
        gone = socket.create_connection(("127.0.0.1", w.edge.tls_port))
        gone.send(sent)
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        gone.close()
    lost = ("tls_failed", "head_incomplete")
    await until(lambda: sum(refused(w, code) for code in lost) == 5)
    for _ in range(8):
        # Each has a descriptor that one of those had.
        client = await connect(w)
        await client.send(request_bytes())
        assert (await client.head()).startswith(b"HTTP/1.1 101 ")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")
async def test_tls_1_1_is_refused(w: World) -> None:
    context = calling()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1_1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await connect(w, context=context)


async def test_a_session_is_resumed(w: World) -> None:
    """A ticket saves the second handshake its certificates."""
    context = calling()

    def talk(session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool]:
        with (
            socket.create_connection(("127.0.0.1", w.edge.tls_port)) as sock,
            context.wrap_socket(sock, server_hostname=CHAT, session=session) as tls,
        ):
            tls.sendall(request_bytes())
            tls.recv(1000)
            return tls.session, bool(tls.session_reused)

    session, first = await asyncio.to_thread(talk, None)
    _, second = await asyncio.to_thread(talk, session)
    assert (first, second) == (False, True)


async def test_a_silent_client_of_the_tls_port_is_let_go(tmp_path: Path, folder: Path) -> None:
    async with secured(tmp_path, folder, head_timeout=0.05) as w:
        reader, writer = await asyncio.open_connection("127.0.0.1", w.edge.tls_port)
        assert await soon(reader.read()) == b""
        writer.close()
        await until(lambda: refused(w, "tls_timeout"))


async def test_draining_says_1001_through_tls(tmp_path: Path, folder: Path) -> None:
    async with secured(tmp_path, folder, drain_grace=0, drain_spread=0) as w:
        client = await connect(w)
        await client.send(request_bytes())
        await client.head()
        stopping = asyncio.create_task(w.edge.stop())
        frame = await soon(client.reader.readexactly(4))
        assert frame[0] == 0x88 and int.from_bytes(frame[2:], "big") == 1001
        client.writer.close()
        await stopping


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda folder: shutil.rmtree(folder), "No such file"),
        (lambda folder: [p.unlink() for p in folder.rglob("*.*")], "no *.crt or *.pem"),
        (lambda folder: (folder / "chat.key").unlink(), "its key is neither"),
        (lambda folder: (folder / "chat.crt").write_text("x"), "no certificate in PEM"),
        (lambda folder: shutil.copy(folder / "wild/tls.key", folder / "chat.key"), "key"),
    ],
)
async def test_a_folder_that_cannot_be_served_is_named(
    tmp_path: Path, folder: Path, spoil: Any, what: str
) -> None:
    spoil(folder)
    with pytest.raises(SettingError, match="HANDOFF_TLS_CERTIFICATES") as raised:
        async with secured(tmp_path, folder):
            pass
    assert what.lower() in str(raised.value).lower()
