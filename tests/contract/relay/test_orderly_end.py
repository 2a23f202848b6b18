"""`end`: a Close frame to each peer where one may be put, and time to finish."""

import asyncio
import os

import pytest

from contract.relay.peers import (
    Rig,
    binary,
    close,
    frames,
    said,
    small_tcp,
    text,
    until,
)
from handoff_relay import BodyCounters, RelayLimits

MIB = 1 << 20
GONE = (1001, "drained")


async def test_both_peers_are_told_and_answer(rig: Rig) -> None:
    running = rig.tunnel()
    hello = text(b"hello", mask=True)
    await running.client.send(hello)
    assert await running.origin.exactly(len(hello)) == hello
    running.tunnel.end(1012, "the edge restarts", "drained")
    assert not running.ends, "reported from within end"
    to_client, to_origin = await asyncio.gather(
        running.client.exactly(2 + 2 + 17), running.origin.exactly(2 + 4 + 2 + 17)
    )
    assert [said(frame) for frame in frames(to_client, mask=False)] == [(1012, "the edge restarts")]
    assert [said(frame) for frame in frames(to_origin, mask=True)] == [(1012, "the edge restarts")]
    assert not running.ends
    await running.client.send(close(1012, mask=True))
    # Who has answered is not kept waiting for the other.
    assert await running.client.rest() == b""
    assert not running.ends
    await running.origin.send(close(1012, mask=False))
    assert await running.origin.rest() == b""
    end = await running.ended()
    assert (end.cause, end.closed_by, end.close_code) == ("drained", "edge", 1012)
    # The edge's Close frames do not count; the answers came in, and went nowhere.
    assert end.counters == BodyCounters(len(hello) + 8, 0, len(hello), 4)


async def test_a_peer_that_closes_its_socket_has_answered(rig: Rig) -> None:
    running = rig.tunnel()
    running.tunnel.end(*GONE, "disabled")
    running.client.reset()
    assert said(frames(await running.origin.exactly(15), mask=True)[0]) == GONE
    running.origin.close()
    end = await running.ended()
    assert (end.cause, end.closed_by, end.close_code) == ("disabled", "edge", 1001)


async def test_peers_that_do_not_finish_are_closed_after_the_grace(rig: Rig) -> None:
    running = rig.tunnel()
    running.tunnel.end(*GONE, "over_budget")
    running.tunnel.end(1008, "once is enough", "ended_by_operator")
    rig.clock.advance(ms=4_999)
    await asyncio.sleep(0.03)
    assert not running.ends
    rig.clock.advance(ms=11)
    end = await running.ended()
    assert (end.cause, end.close_code) == ("over_budget", 1001)
    assert len(await running.client.rest()) == 11
    assert len(await running.origin.rest()) == 15
    running.tunnel.end(*GONE, "too late")


async def test_the_close_frame_waits_for_the_end_of_the_frame(rig: Rig) -> None:
    running = rig.tunnel()
    up, down = text(b"upwards", mask=True), binary(os.urandom(70_000), mask=False)
    await asyncio.gather(running.client.send(up[:3]), running.origin.send(down[:-1]))
    assert await running.origin.exactly(3) == up[:3]
    assert await running.client.exactly(len(down) - 1) == down[:-1]
    running.tunnel.end(*GONE, "drained")
    # What follows the frame in the same segment comes too late, and is dropped.
    await running.client.send(up[3:] + text(b"dropped", mask=True))
    await running.origin.send(down[-1:] + text(b"dropped as well", mask=False))
    rest_up, rest_down = await asyncio.gather(
        running.origin.exactly(len(up) - 3 + 15), running.client.exactly(1 + 11)
    )
    message, last = frames(up[:3] + rest_up, mask=True)
    assert (message.data, said(last)) == (b"upwards", GONE)
    message, last = frames(down[:-1] + rest_down, mask=False)
    assert (len(message.data), said(last)) == (70_000, GONE)
    await running.client.send(close(1001, mask=True))
    await running.origin.send(close(1001, mask=False))
    assert (await running.origin.rest(), await running.client.rest()) == (b"", b"")
    counters = (await running.ended()).counters
    assert (counters.origin_sent, counters.client_sent) == (len(up), len(down))
    assert counters.client_received == len(up) + 13 + 8
    assert counters.origin_received == len(down) + 17 + 4


async def test_the_close_frame_waits_for_the_rest_of_a_header(rig: Rig) -> None:
    running = rig.tunnel()
    frame = text(b"x" * 126, mask=True)
    await running.client.send(frame[:3])
    assert await running.origin.exactly(3) == frame[:3]
    running.tunnel.end(*GONE, "drained")
    assert said(frames(await running.client.exactly(11), mask=False)[0]) == GONE
    for byte in frame[3:]:
        await running.client.send(bytes((byte,)))
    got = frame[:3] + await running.origin.exactly(len(frame) - 3 + 15)
    message, last = frames(got, mask=True)
    assert (message.data, said(last)) == (b"x" * 126, GONE)


async def test_the_close_frame_may_stand_between_fragments(rig: Rig) -> None:
    running = rig.tunnel()
    part = text(b"to be conti", mask=True, fin=False)
    await running.client.send(part)
    assert await running.origin.exactly(len(part)) == part
    running.tunnel.end(*GONE, "drained")
    assert said(frames(await running.origin.exactly(15), mask=True)[0]) == GONE
    assert running.tunnel.messages().from_client == 0


async def test_the_close_frame_comes_behind_what_is_queued(rig: Rig) -> None:
    running = rig.tunnel(small_tcp)
    stream = b"".join(text(b"%06d" % number + b"." * 1000, mask=True) for number in range(4000))
    sending = asyncio.create_task(running.client.send(stream))
    last = -1
    while (now := sum(running.tunnel.counters())) != last or not now:
        last = now
        await asyncio.sleep(0.05)
    running.tunnel.end(*GONE, "drained")
    # A slow reader gets its own Close at once; the other's stands behind what it has to read.
    assert said(frames(await running.client.exactly(11), mask=False)[0]) == GONE
    received = bytearray()
    while len(received) < running.tunnel.counters().origin_sent + 15:
        received += await running.origin.some(20_000)
    *messages, close_frame = frames(bytes(received), mask=True)
    assert [frame.data[:6] for frame in messages] == [b"%06d" % i for i in range(len(messages))]
    assert said(close_frame) == GONE
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    running.client.close()
    running.origin.close()
    end = await running.ended()
    assert end.counters.origin_sent == len(received) - 15


async def test_no_boundary_within_the_grace_ends_without_a_close_frame(rig: Rig) -> None:
    running = rig.tunnel()
    up, down = text(b"never ends", mask=True)[:-1], text(b"nor this", mask=False)[:-1]
    await asyncio.gather(running.client.send(up), running.origin.send(down))
    await running.origin.exactly(len(up))
    await running.client.exactly(len(down))
    running.tunnel.end(*GONE, "drained")
    await asyncio.sleep(0.03)
    assert not running.ends
    rig.clock.advance(ms=5_010)
    end = await running.ended()
    assert (end.cause, end.closed_by, end.close_code) == ("drained", "edge", None)
    assert (await running.client.rest(), await running.origin.rest()) == (b"", b"")


@pytest.mark.parametrize(
    "noise",
    [
        pytest.param(b"\x82\x7f\xff" + bytes(20), id="length that is none"),
        pytest.param(b"\x89\x7e\x00\x80" + bytes(128), id="long control frame"),
        pytest.param(b"\x09\x00", id="fragmented control frame"),
    ],
)
async def test_invalid_frames_end_without_a_close_frame(rig: Rig, noise: bytes) -> None:
    running = rig.tunnel()
    await asyncio.gather(running.client.send(noise), running.origin.send(noise))
    assert await running.origin.exactly(len(noise)) == noise
    assert await running.client.exactly(len(noise)) == noise
    running.tunnel.end(*GONE, "drained")
    assert (await running.client.rest(), await running.origin.rest()) == (b"", b"")
    end = await running.ended()
    assert (end.cause, end.closed_by, end.close_code) == ("drained", "edge", None)


async def test_only_the_valid_stream_gets_a_close_frame(rig: Rig) -> None:
    running = rig.tunnel()
    await running.client.send(b"\x09\x00")
    assert await running.origin.exactly(2) == b"\x09\x00"
    running.tunnel.end(*GONE, "drained")
    assert said(frames(await running.client.exactly(11), mask=False)[0]) == GONE
    running.client.finish()
    assert await running.origin.rest() == b""
    assert (await running.ended()).close_code == 1001


@pytest.mark.parametrize("peer", ["client", "origin"])
async def test_never_after_a_peers_own_close(rig: Rig, peer: str) -> None:
    """A closing handshake that is under way goes on, undisturbed, and keeps its own cause."""
    running = rig.tunnel()
    mask = peer == "client"
    one, two = running.client, running.origin
    if peer == "origin":
        one, two = two, one
    bye, answer = close(3333, "bye", mask=mask), close(3333, mask=not mask)
    await one.send(bye)
    assert await two.exactly(len(bye)) == bye
    running.tunnel.end(*GONE, "drained")
    await asyncio.sleep(0.03)
    assert not running.ends
    more = text(b"one more", mask=not mask) + answer
    await two.send(more)
    assert await one.rest() == more
    assert await two.rest() == b""
    end = await running.ended()
    assert (end.cause, end.closed_by, end.close_code) == (f"{peer}_closed", peer, 3333)


async def test_a_closing_handshake_whose_first_half_is_over_goes_on(rig: Rig) -> None:
    running = rig.tunnel()
    bye, answer = close(1000, mask=True), close(1000, mask=False)
    await running.client.send(bye)
    running.client.finish()
    assert await running.origin.rest() == bye
    running.tunnel.end(*GONE, "drained")
    await asyncio.sleep(0.03)
    assert not running.ends
    await running.origin.send(answer)
    assert await running.client.rest() == answer
    assert (await running.ended()).cause == "client_closed"


async def test_a_closing_handshake_that_hangs_is_ended_after_the_grace(rig: Rig) -> None:
    running = rig.tunnel()
    bye = close(1000, mask=True)
    await running.client.send(bye)
    assert await running.origin.exactly(len(bye)) == bye
    running.tunnel.end(*GONE, "drained")
    rig.clock.advance(ms=5_010)
    assert (await running.ended()).cause == "client_closed"
    assert (await running.client.rest(), await running.origin.rest()) == (b"", b"")


async def test_an_end_takes_the_place_of_a_mere_fin(rig: Rig) -> None:
    running = rig.tunnel()
    running.client.finish()
    assert await running.origin.rest() == b""
    running.tunnel.end(1008, "no longer", "contract_ended")
    assert said(frames(await running.client.rest(), mask=False)[0]) == (1008, "no longer")
    end = await running.ended()
    assert (end.cause, end.closed_by, end.close_code) == ("contract_ended", "edge", 1008)


async def test_a_reason_is_cut_between_characters(rig: Rig) -> None:
    running = rig.tunnel()
    running.tunnel.end(3000, "é" * 100, "drained")
    (frame,) = frames(await running.client.exactly(2 + 2 + 122), mask=False)
    assert said(frame) == (3000, "é" * 61)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2999, 5000])
async def test_a_code_that_may_not_be_sent_is_refused(rig: Rig, code: int) -> None:
    running = rig.tunnel()
    with pytest.raises(ValueError, match=f"code is {code}; allowed"):
        running.tunnel.end(code, "", "drained")
    await running.client.send(b"unharmed")
    assert await running.origin.exactly(8) == b"unharmed"


async def test_what_still_comes_is_read_so_that_nobody_is_reset(rig: Rig) -> None:
    """A client that keeps sending while it is told to go gets its Close frame all the same."""
    running = rig.tunnel(limits=RelayLimits(bytes_per_second=1_000_000))
    block = text(b"x" * 1000, mask=True)
    await running.client.send(block)
    assert await running.origin.exactly(len(block)) == block
    running.tunnel.end(*GONE, "drained")
    for _ in range(3000):
        await running.client.send(block)
    assert said(frames(await running.client.exactly(11), mask=False)[0]) == GONE
    await running.client.send(close(1001, mask=True))
    running.origin.close()
    assert await running.client.rest() == b""
    counters = (await running.ended()).counters
    assert counters.origin_sent == len(block)
    assert counters.client_received == 3001 * len(block) + 8
    await until(lambda: rig.relay.open_tunnels == 0)
