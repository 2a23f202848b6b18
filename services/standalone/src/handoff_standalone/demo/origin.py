"""A real origin in a process of its own: a small chat server on the `websockets` library.

`/rooms/<name>`: what one says, all in the room hear. `/bulk`: echo of binary messages. Its port is
printed in the first line it writes. With `PORT` it serves on the loopback address (0: a free port)
and ends with its standard input; with `HOST PORT` it serves until a signal. It imports nothing of
ours, so that an image can hold this file alone.
"""

import asyncio
import contextlib
import signal
import sys
from collections import defaultdict

from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed

_rooms: defaultdict[str, set[ServerConnection]] = defaultdict(set)


async def talk(connection: ServerConnection) -> None:
    path = connection.request.path if connection.request else "/"
    with contextlib.suppress(ConnectionClosed):
        if path.startswith("/bulk"):
            async for message in connection:
                await connection.send(message)
            return
        room = _rooms[path]
        room.add(connection)
        try:
            async for message in connection:
                broadcast(room, message)
        finally:
            room.discard(connection)


async def main(arguments: list[str]) -> None:
    if len(arguments) == 2:
        host, port = arguments
        await _until_signalled(host, int(port))
        return
    # Ctrl-C reaches every process of the terminal; this one ends when the demo lets go of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    async with serve(talk, "127.0.0.1", int(arguments[0]), max_size=2**22) as server:
        sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
        sys.stdout.flush()
        # The demo holds the other end of standard input: when it goes, so does the origin.
        await asyncio.to_thread(sys.stdin.read)


async def _until_signalled(host: str, port: int) -> None:
    async with serve(talk, host, port, max_size=2**22) as server:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.close)
        await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
