"""The embedded system and an origin, a pair for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, serve

from support.embedded import Embedded


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[Embedded]:
    embedded = Embedded(tmp_path / "data")
    await embedded.start()
    yield embedded
    await embedded.stop()


@pytest.fixture
async def echo_origin() -> AsyncIterator[int]:
    """A WebSocket server that sends back what it hears; its port."""

    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async with serve(echo, "127.0.0.1", 0, max_size=2**24) as server:
        yield server.sockets[0].getsockname()[1]
