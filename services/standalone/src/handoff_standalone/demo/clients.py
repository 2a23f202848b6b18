"""Real clients, and what they themselves count: the demo's witness.

Each coroutine opens one connection through the edge and behaves like one kind of user.
"""

import asyncio
import contextlib
import time
from dataclasses import dataclass, field

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

OPEN_TIMEOUT = 15.0


@dataclass
class Witness:
    """What the clients saw. Payload bytes only: frame headers are the wire's business."""

    opened: int = 0
    closed: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    messages: int = 0
    sent: int = 0
    received: int = 0
    durations_ns: list[int] = field(default_factory=list)

    @property
    def open_now(self) -> int:
        return self.opened - self.closed


@dataclass(frozen=True)
class Edge:
    """Where the clients go: every domain is reached at the edge's own port."""

    port: int
    domain: str

    def open(self, path: str, domain: str | None = None) -> connect:
        return connect(
            f"ws://{domain or self.domain}{path}",
            host="127.0.0.1",
            port=self.port,
            open_timeout=OPEN_TIMEOUT,
            max_size=2**22,
            proxy=None,
        )


@contextlib.asynccontextmanager
async def watched(edge: Edge, witness: Witness, path: str):  # type: ignore[no-untyped-def]
    async with edge.open(path) as connection:
        witness.opened += 1
        started = time.monotonic_ns()
        try:
            yield connection
        finally:
            witness.closed += 1
            witness.durations_ns.append(time.monotonic_ns() - started)


async def chatty(edge: Edge, witness: Witness, seconds: float, name: str) -> None:
    """Says something ten times a second and hears the room."""
    async with watched(edge, witness, "/rooms/lobby") as connection:
        hearing = asyncio.create_task(_hear(connection, witness))
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(hearing.cancel)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                text = f"{name}: the time is {time.monotonic_ns()}"
                await connection.send(text)
                witness.sent += len(text)
                witness.messages += 1
                await asyncio.sleep(0.1)


async def bulk(edge: Edge, witness: Witness, seconds: float) -> None:
    """Sends 256 KiB messages and waits for each echo."""
    payload = bytes(range(256)) * 1024
    async with watched(edge, witness, "/bulk") as connection:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await connection.send(payload)
            witness.sent += len(payload)
            echo = await connection.recv()
            if echo != payload:
                raise AssertionError("the echo differs from what was sent")
            witness.received += len(echo)
            witness.messages += 1
            await asyncio.sleep(0.05)


async def idle(edge: Edge, witness: Witness, seconds: float) -> None:
    """Opens and says nothing, as most WebSockets do most of the time."""
    async with watched(edge, witness, "/rooms/quiet"):
        await asyncio.sleep(seconds)


async def abrupt(edge: Edge, witness: Witness, seconds: float) -> None:
    """Vanishes without a Close frame."""
    async with watched(edge, witness, "/rooms/lobby") as connection:
        await asyncio.sleep(seconds)
        connection.transport.abort()


async def refused(edge: Edge, witness: Witness, domain: str) -> None:
    """Asks for a domain that has no service, or may not be handed off."""
    try:
        async with edge.open("/", domain):
            raise AssertionError(f"{domain} was handed off")
    except InvalidStatus as error:
        code = error.response.headers.get("x-handoff-error", str(error.response.status_code))
        witness.refused[code] = witness.refused.get(code, 0) + 1


async def _hear(connection: ClientConnection, witness: Witness) -> None:
    with contextlib.suppress(ConnectionClosed):
        async for message in connection:
            witness.received += len(message)
