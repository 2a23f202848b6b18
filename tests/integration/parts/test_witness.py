"""The witness counts what went over the wire, and its file holds every attempt."""

import asyncio
import json
from pathlib import Path

from websockets.asyncio.server import ServerConnection, serve

from support.parts.processes import free_port
from support.parts.proxy import Proxy
from support.parts.waiting import eventually
from support.witness import Load


async def test_every_byte_each_way_is_in_the_file(tmp_path: Path) -> None:
    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async with (
        serve(echo, "127.0.0.1", 0, ping_interval=None) as server,
        # A second opinion: the proxy counts the same bytes without knowing what they are.
        Proxy(server.sockets[0].getsockname()[1]) as proxy,
    ):
        load = Load(proxy.port, "chat.example.com")
        await load.open(3, talk=0.01)

        async def talked() -> bool | None:
            return all(seen.wire.received > 1_000 for seen in load.seen) or None

        await eventually(talked, "all have talked")
        await load.close_all()

        async def none() -> bool | None:
            return proxy.connections == 0 or None

        await eventually(none, "the proxy has seen the ends")
        file = tmp_path / "witness.jsonl"
        load.write(file)
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        sent = sum(line["sent_head"] + line["sent_bytes"] for line in lines)
        received = sum(line["received_head"] + line["received_bytes"] for line in lines)
        assert (sent, received) == (proxy.to_upstream.carried, proxy.to_client.carried)
        assert all(line["close_code"] == 1000 for line in lines)
        for line in lines:
            assert line["opening_ns"] <= line["opened_ns"] <= line["ended_ns"]
            wall = line["ended_ns"] - line["opened_ns"]
            assert abs(line["duration_ns"] - wall) < 50_000_000


async def test_a_refused_attempt_is_in_the_file(tmp_path: Path) -> None:
    load = Load(free_port(), "chat.example.com")
    await asyncio.wait_for(load.open(2), 20)
    file = tmp_path / "witness.jsonl"
    load.write(file)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["refused"] for line in lines] == [True, True]
