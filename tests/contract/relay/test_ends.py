"""How a tunnel ends when its peers end it: FIN, RST, silence; and that each end is told once."""

import asyncio
import gc
import os
import random
import weakref

import pytest

from contract.relay.peers import (
    Remote,
    Rig,
    Running,
    Wire,
    binary,
    close,
    small_tcp,
    tcp,
    text,
    unix,
    until,
)
from handoff_relay import IMPLEMENTATIONS, RelayLimits, active, load

MIB = 1 << 20


def swap(running: Running, peer: str) -> Running:
    """Seen from that peer, so that one test serves both: `client` is then the one named."""
    if peer == "client":
        return running
    return Running(
        running.origin,
        running.client,
        running.origin_sock,
        running.client_sock,
        running.tunnel,
        running.ends,
    )


def block(size: int, masked: bool) -> bytes:
    """Bytes that cannot be mixed up, and whose frame bears no Close by chance."""
    return binary(os.urandom(size), mask=masked)


peers = pytest.mark.parametrize("peer", ["client", "origin"])


@peers
@pytest.mark.parametrize("wire", [tcp, unix])
async def test_one_sides_end_lets_the_other_finish(rig: Rig, peer: str, wire: Wire) -> None:
    running = rig.tunnel(wire)
    side = swap(running, peer)
    await side.client.send(b"all I have to say")
    side.client.finish()
    assert await side.origin.rest() == b"all I have to say"
    answer = block(2 * MIB, peer != "client")
    sending = asyncio.create_task(side.origin.send(answer))
    assert await side.client.exactly(len(answer)) == answer
    await sending
    assert not running.ends
    side.origin.finish()
    assert await side.client.rest() == b""
    end = await running.ended()
    assert (end.cause, end.closed_by, end.close_code) == (f"{peer}_closed", peer, None)


@peers
async def test_an_end_is_passed_on_behind_what_is_queued(rig: Rig, peer: str) -> None:
    side = swap(rig.tunnel(small_tcp), peer)
    stream = block(MIB, peer == "client")
    sending = asyncio.create_task(side.client.send(stream))
    await asyncio.sleep(0.05)
    received = bytearray(await side.origin.exactly(len(stream) // 2))
    received += await side.origin.exactly(len(stream) - len(received) - 50_000)
    await sending
    side.client.finish()
    received += await side.origin.rest()
    assert received == stream
    side.origin.close()
    assert (await side.ended()).cause == f"{peer}_closed"


@peers
async def test_a_closing_handshake_names_the_first_to_say_close(rig: Rig, peer: str) -> None:
    running = rig.tunnel()
    side = swap(running, peer)
    mask = peer == "client"
    first, second = close(4000, "enough", mask=mask), close(4000, "", mask=not mask)
    await side.client.send(first)
    assert await side.origin.exactly(len(first)) == first
    await side.origin.send(second)
    running.origin.finish()
    assert await side.client.exactly(len(second)) == second
    running.client.finish()
    end = await running.ended()
    assert (end.cause, end.closed_by, end.close_code) == (f"{peer}_closed", peer, 4000)


async def test_a_close_frame_without_a_code_is_1005(rig: Rig) -> None:
    running = rig.tunnel()
    await running.client.send(b"\x88\x80abcd")
    running.client.finish()
    running.origin.close()
    assert (await running.ended()).close_code == 1005


@peers
async def test_a_reset_ends_both(rig: Rig, peer: str) -> None:
    running = rig.tunnel()
    side = swap(running, peer)
    await side.client.send(b"last words")
    assert await side.origin.exactly(10) == b"last words"
    side.client.reset()
    assert await side.origin.rest() == b""
    end = await running.ended()
    assert (end.cause, end.closed_by, end.close_code) == (f"{peer}_reset", peer, None)


@peers
async def test_after_a_reset_the_other_still_gets_what_was_queued(rig: Rig, peer: str) -> None:
    running = rig.tunnel(small_tcp)
    side = swap(running, peer)
    stream = block(4 * MIB, peer == "client")
    sending = asyncio.create_task(side.client.send(stream))
    last = -1
    while (now := sum(running.tunnel.counters())) != last or not now:
        last = now
        await asyncio.sleep(0.05)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    side.client.reset()
    # The other keeps sending, to nobody: that must not cost it what it has not read yet.
    await side.origin.send(b"are you there?" * 100)
    read = bytearray()
    while part := await side.origin.some(10_000):
        read += part
    end = await running.ended()
    received = end.counters[0] if peer == "client" else end.counters[3]
    delivered = end.counters[2] if peer == "client" else end.counters[1]
    assert stream.startswith(read)
    assert len(read) == delivered == received >= last // 2
    assert end.cause == f"{peer}_reset"


@peers
async def test_a_reset_by_a_reader_who_is_behind_ends_at_once(rig: Rig, peer: str) -> None:
    running = rig.tunnel(small_tcp)
    side = swap(running, peer)
    sending = asyncio.create_task(side.origin.send(block(4 * MIB, peer != "client")))
    await until(lambda: sum(running.tunnel.counters()) > 0)
    await asyncio.sleep(0.05)
    side.client.reset()
    assert (await running.ended()).cause == f"{peer}_reset"
    await asyncio.gather(sending, return_exceptions=True)


async def test_a_close_frame_behind_which_the_client_resets_is_its_close(rig: Rig) -> None:
    running = rig.tunnel()
    bye = close(1001, "tab closed", mask=True)
    await running.client.send(bye)
    assert await running.origin.exactly(len(bye)) == bye
    running.client.reset()
    assert await running.origin.rest() == b""
    end = await running.ended()
    assert (end.cause, end.closed_by, end.close_code) == ("client_closed", "client", 1001)


async def test_a_close_frame_that_is_unread_when_sending_fails_is_still_seen(rig: Rig) -> None:
    """The client says Close and is gone; what the origin sends meets a reset, but the client's
    last bytes are there to be read, and are passed on."""
    running = rig.tunnel()
    bye = close(1000, "done", mask=True)
    await running.client.send(bye)
    await running.origin.send(text(b"x" * 50_000, mask=False))
    running.client.reset()
    assert await running.origin.rest() == bye
    end = await running.ended()
    assert end.cause in ("client_closed", "client_reset")


@peers
async def test_a_peer_that_acknowledges_nothing_is_dead(rig: Rig, peer: str) -> None:
    running = rig.tunnel(small_tcp)
    side = swap(running, peer)
    # A window that stays shut is the silence that can be had without cutting a wire.
    await side.client_sock.expect_dead_after(ms=300)
    sending = asyncio.create_task(side.origin.send(block(4 * MIB, peer != "client")))
    end = await running.ended()
    assert (end.cause, end.closed_by) == ("dead_peer", peer)
    await asyncio.gather(sending, return_exceptions=True)


async def test_a_socket_that_was_reset_before_the_start_is_reported_as_ever(rig: Rig) -> None:
    (client, client_sock), (origin, origin_sock) = tcp(), tcp()
    gone = Remote(client)
    gone.reset()
    running = rig.join((gone, client_sock), (Remote(origin), origin_sock))
    assert (await running.ended()).cause == "client_reset"


async def test_a_tunnel_that_nobody_holds_lives_and_reports(rig: Rig) -> None:
    running = rig.tunnel()
    running.tunnel = None  # type: ignore[assignment]
    gc.collect()
    await running.client.send(b"still there?")
    assert await running.origin.exactly(12) == b"still there?"
    running.client.close()
    running.origin.close()
    assert (await running.ended()).cause in ("client_closed", "origin_closed")


async def test_an_ended_tunnel_leaves_nothing_for_the_garbage_collector(rig: Rig) -> None:
    (client, client_sock), (origin, origin_sock) = tcp(), tcp()
    running = rig.join((Remote(client), client_sock), (Remote(origin), origin_sock))
    sock = weakref.ref(client_sock)
    gc.collect()
    gc.disable()
    try:
        running.client.close()
        running.origin.close()
        await running.ended()
        del running, client_sock
        assert sock() is None
    finally:
        gc.enable()


async def test_closing_the_relay_reports_every_tunnel(rig: Rig) -> None:
    idle, paused, half, ended = (rig.tunnel(small_tcp) for _ in range(4))
    sending = asyncio.create_task(paused.client.send(bytes(4 * MIB)))
    half.client.finish()
    ended.client.reset()
    ended.origin.close()
    await ended.ended()
    assert rig.relay.open_tunnels == 3
    await asyncio.gather(rig.relay.close(cause="drained"), rig.relay.close())
    for running in (idle, paused, half):
        assert [(end.cause, end.closed_by) for end in running.ends] == [("drained", "edge")]
    assert ended.ends[0].cause == "client_reset"
    await asyncio.gather(sending, return_exceptions=True)
    one, two = tcp()
    with one, two, pytest.raises(RuntimeError, match="the relay is closed"):
        rig.relay.start(one, two, limits=RelayLimits(), on_end=lambda end: None)


async def test_a_callback_that_fails_harms_nobody_else(rig: Rig) -> None:
    one, two = rig.tunnel(), rig.tunnel()

    def fail(end: object) -> None:
        raise RuntimeError("the caller's own fault")

    client, client_sock = tcp()
    origin, origin_sock = tcp()
    rig.relay.start(client_sock, origin_sock, limits=RelayLimits(), on_end=fail)
    for sock in (client, origin, one.client, two.client):
        sock.close()
    one.origin.close()
    two.origin.close()
    await one.ended()
    await two.ended()
    await until(lambda: rig.relay.open_tunnels == 0)
    assert [str(context["exception"]) for context in rig.complaints] == ["the caller's own fault"]
    rig.complaints.clear()


async def test_hundreds_of_tunnels_that_come_and_go(rig: Rig) -> None:
    """Every byte that arrives is the right one; every end is told once; nothing is left open."""
    chance = random.Random(7)
    places = asyncio.Semaphore(100)

    async def talk(running: Running) -> None:
        for _ in range(chance.randrange(4)):
            message = text(chance.randbytes(chance.choice((1, 200, 20_000))), mask=True)
            answer = text(chance.randbytes(300), mask=False)
            await running.client.send(message)
            assert await running.origin.exactly(len(message)) == message
            await running.origin.send(answer)
            assert await running.client.exactly(len(answer)) == answer

    async def one() -> None:
        async with places:
            running = rig.tunnel(chance.choice((tcp, unix)))
            await talk(running)
            expected = running.tunnel.counters()
            match chance.choice(("client fin", "origin fin", "client rst", "origin rst", "end")):
                case "end":
                    running.tunnel.end(1001, "go", "drained")
                    for remote in (running.client, running.origin):
                        remote.finish()
                        assert len(await remote.rest()) == (4 + (remote is running.origin) * 4 + 2)
                case way:
                    one, two = running.client, running.origin
                    if way.startswith("origin"):
                        one, two = two, one
                    one.reset() if way.endswith("rst") else one.finish()
                    assert await two.rest() == b""
            running.client.close()
            running.origin.close()
            assert (await running.ended()).counters == expected

    await asyncio.gather(*(one() for _ in range(500)))
    assert rig.relay.open_tunnels == 0


async def test_tunnels_that_are_cut_in_full_flow(rig: Rig) -> None:
    """Whatever cuts it, what was read is the start of what was sent, and counted exactly."""
    chance = random.Random(11)
    places = asyncio.Semaphore(20)
    streams = {mask: block(300_000, mask) * 4 for mask in (True, False)}

    async def read(remote: Remote, expected: bytes) -> int:
        """How many bytes came, up to an orderly end or a reset."""
        received = bytearray()
        try:
            while part := await remote.some(chance.choice((3_000, 100_000))):
                received += part
        except OSError:
            return -1
        assert expected.startswith(received)
        return len(received)

    async def one() -> None:
        async with places:
            running = rig.tunnel(chance.choice((tcp, small_tcp, unix)))
            client, origin = running.client, running.origin
            cutter, other = chance.sample((client, origin), 2)
            sending = [
                asyncio.create_task(client.send(streams[True])),
                asyncio.create_task(origin.send(streams[False])),
            ]
            reading = asyncio.create_task(read(other, streams[other is origin]))
            limit = chance.randrange(600_000)
            while limit > 0:
                limit -= len(await cutter.some(50_000))
            if chance.random() < 0.5:
                sending[cutter is origin].cancel()
                await asyncio.gather(sending[cutter is origin], return_exceptions=True)
                cutter.reset()
                sending[other is origin].cancel()
                count = await reading
                end = await running.ended()
                assert end.closed_by == ("client" if cutter is client else "origin")
            else:
                cutting = asyncio.create_task(read(cutter, b""))
                cutting.cancel()
                for task in sending:
                    task.cancel()
                await asyncio.gather(*sending, cutting, return_exceptions=True)
                cutter.finish()
                count = await reading
                other.close()
                cutter.close()
                end = await running.ended()
            delivered = end.counters[2] if other is origin else end.counters[1]
            taken = end.counters[0] if other is origin else end.counters[3]
            assert count == delivered == taken
            await asyncio.gather(*sending, return_exceptions=True)

    await asyncio.gather(*(one() for _ in range(100)))


def test_the_active_relay_is_one_of_those_there_are() -> None:
    assert active in IMPLEMENTATIONS
    assert load() is IMPLEMENTATIONS[active].relay
    with pytest.raises(ValueError, match=r"relay is 'carrier'; allowed: .*python"):
        load("carrier")
