"""The origin's side: whom the edge trusts, what it takes for an agreement, what it passes on."""

import asyncio
import datetime
import errno
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from handoff_edge.errors import STATUS
from support.edge_events import request_bytes
from support.edge_world import Origin, World, agree, until, world

PAST = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
NAME = "origin.test"


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def extra_ca(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


def server(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def self_signed(tmp_path: Path) -> ssl.SSLContext:
    """A certificate that signs itself, as `openssl req -x509` makes one."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "self.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


async def to_loopback(host: str, port: int) -> Sequence[Any]:
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]


async def code(w: World) -> str:
    status, headers, body = await w.ask(request_bytes())
    found = headers["x-handoff-error"]
    assert status == STATUS[found]
    assert body.strip()
    return found


def over_tls(context: ssl.SSLContext, **more: Any) -> dict[str, Any]:
    backend = {"address": NAME, "use_ssl": True}
    return {"origin_tls": context, "backend": backend, "look_up": to_loopback, **more}


async def test_a_verified_origin_is_relayed_to_over_tls(
    tmp_path: Path, authority: trustme.CA, extra_ca: Path
) -> None:
    names: list[str | None] = []
    context = server(authority.issue_cert(NAME))
    context.sni_callback = lambda _sock, name, _context: names.append(name)
    async with world(tmp_path, **over_tls(context, extra_ca=extra_ca)) as w:
        client = await w.open()
        data = bytes(range(256)) * 2000
        sending = asyncio.create_task(client.send(data))
        assert await client.exactly(len(data)) == data
        await sending
        assert names == [NAME]
        assert w.origin.visits[0].head.startswith(b"GET / HTTP/1.1\r\nHost: chat.example.com\r\n")


async def test_a_self_signed_origin_is_refused_with_its_own_code(tmp_path: Path) -> None:
    async with world(tmp_path, **over_tls(self_signed(tmp_path))) as w:
        assert await code(w) == "origin_tls_self_signed"
        assert w.origin.visits == []


async def test_an_unknown_authority_is_refused(tmp_path: Path, authority: trustme.CA) -> None:
    async with world(tmp_path, **over_tls(server(authority.issue_cert(NAME)))) as w:
        assert await code(w) == "origin_tls_untrusted"


async def test_another_name_is_refused(
    tmp_path: Path, authority: trustme.CA, extra_ca: Path
) -> None:
    context = server(authority.issue_cert("other.test"))
    async with world(tmp_path, **over_tls(context, extra_ca=extra_ca)) as w:
        assert await code(w) == "origin_tls_name"


async def test_an_expired_certificate_is_refused(
    tmp_path: Path, authority: trustme.CA, extra_ca: Path
) -> None:
    context = server(authority.issue_cert(NAME, not_after=PAST))
    async with world(tmp_path, **over_tls(context, extra_ca=extra_ca)) as w:
        assert await code(w) == "origin_tls_expired"


async def test_an_origin_that_speaks_no_tls(tmp_path: Path) -> None:
    backend = {"address": NAME, "use_ssl": True}
    async with world(
        tmp_path,
        origin=Origin(),
        backend=backend,
        look_up=to_loopback,
        connect_timeout=0.3,
    ) as w:
        assert await code(w) in ("origin_tls_failed", "origin_tls_timeout")
        assert w.origin.visits == []


async def test_addresses_are_judged_after_the_look_up(tmp_path: Path) -> None:
    async with world(
        tmp_path, allow_private_origins=False, backend={"address": NAME}, look_up=to_loopback
    ) as w:
        assert await code(w) == "origin_address_refused"
    (tmp_path / "literal").mkdir()
    async with world(tmp_path / "literal", allow_private_origins=False) as w:
        assert await code(w) == "origin_address_refused"
        assert w.origin.connections == 0


async def test_the_edge_is_no_origin_of_its_own(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with world(tmp_path, edge_port=port, backend={"port": port}) as w:
        assert await code(w) == "origin_address_refused"


async def test_an_origin_that_is_not_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with world(tmp_path, backend={"port": port}) as w:
        assert await code(w) == "origin_unreachable"


async def test_a_name_that_cannot_be_looked_up(tmp_path: Path) -> None:
    asked = []

    async def failing(host: str, port: int) -> Sequence[Any]:
        asked.append(host)
        raise socket.gaierror("no such name")

    async with world(tmp_path, backend={"address": NAME}, look_up=failing) as w:
        assert await code(w) == "origin_lookup_failed"
        assert await code(w) == "origin_lookup_failed"
        assert asked == [NAME]


async def test_a_look_up_without_descriptors_says_nothing_of_the_name(tmp_path: Path) -> None:
    busy = True

    async def look_up(host: str, port: int) -> Sequence[Any]:
        if busy:
            raise OSError(errno.EMFILE, "Too many open files")
        return await to_loopback(host, port)

    async with world(tmp_path, backend={"address": NAME}, look_up=look_up) as w:
        assert await code(w) == "busy"
        busy = False
        await w.open()


@contextmanager
def full_listener() -> Iterator[int]:
    """Its port: the kernel drops who would connect there, since nobody accepts those before."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@pytest.mark.parametrize("addresses", [1, 2])
async def test_an_origin_that_does_not_answer_a_connect_is_a_time_out(
    tmp_path: Path, addresses: int
) -> None:
    with full_listener() as port:

        async def found(host: str, _: int) -> Sequence[Any]:
            place = (
                socket.AF_INET,
                socket.SOCK_STREAM,
                socket.IPPROTO_TCP,
                "",
                ("127.0.0.1", port),
            )
            return [place] * addresses

        async with world(
            tmp_path, backend={"address": NAME}, look_up=found, connect_timeout=0.2
        ) as w:
            assert await code(w) == "origin_timeout"
            assert w.origin.connections == 0


async def test_a_slow_name_server_holds_up_only_its_own_service(tmp_path: Path) -> None:
    async def never(host: str, port: int) -> Sequence[Any]:
        await asyncio.sleep(3600)
        return []

    async with world(tmp_path, backend={"address": NAME}, look_up=never, connect_timeout=0.05) as w:
        assert await code(w) == "origin_timeout"


async def test_an_origin_that_does_not_answer(tmp_path: Path) -> None:
    async def never(_: bytes) -> bytes:
        await asyncio.sleep(3600)
        return b""

    async with world(tmp_path, origin=Origin(never), answer_timeout=0.05) as w:
        assert await code(w) == "origin_answer_timeout"


async def test_an_origin_that_closes_without_an_answer(tmp_path: Path) -> None:
    origin = Origin(lambda _: b"")
    origin.close_after_answer = True
    async with world(tmp_path, origin=origin) as w:
        assert await code(w) == "origin_closed"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda head: agree(head).replace(b"Accept: ", b"Accept: x"), "origin_bad_accept"),
        (lambda head: agree(head, "Sec-WebSocket-Protocol: v9"), "origin_bad_subprotocol"),
        (lambda head: agree(head, "Sec-WebSocket-Extensions: foo"), "origin_bad_extension"),
        (lambda head: agree(head).replace(b"websocket", b"h2c"), "origin_bad_upgrade"),
        (lambda head: b"nonsense\r\n\r\n", "origin_invalid_answer"),
    ],
)
async def test_a_bad_101_is_502_and_no_connection(
    tmp_path: Path, answer: Any, expected: str
) -> None:
    async with world(tmp_path, origin=Origin(answer)) as w:
        assert await code(w) == expected
        assert await w.events() == []
        await until(lambda: w.origin.visits[0].ended)


CHUNKED = b"HTTP/1.1 401 X\r\ntransfer-encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nT: x\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "passed", "closes"),
    [
        (b"HTTP/1.1 403 Nope\r\nX-oDd:  y \r\nContent-Length: 2\r\n\r\nno", None, False),
        (b"HTTP/1.1 403 Nope\r\nContent-Length: 2\r\n\r\nnoHTTP/1.1 200", -12, False),
        (CHUNKED, None, False),
        (CHUNKED + b"HTTP/1.1 200 OK\r\n\r\n", -19, False),
        (b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\nuntil the end", None, True),
        (b"HTTP/1.0 404 Not Found\r\n\r\ngone", None, True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", None, False),
    ],
)
async def test_any_other_answer_is_passed_on_unchanged_up_to_its_end(
    tmp_path: Path, answer: bytes, passed: int | None, closes: bool
) -> None:
    origin = Origin(lambda _: b"HTTP/1.1 103 Early Hints\r\n\r\n" + answer)
    origin.close_after_answer = closes
    async with world(tmp_path, origin=origin) as w:
        client = await w.connect()
        await client.send(request_bytes())
        assert await client.rest() == answer[:passed]
        assert await w.events() == []
        assert w.edge.metrics.refused.labels("origin_declined")._value.get() == 1


async def test_a_passed_on_answer_is_bounded(tmp_path: Path) -> None:
    head = b"HTTP/1.1 500 X\r\nContent-Length: 5000000\r\n\r\n"
    async with world(tmp_path, origin=Origin(lambda _: head + b"x" * 5_000_000)) as w:
        client = await w.connect()
        await client.send(request_bytes())
        assert len(await client.rest()) == 1024 * 1024
