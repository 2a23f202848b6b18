"""The load generator's own record: what the clients saw, held against what the system says.

`Load.write` puts it into a *witness file*, one JSON object per connection and line:

    domain                       the name that the client asked for
    opening_ns, opened_ns        epoch, by this machine's clock: before the request, after the 101.
                                 The edge accepted the connection in between
    ended_ns                     epoch; 0 while it is open
    duration_ns                  from opened to ended (or to the writing), by the monotonic clock
    sent_head, received_head     bytes of the request's head, of the 101's
    sent_bytes, received_bytes   bytes after the heads, frame headers included; of the sent ones
                                 the last may not have reached the kernel
    close_code, close_reason     as the client saw them
    refused                      true: there was no 101, and nothing below `opening_ns` is known
"""

import asyncio
import contextlib
import itertools
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

HEAD_END = b"\r\n\r\n"
_LENGTHS = itertools.cycle(range(1, 1_000))
"""Heads differ in their length, so that the record of a connection can be told by it."""


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
    wire: "Wire" = field(default_factory=lambda: Wire())
    opened_monotonic_ns: int = field(default_factory=time.monotonic_ns)
    ended_monotonic_ns: int = 0

    def line(self, domain: str) -> dict[str, Any]:
        """As it stands in the witness file."""
        until = self.ended_monotonic_ns or time.monotonic_ns()
        return {
            "domain": domain,
            "opening_ns": self.opening_ns,
            "opened_ns": self.opened_ns,
            "ended_ns": self.ended_ns,
            "duration_ns": until - self.opened_monotonic_ns,
            "sent_head": self.wire.sent_head,
            "received_head": self.wire.received_head,
            "sent_bytes": self.wire.sent,
            "received_bytes": self.wire.received,
            "close_code": self.close_code,
            "close_reason": self.close_reason,
            "refused": False,
        }


@dataclass
class Wire:
    """Bytes of one connection as they pass between the protocol and its transport."""

    sent_head: int = 0
    received_head: int = 0
    sent: int = 0
    received: int = 0
    _start: bytes = b""

    def out(self, data: bytes) -> None:
        if self.sent_head == 0:
            # A client writes its head alone and then waits for the answer.
            self.sent_head = len(data)
        else:
            self.sent += len(data)

    def into(self, data: bytes) -> None:
        if self.received_head:
            self.received += len(data)
            return
        self._start += data
        head, end, rest = self._start.partition(HEAD_END)
        if end:
            self.received_head = len(head) + len(end)
            self.received = len(rest)
            self._start = b""


class CountedConnection(ClientConnection):
    """A client that counts what its transport gets and gives."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.wire = Wire()
        out = self.protocol.data_to_send

        def counted() -> list[bytes]:
            chunks = out()
            for chunk in chunks:
                # An empty one stands for the end of the stream.
                if chunk:
                    self.wire.out(chunk)
            return chunks

        self.protocol.data_to_send = counted  # type: ignore[method-assign]

    def data_received(self, data: bytes) -> None:
        self.wire.into(data)
        super().data_received(data)


@dataclass
class Load:
    """Opens connections at an edge and keeps them until they end or it is told to stop."""

    port: int
    domain: str
    seen: list[Seen] = field(default_factory=list)
    refused: int = 0
    refused_at_ns: list[int] = field(default_factory=list)
    refused_for: Counter[str] = field(default_factory=Counter)
    """What each refused one was told, or the error that it ended with."""
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
                        create_connection=CountedConnection,
                        additional_headers={"X-Client": "x" * next(_LENGTHS)},
                    )
                except (OSError, WebSocketException, TimeoutError) as e:
                    self.refused += 1
                    self.refused_for[_told(e)] += 1
                    self.refused_at_ns.append(opening)
                    return
                assert isinstance(connection, CountedConnection)
                seen = Seen(opening, time.time_ns(), wire=connection.wire)
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
                    # Until its turn, or its end: which is noted then, not when its turn would be.
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(talk):
                            await connection.wait_closed()
                            break
        finally:
            seen.ended_ns = time.time_ns()
            seen.ended_monotonic_ns = time.monotonic_ns()
            seen.close_code = connection.close_code
            seen.close_reason = connection.close_reason or ""
            self._open.discard(connection)
            await connection.close()

    @property
    def open_now(self) -> int:
        return sum(1 for seen in self.seen if not seen.ended_ns)

    async def close_some(self, connections: Sequence[ClientConnection]) -> None:
        """Close these, as their clients."""
        await asyncio.gather(*(c.close() for c in connections), return_exceptions=True)

    @property
    def open_ones(self) -> list[ClientConnection]:
        return list(self._open)

    async def close_all(self) -> None:
        # A few at a time: what a client notes as the end must not be how busy it was by itself.
        there = list(self._open)
        for at in range(0, len(there), 50):
            await self.close_some(there[at : at + 50])
        await self.all_ended()

    async def all_ended(self, *, seconds: float = 20.0) -> None:
        async with asyncio.timeout(seconds):
            while self._tasks:
                await asyncio.wait(set(self._tasks))

    def lines(self) -> Iterator[dict[str, Any]]:
        """Every attempt, those with a 101 first."""
        for seen in self.seen:
            yield seen.line(self.domain)
        for opening in self.refused_at_ns:
            yield {"domain": self.domain, "opening_ns": opening, "refused": True}

    def write(self, file: Path) -> None:
        """Add this record to the witness file `file`; see the module for its form."""
        with file.open("a") as out:
            for line in self.lines():
                out.write(json.dumps(line) + "\n")


def _told(error: Exception) -> str:
    if isinstance(error, InvalidStatus):
        response = error.response
        return f"{response.status_code} {(response.body or b'').decode(errors='replace')}"
    return repr(error)
