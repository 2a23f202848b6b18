"""What only the Python relay can be asked."""

import tracemalloc

import pytest

from contract.relay.peers import Rig, text, unix
from handoff_relay import RELAY_FAILED, RelayLimits
from handoff_relay.frames import FrameFollower

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
