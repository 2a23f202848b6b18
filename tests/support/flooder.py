"""A process that floods an edge: `python -m support.flooder PORT KIND COUNT [HOST]`.

    silent    so many connections that say nothing
    trickle   so many whose heads come byte by byte and are never whole
    oversize  so many with a head that has no end
    asking    so many at a time that ask for HOST, and again when they are answered

It says `ready` once all have connected (asking: at once), and ends when every one was ended by the
edge (asking: with its standard input). Its last line counts, in JSON, how they ended: with which
`x-handoff-error`, `101`, or `closed` where they were told nothing.
"""

import asyncio
import json
import re
import resource
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

import uvloop

from support.edge_events import request_bytes
from support.edge_world import soon

CONNECTING = 200
ROUND_SECONDS = 0.2
_UPGRADED = b"HTTP/1.1 101 "
_CODE = re.compile(rb"x-handoff-error: (\w+)")


class Caller(asyncio.Protocol):
    def __init__(self, say: bytes) -> None:
        self.say = say
        self.said = bytearray()
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self.say:
            self.transport.write(self.say)

    def data_received(self, data: bytes) -> None:
        self.said += data
        if self.said.startswith(_UPGRADED):
            assert self.transport is not None
            self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        found = _CODE.search(self.said)
        upgraded = self.said.startswith(_UPGRADED)
        self.ended.set_result("101" if upgraded else found[1].decode() if found else "closed")


async def flood(port: int, kind: str, count: int, host: str) -> Counter[str]:
    loop = asyncio.get_running_loop()

    async def call(say: bytes) -> Caller:
        _, caller = await loop.create_connection(lambda: Caller(say), "127.0.0.1", port)
        return caller

    if kind == "asking":
        return await asking(call_once=lambda: call(request_bytes(host=host)), at_once=count)
    head = request_bytes(extra="X-Long: " + "x" * 5_000 + "\r\n")[:-4]
    say = {"silent": b"", "trickle": head[:40], "oversize": head + b"x" * 60_000}[kind]
    callers: list[Caller] = []
    while len(callers) < count:
        some = min(CONNECTING, count - len(callers))
        callers += await asyncio.gather(*(call(say) for _ in range(some)))
    print("ready", flush=True)
    if kind == "trickle":
        for at in range(40, len(head)):
            there = [caller for caller in callers if not caller.ended.done()]
            for caller in there:
                assert caller.transport is not None
                caller.transport.write(head[at : at + 1])
            if not there:
                break
            await asyncio.sleep(ROUND_SECONDS)
    return Counter(await asyncio.gather(*(caller.ended for caller in callers)))


async def asking(call_once: Callable[[], Awaitable[Caller]], at_once: int) -> Counter[str]:
    counts: Counter[str] = Counter()
    stop = asyncio.Event()

    async def again() -> None:
        while not stop.is_set():
            caller = await call_once()
            counts[await caller.ended] += 1

    tasks = [asyncio.create_task(again()) for _ in range(at_once)]
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    stop.set()
    await asyncio.gather(*tasks)
    return counts


class Flooder:
    """Such a process, as a test holds it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, port: int, kind: str, count: int, host: str = "") -> "Flooder":
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "support.flooder",
            *(str(port), kind, str(count), host),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=Path(__file__).parents[1],
        )
        return cls(process)

    async def ready(self) -> None:
        assert await self._line() == "ready"

    async def counts(self) -> dict[str, int]:
        """How its connections ended, once they have."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        found = json.loads(await self._line())
        await soon(self.process.wait())
        return {str(name): int(count) for name, count in found.items()}

    async def _line(self) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(60):
            return (await self.process.stdout.readline()).decode().strip()

    async def stop(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    found = uvloop.run(flood(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]))
    print(json.dumps(found), flush=True)
