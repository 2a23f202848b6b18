"""Clients that send frames of varied size, want each back as it was, and are told why they end.

One frame of each is on its way at a time. What comes is followed byte for byte, so that a Close
frame anywhere but between two frames is found.
"""

import asyncio
import base64
import os
import random
from dataclasses import dataclass, field
from typing import cast

from support.edge_events import request_bytes

HEAD_END = b"\r\n\r\n"
PAUSE_SECONDS = 0.4
"""Between an echo and the next frame, at most."""


class EchoingClient(asyncio.Protocol):
    """fault: what was wrong with what came. told: code and reason of the Close frame, which it
    answers. ended: set once the connection has gone."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._transport: asyncio.Transport | None = None
        self._expected = b""
        self._buffer = b""
        self.opened = False
        self.echoes = 0
        self.fault = ""
        self.told: tuple[int, str] | None = None
        self.answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        key = base64.b64encode(os.urandom(16)).decode()
        self._transport.write(request_bytes(key=key))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self.opened:
            head, end, rest = self._buffer.partition(HEAD_END)
            if not end:
                return
            self.opened = head.startswith(b"HTTP/1.1 101 ")
            self.answered.set_result(self.opened)
            if not self.opened:
                return
            self._buffer = rest
            self._speak()
        if self.told is not None:
            self.fault = self.fault or "something came behind the Close frame"
        elif self._buffer[:1] == b"\x88":
            if len(self._buffer) >= 2 + self._buffer[1]:
                self._close()
        elif not self._expected.startswith(self._buffer[: len(self._expected)]):
            self.fault = self.fault or "what came is not what was sent"
        elif self._expected and len(self._buffer) >= len(self._expected):
            self._buffer = self._buffer[len(self._expected) :]
            self._expected = b""
            self.echoes += 1
            pause = self._chance.uniform(0, PAUSE_SECONDS)
            asyncio.get_running_loop().call_later(pause, self._speak)
            if self._buffer:
                self.data_received(b"")

    def connection_lost(self, error: Exception | None) -> None:
        if not self.answered.done():
            self.answered.set_result(False)
        if self.opened and self.told is None:
            self.fault = self.fault or f"it was not told why it ended: {error!r}"
        self.ended.set()

    def leave(self) -> None:
        assert self._transport is not None
        self._transport.abort()

    def _speak(self) -> None:
        if self.told is not None or self.ended.is_set():
            return
        assert self._transport is not None
        size = self._chance.choice((0, 1, 100, 125, 126, 1_000, 20_000, 65_536, 200_000))
        length = (
            bytes([0x80 | size])
            if size < 126
            else b"\xfe" + size.to_bytes(2, "big")
            if size < 1 << 16
            else b"\xff" + size.to_bytes(8, "big")
        )
        self._expected = b"\x82" + length + os.urandom(4 + size)
        self._transport.write(self._expected)

    def _close(self) -> None:
        assert self._transport is not None
        payload = self._buffer[2 : 2 + self._buffer[1]]
        self.told = int.from_bytes(payload[:2], "big"), payload[2:].decode()
        if len(self._buffer) > 2 + len(payload):
            self.fault = "something came behind the Close frame"
        if not self._transport.get_write_buffer_size():
            # Else a frame of this client is not whole yet, and there is no place for another.
            self._transport.write(b"\x88\x82\0\0\0\0" + payload[:2])
        self._transport.close()


@dataclass
class Crowd:
    """Clients of one edge. refused: how often one was not let in, and tried again."""

    port: int
    clients: list[EchoingClient] = field(default_factory=list)
    refused: int = 0
    _chance: random.Random = field(default_factory=lambda: random.Random(11))

    async def join(self, count: int, *, at_once: int = 50) -> None:
        """So many more, behind their 101."""
        gate = asyncio.Semaphore(at_once)

        async def one() -> None:
            async with gate, asyncio.timeout(60):
                while True:
                    try:
                        _, client = await asyncio.get_running_loop().create_connection(
                            lambda: EchoingClient(self._chance), "127.0.0.1", self.port
                        )
                        if await client.answered:
                            self.clients.append(client)
                            return
                    except ConnectionError:
                        pass
                    # Told to try again, as at a stop; it waits as clients should.
                    self.refused += 1
                    await asyncio.sleep(self._chance.uniform(0.05, 0.2))

        await asyncio.gather(*(one() for _ in range(count)))

    @property
    def open_now(self) -> int:
        return sum(not client.ended.is_set() for client in self.clients)

    async def all_ended(self) -> None:
        async with asyncio.timeout(60):
            await asyncio.gather(*(client.ended.wait() for client in self.clients))
