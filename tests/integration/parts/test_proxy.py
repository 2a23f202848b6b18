"""The proxy passes bytes unchanged and does on command what a bad network does."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from support.parts.proxy import CHUNK, Proxy
from support.parts.waiting import eventually


@pytest.fixture
async def echo() -> AsyncIterator[int]:
    """A server that sends back what it hears, and ends when the other side has; its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.fixture
async def proxy(echo: int) -> AsyncIterator[Proxy]:
    async with Proxy(echo) as proxy:
        yield proxy


class Client:
    """One connection through the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, proxy: Proxy) -> "Client":
        return cls(*await asyncio.open_connection("127.0.0.1", proxy.port))

    async def ask(self, data: bytes, *, seconds: float = 10.0) -> bytes:
        self.writer.write(data)
        return await asyncio.wait_for(self.reader.readexactly(len(data)), seconds)


async def test_bytes_and_ends_pass_unchanged(proxy: Proxy) -> None:
    client = await Client.open(proxy)
    data = bytes(range(256)) * 8_192
    assert await client.ask(data) == data
    client.writer.write_eof()
    assert await client.reader.read() == b""
    client.writer.close()

    async def none() -> bool | None:
        return proxy.connections == 0 or None

    await eventually(none, "the connection is over in the proxy")
    assert proxy.to_upstream.carried == proxy.to_client.carried == len(data)


async def test_a_cut_resets_open_and_new_connections_until_restored(proxy: Proxy) -> None:
    client = await Client.open(proxy)
    assert await client.ask(b"before") == b"before"
    await proxy.cut()
    with pytest.raises(ConnectionResetError):
        await client.reader.read()
    with pytest.raises(OSError):
        late = await Client.open(proxy)
        await late.ask(b"x")
        raise AssertionError("answered while cut")
    proxy.restore()
    again = await Client.open(proxy)
    assert await again.ask(b"after") == b"after"
    again.writer.close()
    assert proxy.accepted >= 3


async def test_a_black_hole_tells_nobody_and_heals(proxy: Proxy) -> None:
    client = await Client.open(proxy)
    assert await client.ask(b"before") == b"before"
    proxy.blackhole()
    with pytest.raises(TimeoutError):
        await client.ask(b"held", seconds=0.3)
    late = await Client.open(proxy)
    with pytest.raises(TimeoutError):
        await late.ask(b"late", seconds=0.3)
    proxy.restore()
    assert await asyncio.wait_for(client.reader.readexactly(4), 10) == b"held"
    assert await asyncio.wait_for(late.reader.readexactly(4), 10) == b"late"
    client.writer.close()
    late.writer.close()


async def test_one_direction_alone(proxy: Proxy) -> None:
    client = await Client.open(proxy)
    proxy.blackhole("to_client")
    with pytest.raises(TimeoutError):
        await client.ask(b"heard, not answered", seconds=0.3)
    assert proxy.to_upstream.carried == 19
    assert proxy.to_client.carried == 0
    client.writer.close()


async def test_a_delay_adds_up_over_both_ways_and_costs_no_throughput(proxy: Proxy) -> None:
    client = await Client.open(proxy)
    assert await client.ask(b"x") == b"x"
    proxy.delay(0.2)
    started = time.monotonic()
    assert await client.ask(b"y") == b"y"
    assert time.monotonic() - started >= 0.4
    # Eight chunks one after the other would take over three seconds.
    data = b"z" * 8 * CHUNK
    started = time.monotonic()
    assert await client.ask(data) == data
    assert time.monotonic() - started < 3.0
    client.writer.close()


async def test_a_throttle_slows_to_its_rate(proxy: Proxy) -> None:
    client = await Client.open(proxy)
    proxy.throttle(100_000, "to_upstream")
    started = time.monotonic()
    data = b"x" * 50_000
    assert await client.ask(data) == data
    assert time.monotonic() - started >= 0.4
    client.writer.close()


async def test_no_upstream_is_a_reset() -> None:
    async with Proxy(1) as proxy:
        client = await Client.open(proxy)
        with pytest.raises(ConnectionResetError):
            await client.reader.read()
