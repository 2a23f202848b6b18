"""What fault tests break: a broker and a database server of their own; an origin that echoes."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, serve

from support.parts import choice
from support.parts.kafka import Broker
from support.parts.postgres import Database


@pytest.fixture
async def origin() -> AsyncIterator[int]:
    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async with serve(echo, "127.0.0.1", 0, ping_interval=None) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    async with choice.new_broker(tmp_path / "kafka") as started:
        yield started


@pytest.fixture
async def server() -> AsyncIterator[Database]:
    async with choice.new_server() as started:
        yield started
