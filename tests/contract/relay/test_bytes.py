"""What goes in at one end comes out at the other, and is counted."""

import asyncio
import hashlib
import os
import random
import socket
import time
from functools import partial

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
from handoff_relay import IN_FLIGHT_MAX, BodyCounters, Messages, RelayLimits

MIB = 1 << 20


@pytest.mark.parametrize("wire", [tcp, unix])
async def test_messages_pass_unchanged_and_are_counted_to_the_byte(rig: Rig, wire: Wire) -> None:
    running = rig.tunnel(wire)
    asked = text(b"how are you?", mask=True) + binary(os.urandom(MIB), mask=True)
    answered = text(b"fine", mask=False)
    _, got = await asyncio.gather(running.client.send(asked), running.origin.exactly(len(asked)))
    assert got == asked
    await running.origin.send(answered)
    assert await running.client.exactly(len(answered)) == answered
    expected = BodyCounters(len(asked), len(answered), len(asked), len(answered))
    await until(lambda: running.tunnel.counters() == expected)
    assert running.tunnel.messages() == Messages(2, 1)
    running.client.finish()
    assert await running.origin.rest() == b""
    running.origin.close()
    end = await running.ended()
    assert end.counters == expected == running.tunnel.counters()
    assert end.messages == Messages(2, 1) == running.tunnel.messages()


async def test_single_bytes_pass_one_by_one(rig: Rig) -> None:
    running = rig.tunnel()
    stream = text(b"split", mask=True) + close(4001, "all of it", mask=True)
    for byte in stream:
        await running.client.send(bytes((byte,)))
        assert await running.origin.exactly(1) == bytes((byte,))
    assert running.tunnel.messages().from_client == 1
    running.client.finish()
    running.origin.close()
    end = await running.ended()
    assert (end.cause, end.close_code) == ("client_closed", 4001)


async def test_bulk_both_ways_at_once(rig: Rig) -> None:
    running = rig.tunnel()
    block = binary(os.urandom(MIB), mask=False)

    async def flood(remote: Remote) -> str:
        digest = hashlib.sha256()
        for _ in range(50):
            digest.update(block)
            await remote.send(block)
        remote.finish()
        return digest.hexdigest()

    async def drain(remote: Remote) -> str:
        digest = hashlib.sha256()
        while part := await remote.some(1 << 18):
            digest.update(part)
        return digest.hexdigest()

    sent_up, sent_down, got_up, got_down = await asyncio.gather(
        flood(running.client), flood(running.origin), drain(running.origin), drain(running.client)
    )
    assert sent_up == got_up == sent_down == got_down
    end = await running.ended()
    assert set(end.counters) == {50 * len(block)}
    assert end.messages == Messages(50, 50)


@pytest.mark.parametrize("wire", [tcp, small_tcp])
@pytest.mark.parametrize("mask", [True, False], ids=["from the client", "from the origin"])
async def test_frames_of_all_sizes_in_one_stream(rig: Rig, wire: Wire, mask: bool) -> None:
    """A relay may carry the middle of long payloads by another way than what is between them."""
    running = rig.tunnel(wire)
    source, sink = (running.client, running.origin) if mask else (running.origin, running.client)
    chance = random.Random(7)
    sizes = [300_000] * 4 + chance.choices(
        [0, 1, 125, 126, 16_383, 32_755, 32_768, 65_535, 65_536, 65_537, 262_144, 262_159], k=120
    )
    blocks = [binary(chance.randbytes(size), mask=mask) for size in sizes]
    stream = b"".join(blocks)

    async def feed() -> None:
        # Some at once, some one by one, and one in halves: what follows is not always there.
        await source.send(b"".join(blocks[:60]))
        for block in blocks[60:]:
            await source.send(block[: len(block) // 2])
            await source.send(block[len(block) // 2 :])

    _, got = await asyncio.gather(feed(), sink.exactly(len(stream)))
    assert hashlib.sha256(got).digest() == hashlib.sha256(stream).digest()
    sent = Messages(len(blocks), 0) if mask else Messages(0, len(blocks))
    await until(lambda: running.tunnel.messages() == sent)
    moved = (len(stream), 0, len(stream), 0) if mask else (0, len(stream), 0, len(stream))
    await until(lambda: running.tunnel.counters() == moved)


def received(running: Running, floor: int) -> bool:
    return running.tunnel.counters().origin_received > floor


async def test_a_header_is_not_kept_back_for_its_payload(rig: Rig) -> None:
    """Behind much bulk, and once all of it was acknowledged, comes a header alone: the kernel must
    not wait 200 ms for the rest of the packet."""
    running = rig.tunnel(tcp)
    block = binary(bytes(100_000), mask=False)
    waits = []
    for _ in range(5):
        floor = running.tunnel.counters().origin_received + 1_000_000
        sending = asyncio.create_task(running.origin.send(block * 100))
        # It waits in all buffers before it is read, so that the relay gets much at once.
        await until(partial(received, running, floor))
        await running.client.exactly(100 * len(block))
        await sending
        begun = time.perf_counter()
        await running.origin.send(block[:10])
        await running.client.exactly(10)
        waits.append(time.perf_counter() - begun)
        await running.origin.send(block[10:])
        await running.client.exactly(len(block) - 10)
    assert sorted(waits)[2] < 0.15


async def test_early_bytes_go_first_and_count(rig: Rig) -> None:
    running = rig.tunnel(to_origin=b"\x81\x01", to_client=b"\x81\x02h")
    await running.client.send(b"x")
    await running.origin.send(b"i")
    assert await running.origin.exactly(3) == b"\x81\x01x"
    assert await running.client.exactly(4) == b"\x81\x02hi"
    await until(lambda: running.tunnel.counters() == BodyCounters(3, 4, 3, 4))
    assert running.tunnel.messages() == Messages(1, 1)


async def test_early_bytes_of_a_client_that_has_ended_already(rig: Rig) -> None:
    early = text(b"x" * 60_000, mask=True)
    running = rig.tunnel(small_tcp, to_origin=early, client_eof=True)
    assert await running.origin.rest() == early
    await running.origin.send(b"bye")
    running.origin.close()
    assert await running.client.rest() == b"bye"
    assert (await running.ended()).cause == "client_closed"


async def test_early_bytes_beyond_the_bound_leave_the_sockets_to_the_caller(rig: Rig) -> None:
    client, client_sock = tcp()
    with client, client_sock, pytest.raises(ValueError, match="to_origin has 262145 bytes"):
        rig.relay.start(
            client_sock,
            client_sock,
            to_origin=bytes(IN_FLIGHT_MAX + 1),
            limits=RelayLimits(),
            on_end=lambda end: None,
        )
    assert rig.relay.open_tunnels == 0


@pytest.mark.parametrize("wire", [small_tcp, unix])
@pytest.mark.parametrize("towards", ["origin", "client"])
async def test_a_slow_reader_pauses_its_peer(rig: Rig, wire: Wire, towards: str) -> None:
    running = rig.tunnel(wire)
    fast, slow = running.client, running.origin
    if towards == "client":
        fast, slow = slow, fast
    stream = binary(os.urandom(4 * MIB), mask=towards == "origin")
    flood = asyncio.create_task(fast.send(stream))

    def held() -> int:
        read, sent_back, sent, read_back = running.tunnel.counters()
        return read - sent if towards == "origin" else read_back - sent_back

    last = -1
    while (now := sum(running.tunnel.counters())) != last or not now:
        last = now
        assert 0 <= held() <= IN_FLIGHT_MAX
        await asyncio.sleep(0.05)
    assert not flood.done()
    assert held() > 0
    # Nobody waits for the slow one: the other way goes on.
    await slow.send(b"meanwhile")
    assert await fast.exactly(9) == b"meanwhile"
    received = bytearray()
    while len(received) < len(stream):
        received += await slow.some(30_000)
        assert 0 <= held() <= IN_FLIGHT_MAX
    assert received == stream
    await flood


async def test_what_is_no_websocket_stream_passes_all_the_same(rig: Rig) -> None:
    running = rig.tunnel()
    noise = b"\x89\x7f" + os.urandom(3 * MIB)
    _, got = await asyncio.gather(running.client.send(noise), running.origin.exactly(len(noise)))
    assert got == noise
    assert running.tunnel.messages().from_client == 0


async def test_waiting_costs_no_cpu(rig: Rig) -> None:
    """States in which an epoll that is asked for the wrong thing would fire for ever."""
    idle = rig.tunnel()
    half_closed = rig.tunnel()
    half_closed.client.finish()
    reset_while_paused = rig.tunnel(small_tcp)
    stuck = rig.tunnel(small_tcp)
    floods = [
        asyncio.create_task(one.client.send(bytes(MIB))) for one in (reset_while_paused, stuck)
    ]
    await until(lambda: reset_while_paused.tunnel.counters().client_received > 0)
    await asyncio.sleep(0.1)
    floods[0].cancel()
    await asyncio.gather(floods[0], return_exceptions=True)
    reset_while_paused.client.reset()
    assert await half_closed.origin.rest() == b""
    half_closed_both = rig.tunnel(small_tcp)
    half_closed_both.origin.finish()
    assert await half_closed_both.client.rest() == b""
    more = asyncio.create_task(half_closed_both.client.send(bytes(60_000)))
    await asyncio.sleep(0.05)
    before = time.process_time()
    await asyncio.sleep(0.3)
    assert time.process_time() - before < 0.1
    assert not any(one.ends for one in (idle, half_closed, reset_while_paused, stuck))
    for task in (floods[1], more):
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_dead_peers_are_looked_for_and_small_writes_not_held_back(rig: Rig) -> None:
    running = rig.tunnel()
    for taken in (running.client_sock, running.origin_sock):
        await until(partial(taken.option, socket.TCP_USER_TIMEOUT))
        assert taken.option(socket.TCP_USER_TIMEOUT) <= 120_000
        assert taken.option(socket.TCP_NODELAY) == 1
        assert taken.option(socket.SO_KEEPALIVE, socket.SOL_SOCKET) == 1
        idle, interval, probes = (
            taken.option(name)
            for name in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
        assert idle + interval * probes <= 120
