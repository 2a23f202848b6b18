"""What only the Python relay can be asked."""

import asyncio
import tracemalloc

import pytest

from contract.relay.peers import Rig, binary, small_tcp, text, unix
from handoff_relay import RELAY_FAILED, RelayLimits
from handoff_relay.frames import FrameFollower
from handoff_relay.pair import PairTunnel

pytestmark = pytest.mark.parametrize("rig", ["python"], indirect=True)


async def test_a_fault_of_its_own_ends_one_tunnel_and_no_other(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = FrameFollower.feed

    def faulty(self: FrameFollower, buffer: bytes, start: int, end: int) -> None:
        if buffer[start] == 0x99:
            raise RuntimeError("a fault")
        feed(self, buffer, start, end)

    one, two = rig.tunnel(), rig.tunnel()
    monkeypatch.setattr(FrameFollower, "feed", faulty)
    await one.client.send(b"\x99")
    end = await one.ended()
    assert (end.cause, end.closed_by, end.close_code) == (RELAY_FAILED, "edge", None)
    assert [str(context["exception"]) for context in rig.complaints] == ["a fault"]
    rig.complaints.clear()
    await two.client.send(text(b"unharmed", mask=True))
    await two.origin.exactly(14)


async def test_an_idle_tunnel_is_small(rig: Rig) -> None:
    limits = RelayLimits()
    pairs = [(unix(), unix()) for _ in range(100)]
    rig.tunnel(unix)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for (_, client), (_, origin) in pairs:
            rig.relay.start(client, origin, limits=limits, on_end=lambda end: None)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    await rig.relay.close()
    for (client, _), (origin, _) in pairs:
        client.close()
        origin.close()
    assert (after - before) / len(pairs) < 2000


async def test_what_a_slow_reader_has_taken_is_given_back(rig: Rig) -> None:
    running = rig.tunnel(small_tcp, to_origin=binary(bytes(240_000), mask=True))
    tunnel = running.tunnel
    assert isinstance(tunnel, PairTunnel)
    most = rig.relay.buffered_bytes()
    assert most > 150_000
    while (left := rig.relay.buffered_bytes()) > 0:
        queue = tunnel.origin.queue
        assert queue is not None and isinstance(queue.obj, bytes)
        assert len(queue.obj) <= max(2 * left, left + 16 * 1024)
        await running.origin.some(4_000)
        await asyncio.sleep(0)
    running.client.close()
    assert len(await running.origin.rest()) > 0
