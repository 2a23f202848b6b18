"""An origin gives through the edge the verdicts that it gives without: the same bytes, the same
close code, the same kind of end, in every case of `cases`; and the record says who closed and why.

The origin is the `websockets` library. What it says to a client of its own is what is expected.
"""

import asyncio
import base64
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from websockets.asyncio.server import ServerConnection, serve

from conformance.cases import BYE, CLOSE, FAMILIES, Case
from handoff_common.events import ConnectionClosed
from handoff_relay import IMPLEMENTATIONS
from support.edge_events import request_bytes
from support.edge_world import PATIENCE, Origin, quick, until, world

CHAT = "chat.example.com"
CA = trustme.CA()
AT_ONCE = 16
MESSAGE_MAX = 1 << 20
# The library logs each verdict that it gives.
SILENT = logging.Logger("origin", logging.CRITICAL + 1)


@dataclass(frozen=True)
class Transcript:
    """What a client sees. answer: the lines of the answer's head. stream: all bytes behind it.
    end: "fin" or "reset"."""

    answer: tuple[str, ...]
    stream: bytes
    end: str

    @property
    def code(self) -> int | None:
        """Of the server's Close frame; 1005 where it bears none, None where there is no such."""
        at = 0
        while at < len(self.stream):
            after, payload = behind(self.stream, at)
            if self.stream[at] & 0xF == CLOSE:
                return int.from_bytes(payload[:2], "big") if payload else 1005
            at = after
        return None


def behind(stream: bytes, at: int) -> tuple[int, bytes]:
    """Where the server's frame at `at` ends, and its payload."""
    size, start = stream[at + 1], at + 2
    if size > 125:
        width = 2 if size == 126 else 8
        size = int.from_bytes(stream[start : start + width], "big")
        start += width
    return start + size, stream[start : start + size]


class Talk:
    """A client that follows a case's steps, answers a Close frame and waits for the end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._stream = bytearray()
        self._at = 0
        self._closed = False

    async def run(self, case: Case) -> Transcript:
        key = base64.b64encode(case.number.encode().ljust(16)[:16]).decode()
        extra = f"Sec-WebSocket-Extensions: {case.offer}\r\n" if case.offer else ""
        self._writer.write(request_bytes(target=f"/{case.number}", key=key, extra=extra))
        head = await self._reader.readuntil(b"\r\n\r\n")
        # The only line that may differ from one second to the next.
        lines = [line for line in head.decode().split("\r\n") if not line.startswith("Date:")]
        end = "fin"
        try:
            for step in case.steps:
                if isinstance(step, int):
                    for _ in range(step):
                        await self._frame()
                else:
                    await self._send(step)
            while await self._frame():
                pass
        except ConnectionError:
            end = "reset"
        finally:
            self._writer.close()
            with suppress(ConnectionError, ssl.SSLError):
                await self._writer.wait_closed()
        return Transcript(tuple(lines), bytes(self._stream), end)

    async def _send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()
        await asyncio.sleep(0)
        # A single byte of a payload is no Close frame, whatever it looks like.
        self._closed |= data[:1] == BYE[:1] and len(data) > 1

    async def _frame(self) -> bool:
        """The server's next frame; False at the end of the stream."""
        try:
            self._stream += await self._reader.readexactly(2)
            size = self._stream[-1]
            if size > 125:
                length = await self._reader.readexactly(2 if size == 126 else 8)
                self._stream += length
                size = int.from_bytes(length, "big")
            self._stream += await self._reader.readexactly(size)
        except asyncio.IncompleteReadError as error:
            self._stream += error.partial
            return False
        first = self._stream[self._at]
        self._at = len(self._stream)
        if first & 0xF == CLOSE and not self._closed:
            await self._send(BYE)
        return True


class Library(Origin):
    """The origin, as others run theirs."""

    @asynccontextmanager
    async def serving(self, tls: ssl.SSLContext | None = None) -> AsyncIterator["Library"]:
        async with serve(
            echo, "127.0.0.1", 0, ping_interval=None, max_size=MESSAGE_MAX, logger=SILENT
        ) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield self


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


async def transcript(case: Case, port: int, tls: ssl.SSLContext | None = None) -> Transcript:
    name = CHAT if tls is not None else None
    async with asyncio.timeout(PATIENCE):
        opened = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=name)
        return await Talk(*opened).run(case)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("wire", ["plain", "tls"])
@pytest.mark.parametrize("relay", list(IMPLEMENTATIONS))
async def test_the_origins_verdict_is_the_clients(
    tmp_path: Path, relay: str, wire: str, family: str
) -> None:
    cases = list(FAMILIES[family]())
    tls: ssl.SSLContext | None = None
    settings: dict[str, Any] = {}
    if wire == "tls":
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        CA.configure_trust(tls)
        folder = tmp_path / "certificates"
        folder.mkdir()
        pem = CA.issue_cert(CHAT).private_key_and_cert_chain_pem
        pem.write_to_path(str(folder / "chat.pem"))
        settings = {"tls_certificates": folder, "edge_tls_port": 0}
    async with world(tmp_path, origin=Library(), relay=quick(relay), **settings) as w:
        turn = asyncio.Semaphore(AT_ONCE)

        async def compared(case: Case) -> None:
            async with turn:
                # Without TLS in either case: the library itself would end it in another way.
                direct = await transcript(case, w.origin.port)
                through = await transcript(case, w.edge.tls_port if tls else w.edge.port, tls)
            assert direct.code == case.code, f"{case.number} is not what it is meant to be"
            assert through == direct, case.number

        await asyncio.gather(*(compared(case) for case in cases))
        await until(lambda: not len(w.edge.tunnels), "every connection has ended")
        assert await w.edge.recorder.flushed(timeout=5)
        records = [e.data for e in await w.events() if isinstance(e, ConnectionClosed)]
        said = [case.code if case.first is None else case.first for case in cases]
        assert sorted(str(record.close_code) for record in records) == sorted(map(str, said))
