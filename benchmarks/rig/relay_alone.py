"""The relay with as little around it as there can be: accept, dial, pass both heads on, hand over.

The heads are looked at only to find their ends, so that the relay begins where it would in the
edge, at the first frame: it would take a head for a broken frame, and follow no frames from there
on.

    python relay_alone.py RELAY FOLDER-OF-CERTIFICATES ORIGIN-PORT...

Says its ports, plain and TLS, and serves until its input ends.
"""

import asyncio
import itertools
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from handoff_common.process import run_async
from handoff_edge import wire
from handoff_edge.__main__ import raise_descriptor_limit
from handoff_relay import Identity, Relay, RelayLimits, ServerTls, Stream, load, load_tls

_BACKLOG = 65_535
_SECONDS = 60.0
_LIMITS = RelayLimits()


class Alone:
    def __init__(self, relay: Relay, origins: Iterator[int], server: ServerTls) -> None:
        self._relay = relay
        self._origins = origins
        self._server = server
        self._tasks: set[asyncio.Task[None]] = set()

    def listen(self, *, tls: bool) -> int:
        """The port."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
        listener.setblocking(False)
        accept = self._acceptor(listener, tls=tls)
        asyncio.get_running_loop().add_reader(listener, accept)
        return int(listener.getsockname()[1])

    def _acceptor(self, listener: socket.socket, *, tls: bool) -> Callable[[], None]:
        def accept() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                client.setblocking(False)
                task = asyncio.create_task(self._carry(client, tls=tls))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

        return accept

    async def _carry(self, sock: socket.socket, *, tls: bool) -> None:
        client: Stream = sock
        origin = socket.socket()
        origin.setblocking(False)
        try:
            async with asyncio.timeout(_SECONDS):
                if tls:
                    shaken = self._server.wrap(sock)
                    client = shaken
                    await wire.shake_hands(shaken)
                head, early = await _head(client)
                await asyncio.get_running_loop().sock_connect(
                    origin, ("127.0.0.1", next(self._origins))
                )
                await wire.send_all(origin, head)
                answer, rest = await _head(origin)
                await wire.send_all(client, answer)
            self._relay.start(
                client, origin, to_origin=early, to_client=rest, limits=_LIMITS, on_end=_ended
            )
        except (OSError, EOFError, TimeoutError):
            wire.close(client)
            origin.close()


async def _head(stream: Stream) -> tuple[bytes, bytes]:
    """A head with its empty line, and what came with it. Raises EOFError, OSError."""
    data = b""
    while (end := data.find(b"\r\n\r\n")) < 0:
        part = await wire.receive(stream, 65_536)
        if not part:
            raise EOFError
        data += part
    return data[: end + 4], data[end + 4 :]


def _ended(_: object) -> None:
    pass


async def main(name: str, certificates: Path, origins: list[int]) -> None:
    identity = Identity(
        ("*.example.com",),
        (certificates / "bench.crt").read_bytes(),
        (certificates / "bench.key").read_bytes(),
    )
    relay = load(name)()
    alone = Alone(relay, itertools.cycle(origins), load_tls(name).server([identity]))
    print(alone.listen(tls=False), alone.listen(tls=True), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await relay.close()


if __name__ == "__main__":
    raise_descriptor_limit()
    run_async(main(sys.argv[1], Path(sys.argv[2]), [int(port) for port in sys.argv[3:]]))
