"""Deadlines and pace."""

import asyncio

import pytest

from contract.relay.peers import Rig, close, frames, said, text
from handoff_relay import RelayLimits

QUIET = 0.03
"""Real seconds in which several of the relay's ticks pass, to see that nothing happens."""


async def test_idle_both_ways_ends(rig: Rig) -> None:
    running = rig.tunnel(limits=RelayLimits(idle_ms=60_000))
    for remote, other in ((running.client, running.origin), (running.origin, running.client)):
        rig.clock.advance(ms=59_000)
        await asyncio.sleep(QUIET)
        assert not running.ends
        await remote.send(text(b"", mask=remote is running.client))
        await other.some()
    rig.clock.advance(ms=59_990)
    await asyncio.sleep(QUIET)
    assert not running.ends
    rig.clock.advance(ms=20)
    to_client, to_origin = await asyncio.gather(
        running.client.exactly(2 + 2 + 17), running.origin.exactly(6 + 2 + 17)
    )
    assert said(frames(to_client, mask=False)[0]) == (1001, "idle for too long")
    assert said(frames(to_origin, mask=True)[0]) == (1001, "idle for too long")
    running.client.close()
    running.origin.close()
    end = await running.ended()
    assert (end.cause, end.closed_by, end.close_code) == ("idle_timeout", "edge", 1001)


@pytest.mark.parametrize("peer", ["client", "origin"])
async def test_half_closed_and_silent_ends(rig: Rig, peer: str) -> None:
    running = rig.tunnel()
    one, two = running.client, running.origin
    if peer == "origin":
        one, two = two, one
    # Long silent before: the half-closed time runs from the FIN.
    rig.clock.advance(ms=500_000)
    await asyncio.sleep(QUIET)
    one.finish()
    assert await two.rest() == b""
    for _ in range(3):
        rig.clock.advance(ms=29_000)
        await asyncio.sleep(QUIET)
        await two.send(text(b"", mask=peer == "origin"))
        await one.some()
    assert not running.ends
    rig.clock.advance(ms=30_010)
    end_frame = frames(await one.rest(), mask=peer == "origin")
    assert said(end_frame[0]) == (1001, "the other side has closed")
    end = await running.ended()
    assert (end.cause, end.closed_by, end.close_code) == (f"{peer}_closed", peer, None)


async def test_a_close_frame_that_nobody_answers_ends(rig: Rig) -> None:
    running = rig.tunnel()
    bye = close(1000, mask=True)
    await running.client.send(bye)
    assert await running.origin.exactly(len(bye)) == bye
    rig.clock.advance(ms=30_010)
    await asyncio.sleep(QUIET)
    rig.clock.advance(ms=5_010)
    end = await running.ended()
    assert (end.cause, end.closed_by, end.close_code) == ("client_closed", "client", 1000)


async def test_the_maximum_duration_ends_a_busy_tunnel(rig: Rig) -> None:
    running = rig.tunnel(limits=RelayLimits(max_duration_ms=120_000))
    for _ in range(4):
        rig.clock.advance(ms=29_000)
        await asyncio.sleep(QUIET)
        await running.client.send(text(b"", mask=True))
        await running.origin.exactly(6)
    assert not running.ends
    rig.clock.advance(ms=4_010)
    got = await running.client.exactly(2 + 2 + 24)
    assert said(frames(got, mask=False)[0]) == (1001, "maximum duration reached")
    running.client.close()
    running.origin.close()
    end = await running.ended()
    assert (end.cause, end.closed_by, end.close_code) == ("max_duration", "edge", 1001)


async def test_bytes_per_second_hold_exactly(rig: Rig) -> None:
    running = rig.tunnel(limits=RelayLimits(bytes_per_second=40_000))
    sending = asyncio.create_task(running.client.send(bytes(30_000)))
    passed = 10_000
    await running.origin.exactly(passed)
    for ms, more in ((100, 4_000), (1, 40), (100, 4_000), (60_000, 10_000)):
        # Two of the ticks at which those that wait are looked at.
        await asyncio.sleep(0.05)
        assert running.tunnel.counters().client_received == passed
        rig.clock.advance(ms=ms)
        await running.origin.exactly(more)
        passed += more
    rig.clock.advance(ms=100)
    await running.origin.exactly(30_000 - passed)
    await sending


async def test_tunnels_with_one_pace_key_share_it(rig: Rig) -> None:
    limits = RelayLimits(bytes_per_second=40_000, pace_key="service")
    tunnels = [rig.tunnel(limits=limits) for _ in range(4)]
    sending = [asyncio.create_task(one.client.send(bytes(100_000))) for one in tunnels]

    def passed() -> list[int]:
        return [one.tunnel.counters().client_received for one in tunnels]

    await asyncio.sleep(0.1)
    assert sum(passed()) == 10_000
    for _ in range(20):
        rig.clock.advance(ms=100)
        await asyncio.sleep(0.05)
    assert sum(passed()) == 10_000 + 20 * 4_000
    assert min(passed()) > 15_000, "one was starved"
    for task in sending:
        task.cancel()
    await asyncio.gather(*sending, return_exceptions=True)


async def test_waiting_for_the_pace_is_not_idleness(rig: Rig) -> None:
    running = rig.tunnel(limits=RelayLimits(bytes_per_second=1, idle_ms=100))
    await running.client.send(text(b"", mask=False) * 2)
    assert await running.origin.exactly(1) == b"\x81"
    for byte in (b"\x00", b"\x81"):
        for _ in range(10):
            rig.clock.advance(ms=100)
            await asyncio.sleep(QUIET)
        assert await running.origin.exactly(1) == byte
    assert not running.ends


@pytest.mark.parametrize(
    "name",
    ["idle_ms", "half_closed_ms", "max_duration_ms", "bytes_per_second", "close_grace_ms"],
)
def test_a_limit_below_one_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 0; allowed: 1 or more"):
        RelayLimits(**{name: 0})  # type: ignore[arg-type]
