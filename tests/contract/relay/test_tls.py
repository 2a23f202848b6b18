"""TLS on either side: plaintext bytes count, and its end closes both."""

import asyncio
import os
import ssl
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from contract.relay.peers import (
    PATIENCE,
    Remote,
    Rig,
    Running,
    Secrets,
    TlsRemote,
    binary,
    close,
    deep_tcp,
    frames,
    roomy_tcp,
    said,
    shake_hands,
    small_tcp,
    tcp,
    text,
    tls,
    until,
    when_ready,
)
from handoff_relay import BodyCounters, CertificateRefused, Messages, RelayLimits, Stream, load_tls

MIB = 1 << 20
sides = pytest.mark.parametrize("secured", ["client", "origin", "both"])


async def start(
    rig: Rig, secrets: Secrets, secured: str, *, limits: RelayLimits | None = None
) -> Running:
    client: tuple[Remote, Stream]
    origin: tuple[Remote, Stream]
    near, far = tcp()
    plain = (Remote(near), far)
    client = origin = plain
    if secured in ("client", "both"):
        client = await tls(rig, secrets, relay_serves=True)
    if secured in ("origin", "both"):
        origin = await tls(rig, secrets, relay_serves=False)
    if secured == "both":
        near.close()
        far.close()
    return rig.join(client, origin, limits=limits)


@sides
async def test_bulk_both_ways_at_once(rig: Rig, secrets: Secrets, secured: str) -> None:
    running = await start(rig, secrets, secured)
    up, down = binary(os.urandom(5 * MIB), mask=True), binary(os.urandom(5 * MIB), mask=False)
    *_, got_up, got_down = await asyncio.gather(
        running.client.send(up),
        running.origin.send(down),
        running.origin.exactly(len(up)),
        running.client.exactly(len(down)),
    )
    assert got_up == up
    assert got_down == down
    expected = BodyCounters(len(up), len(down), len(up), len(down))
    await until(lambda: running.tunnel.counters() == expected)
    assert running.tunnel.messages() == Messages(1, 1)


@sides
async def test_a_slow_reader_loses_nothing(rig: Rig, secrets: Secrets, secured: str) -> None:
    running = await start(rig, secrets, secured)
    stream = binary(os.urandom(16 * MIB), mask=True)
    sending = asyncio.create_task(running.client.send(stream))
    received = bytearray()
    while len(received) < 2 * MIB:
        received += await running.origin.some(20_000)
        counters = running.tunnel.counters()
        assert 0 <= counters.client_received - counters.origin_sent <= 256 * 1024
    received += await running.origin.exactly(len(stream) - len(received))
    assert received == stream
    await sending


async def test_plaintext_that_came_before_the_start_is_not_forgotten(
    rig: Rig, secrets: Secrets
) -> None:
    """One record holds the head and the first frames: the kernel has nothing more to tell of."""
    remote, sock = await tls(rig, secrets, relay_serves=True)
    await remote.send(b"head|" + text(b"early", mask=True))
    assert await when_ready(sock, partial(sock.recv, 5)) == b"head|"
    near, far = tcp()
    running = rig.join((remote, sock), (Remote(near), far))
    early = text(b"early", mask=True)
    assert len(await running.origin.exactly(len(early))) == len(early)
    assert running.tunnel.messages().from_client == 1


@pytest.mark.parametrize("politely", [True, False])
async def test_the_end_of_a_tls_client_closes_both(
    rig: Rig, secrets: Secrets, politely: bool
) -> None:
    running = await start(rig, secrets, "client")
    assert isinstance(running.client, TlsRemote)
    # Unread session tickets would turn its close into a reset.
    await running.origin.send(b"first")
    assert await running.client.exactly(5) == b"first"
    await running.client.send(b"last")
    if politely:
        await running.client.end_tls()
    else:
        running.client.close()
    assert await running.origin.rest() == b"last"
    end = await running.ended()
    assert (end.cause, end.closed_by) == ("client_closed", "client")


async def test_a_reset_under_tls(rig: Rig, secrets: Secrets) -> None:
    running = await start(rig, secrets, "both")
    await running.client.send(b"last")
    assert await running.origin.exactly(4) == b"last"
    running.client.reset()
    assert await running.origin.rest() == b""
    assert (await running.ended()).cause == "client_reset"


async def test_what_was_taken_before_a_reset_is_counted(rig: Rig, secrets: Secrets) -> None:
    client = await tls(rig, secrets, relay_serves=True, wire=small_tcp)
    origin, origin_sock = tcp()
    running = rig.join(client, (Remote(origin), origin_sock))
    sending = asyncio.create_task(running.origin.send(binary(bytes(MIB), mask=False)))
    read = len(await running.client.exactly(16_384))
    running.client.reset()
    end = await running.ended()
    assert end.cause == "client_reset"
    assert read <= end.counters.client_sent <= end.counters.origin_received
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)


@pytest.mark.parametrize("size", [200_000, 1_000_000])
@pytest.mark.parametrize("first", [5_000, 30_000, 60_000])
@pytest.mark.parametrize("way", ["fin", "grace", "grace and fin"])
async def test_what_a_slow_reader_gets_at_the_end_is_counted(
    rig: Rig, secrets: Secrets, way: str, first: int, size: int
) -> None:
    """No record goes out behind the report of the end, and each that went out whole counts; where
    the relay holds next to nothing or much of the stream when the end comes."""
    near, far = tcp()
    client = await tls(rig, secrets, relay_serves=True, wire=roomy_tcp)
    running = rig.join(client, (Remote(near), far))
    stream = binary(os.urandom(size), mask=False)
    sending = asyncio.create_task(running.origin.send(stream))
    sent = -1
    while sent != (sent := running.tunnel.counters().client_sent) or not sent:
        await asyncio.sleep(0.02)
    read = bytearray(await running.client.exactly(first))
    if way == "fin":
        running.client.finish()
    else:
        running.tunnel.end(1001, "drained", "drained")
        assert len(await running.origin.exactly(15)) == 15
        if way == "grace and fin":
            running.client.finish()
        rig.clock.advance(ms=5_010)
    end = await running.ended()
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    # How the end looks is the library's affair: a record may be cut.
    with suppress(ssl.SSLError):
        while part := await running.client.some():
            read += part
    assert stream.startswith(read[: len(stream)])
    assert min(len(read), len(stream)) == end.counters.client_sent


@pytest.mark.parametrize("peer", ["client", "origin"])
@pytest.mark.parametrize("way", ["fin", "reset"])
async def test_the_end_of_the_other_side_costs_a_tls_peer_nothing(
    rig: Rig, secrets: Secrets, peer: str, way: str
) -> None:
    """It reads slowly and goes on sending, as over plain TCP it may."""
    near, far = tcp()
    plain = Remote(near), far
    slow = await tls(rig, secrets, relay_serves=peer == "client", wire=deep_tcp)
    running = rig.join(*((slow, plain) if peer == "client" else (plain, slow)))
    remote, other = slow[0], plain[0]
    data = binary(os.urandom(200_000), mask=peer == "origin")
    await other.send(data)
    await until(lambda: len(data) in running.tunnel.counters())
    await until(lambda: sum(running.tunnel.counters()) == 2 * len(data))
    other.reset() if way == "reset" else other.finish()
    end = await running.ended()
    for _ in range(3):
        await remote.send(text(b"still here", mask=peer == "client"))
        await asyncio.sleep(0.02)
    assert await remote.rest() == data
    assert sum(end.counters) == 2 * len(data)


async def test_a_dead_peer_under_tls(rig: Rig, secrets: Secrets) -> None:
    running = await start(rig, secrets, "client")
    await running.client_sock.expect_dead_after(ms=300)
    sending = asyncio.create_task(running.origin.send(binary(os.urandom(32 * MIB), mask=False)))
    end = await running.ended()
    assert (end.cause, end.closed_by) == ("dead_peer", "client")
    await asyncio.gather(sending, return_exceptions=True)


async def test_a_fin_towards_tls_closes_both(rig: Rig, secrets: Secrets) -> None:
    running = await start(rig, secrets, "origin")
    await running.client.send(b"last")
    running.client.finish()
    # `recv` would raise where the end came without close_notify.
    assert await running.origin.rest() == b"last"
    assert await running.client.rest() == b""
    end = await running.ended()
    assert (end.cause, end.closed_by) == ("client_closed", "client")


async def test_a_fin_behind_a_close_frame_lets_the_tls_side_answer(
    rig: Rig, secrets: Secrets
) -> None:
    running = await start(rig, secrets, "origin")
    bye, answer = close(1000, mask=True), close(1000, mask=False)
    await running.client.send(bye)
    running.client.finish()
    assert await running.origin.exactly(len(bye)) == bye
    await running.origin.send(answer)
    assert isinstance(running.origin, TlsRemote)
    await running.origin.end_tls()
    assert await running.client.rest() == answer
    end = await running.ended()
    assert (end.cause, end.close_code) == ("client_closed", 1000)


async def test_a_close_handshake_and_a_fin_end_tls(rig: Rig, secrets: Secrets) -> None:
    """A client that has closed waits for the server to end the connection."""
    running = await start(rig, secrets, "client")
    bye, answer = close(1000, mask=True), close(1000, mask=False)
    await running.client.send(bye)
    assert await running.origin.exactly(len(bye)) == bye
    await running.origin.send(answer)
    running.origin.finish()
    assert await running.client.rest() == answer
    assert await running.origin.rest() == b""
    assert (await running.ended()).cause == "client_closed"


async def test_a_client_that_answers_the_origins_close_frame_ends_tls(
    rig: Rig, secrets: Secrets
) -> None:
    running = await start(rig, secrets, "client")
    bye, answer = close(1001, mask=False), close(1001, mask=True)
    await running.origin.send(bye)
    running.origin.finish()
    assert await running.client.exactly(len(bye)) == bye
    await running.client.send(answer)
    assert await running.client.rest() == b""
    assert await running.origin.rest() == answer
    end = await running.ended()
    assert (end.cause, end.close_code) == ("origin_closed", 1001)


async def test_a_client_whose_stream_is_no_frames_is_not_waited_for(
    rig: Rig, secrets: Secrets
) -> None:
    """Its answer to the origin's Close frame could not be told from anything else."""
    running = await start(rig, secrets, "client")
    await running.client.send(b"\x89\xff" + bytes(12))
    await running.origin.exactly(14)
    bye = close(1002, mask=False)
    await running.origin.send(bye)
    running.origin.finish()
    assert await running.client.rest() == bye
    assert (await running.ended()).cause == "origin_closed"


@sides
async def test_an_orderly_end(rig: Rig, secrets: Secrets, secured: str) -> None:
    running = await start(rig, secrets, secured)
    running.tunnel.end(1001, "drained", "drained")
    to_client, to_origin = await asyncio.gather(
        running.client.exactly(11), running.origin.exactly(15)
    )
    assert said(frames(to_client, mask=False)[0]) == (1001, "drained")
    assert said(frames(to_origin, mask=True)[0]) == (1001, "drained")
    await asyncio.gather(
        running.client.send(close(1001, mask=True)), running.origin.send(close(1001, mask=False))
    )
    assert (await running.client.rest(), await running.origin.rest()) == (b"", b"")
    end = await running.ended()
    assert (end.cause, end.close_code) == ("drained", 1001)
    assert end.counters == BodyCounters(8, 0, 0, 4)


async def test_pace_holds_for_plaintext(rig: Rig, secrets: Secrets) -> None:
    running = await start(rig, secrets, "both", limits=RelayLimits(bytes_per_second=40_000))
    await running.client.send(bytes(12_000))
    assert len(await running.origin.exactly(10_000)) == 10_000
    await asyncio.sleep(0.05)
    assert running.tunnel.counters().client_received == 10_000
    rig.clock.advance(ms=50)
    await running.origin.exactly(2_000)


async def test_garbage_instead_of_a_record_is_a_reset(rig: Rig, secrets: Secrets) -> None:
    remote, sock = await tls(rig, secrets, relay_serves=True)
    near, far = tcp()
    running = rig.join((remote, sock), (Remote(near), far))
    raw = os.dup(remote.sock.fileno())
    os.write(raw, b"this is no TLS record" * 10)
    os.close(raw)
    assert await running.origin.rest() == b""
    assert (await running.ended()).cause == "client_reset"


def offering(secrets: Secrets, protocols: list[str]) -> Secrets:
    """With a client that offers these by ALPN; none: it offers nothing."""
    calling = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    calling.load_verify_locations(secrets.roots)
    calling.minimum_version = secrets.calling.minimum_version
    calling.maximum_version = secrets.calling.maximum_version
    if protocols:
        calling.set_alpn_protocols(protocols)
    return replace(secrets, calling=calling)


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [
        pytest.param(["h2", "http/1.1"], "http/1.1", id="ours among others"),
        pytest.param(["h2"], None, id="others only"),
        pytest.param([], None, id="none"),
    ],
)
async def test_no_protocol_is_agreed_to_but_http_1_1(
    rig: Rig, secrets: Secrets, offered: list[str], agreed: str | None
) -> None:
    """Who offers others only is not refused: it is told that none was agreed to."""
    remote, stream = await tls(rig, offering(secrets, offered), relay_serves=True)
    assert remote.sock.selected_alpn_protocol() == agreed
    near, far = tcp()
    running = rig.join((remote, stream), (Remote(near), far))
    await running.client.send(b"served")
    assert await running.origin.exactly(6) == b"served"


async def test_without_roots_of_the_system_nobody_is_trusted_but_by_those_given(
    rig: Rig, secrets: Secrets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in an image that has none."""
    (tmp_path / "roots").mkdir()
    (tmp_path / "roots.pem").touch()
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "roots"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "roots.pem"))
    far, near = tcp()
    far.settimeout(PATIENCE)
    near.setblocking(False)
    stream = load_tls(rig.name).client(None).wrap(near, "origin.test")
    wrap = partial(secrets.serving.wrap_socket, far, server_side=True)
    serving = asyncio.create_task(asyncio.to_thread(wrap))
    with pytest.raises(CertificateRefused) as refused:
        await shake_hands(stream)
    assert refused.value.fault == "untrusted"
    stream.close()
    with suppress(ssl.SSLError):
        (await serving).close()
    remote, sock = await tls(rig, secrets, relay_serves=False)
    remote.close()
    sock.close()
