"""What an edge does whose relay's own thread ends by a fault."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from handoff_common.events import ConnectionClosed, Reason
from handoff_common.service import LoopEnded
from handoff_relay import IMPLEMENTATIONS
from support.edge_world import quick, until, world

pytestmark = pytest.mark.skipif("native" not in IMPLEMENTATIONS, reason="it was not built")
FRAME = b"\x81\x85\x01\x02\x03\x04ieoha"


def epolls() -> set[int]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            if "eventpoll" in os.readlink(f"/proc/self/fd/{name}"):
                found.add(int(name))
        except OSError:
            continue
    return found


def break_epoll(descriptor: int) -> None:
    """The next wait of whoever waits with it fails."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, descriptor, inheritable=False)
    os.close(null)


async def test_every_connection_is_closed_and_the_process_ends(tmp_path: Path) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _loop, context: complaints.append(context)
    )
    before = epolls()
    with pytest.raises(LoopEnded, match=r"loop edge-relay ended: .*the relay has ended"):
        async with world(tmp_path, relay=quick("native")) as w:
            clients = [await w.open() for _ in range(3)]
            for client in clients:
                await client.send(FRAME)
                assert await client.exactly(7)
            await until(lambda: all(each.counters().resp_body_bytes for each in w.edge.tunnels))
            for each in w.edge.tunnels:
                w.edge.tunnels.checkpoint(each)
            assert not w.edge.not_ready()
            (relays,) = epolls() - before
            break_epoll(relays)
            await clients[0].send(FRAME)
            await until(lambda: not len(w.edge.tunnels), "every connection has ended")
            assert "the relay has ended" in w.edge.not_ready()
            assert await w.edge.tunnels.wait_empty(timeout=1)
            assert await w.edge.recorder.flushed(timeout=5)
            ends = [event.data for event in await w.events() if isinstance(event, ConnectionClosed)]
            assert {(end.reason, end.closed_by) for end in ends} == {(Reason.EDGE_CRASHED, "lost")}
            assert sorted(end.req_body_bytes for end in ends) == [11, 11, 22]
            assert w.edge.counts.counts(ends[0].service_id, 0).open == 0
    assert [context["message"] for context in complaints] == ["the relay's thread ended"]
