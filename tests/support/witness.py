"""The load generator's own record: what the clients saw, held against what the system says."""

import asyncio
import contextlib
import time
from dataclasses import dataclass, field

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException


@dataclass
class Seen:
    """One connection: instants in epoch ns by this machine's clock; `ended_ns` 0 while open.

    opening_ns: before the request; opened_ns: after the 101. The edge accepted it in between.
    """

    opening_ns: int
    opened_ns: int
    ended_ns: int = 0
    close_code: int | None = None
    close_reason: str = ""


@dataclass
class Load:
    """Opens connections at an edge and keeps them until they end or it is told to stop."""

    port: int
    domain: str
    seen: list[Seen] = field(default_factory=list)
    refused: int = 0
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    _open: set[ClientConnection] = field(default_factory=set)

    async def open(self, count: int, *, at_once: int = 50, talk: float | None = None) -> None:
        """Open that many; those that are refused or cut off are counted, not raised.

        talk: seconds between the messages that each sends; None is silence.
        """
        gate = asyncio.Semaphore(at_once)

        async def one() -> None:
            async with gate:
                opening = time.time_ns()
                try:
                    connection = await connect(
                        f"ws://{self.domain}/",
                        host="127.0.0.1",
                        port=self.port,
                        proxy=None,
                        open_timeout=20,
                        close_timeout=2,
                        ping_interval=None,
                    )
                except (OSError, WebSocketException, TimeoutError):
                    self.refused += 1
                    return
                seen = Seen(opening, time.time_ns())
                self.seen.append(seen)
            task = asyncio.create_task(self._hold(connection, seen, talk))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        await asyncio.gather(*(one() for _ in range(count)))

    async def _hold(self, connection: ClientConnection, seen: Seen, talk: float | None) -> None:
        self._open.add(connection)
        try:
            with contextlib.suppress(ConnectionClosed, OSError):
                if talk is None:
                    await connection.wait_closed()
                while talk is not None:
                    await connection.send("x" * 100)
                    await connection.recv()
                    await asyncio.sleep(talk)
        finally:
            seen.ended_ns = time.time_ns()
            seen.close_code = connection.close_code
            seen.close_reason = connection.close_reason or ""
            self._open.discard(connection)
            await connection.close()

    @property
    def open_now(self) -> int:
        return sum(1 for seen in self.seen if not seen.ended_ns)

    async def close_all(self) -> None:
        await asyncio.gather(*(c.close() for c in list(self._open)), return_exceptions=True)
        await self.all_ended()

    async def all_ended(self, *, seconds: float = 20.0) -> None:
        async with asyncio.timeout(seconds):
            while self._tasks:
                await asyncio.wait(set(self._tasks))
