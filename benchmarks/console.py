"""What the web interface costs with thousands of connections open: how long its pages take, and the
server's CPU per viewer of a live page.

The embedded system in one process; clients and origin in others. CPU is that of the system's
process over a stretch of time, without a viewer and with some; each viewer holds the live list of
connections. All viewers of a customer with the same filters share one poll of the APIs, so the
first one is told apart from those that come after it.

    make bench n=console [args="--connections 5000 --seconds 60"]

Bounded in time; ends by itself.
"""

import argparse
import asyncio
import resource
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import uvloop
from embedded import cpu_seconds, opened, origin_process
from websockets.asyncio.client import ClientConnection

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.console import Visitor, visitor
from support.embedded import Embedded, Tenant, make_tenant

PAGES = ("/services", "/connections?state=open", "/usage?by=hour", "/invoices")
ROUNDS = 10
VIEWERS = (20, 1, 0)
"""In this order: what the opening of the connections leaves to do is done by the last."""


async def took(someone: Visitor, path: str) -> float:
    """Milliseconds until the whole page was there."""
    began = time.perf_counter()
    answer = await someone.get(path)
    answer.raise_for_status()
    return (time.perf_counter() - began) * 1_000


async def watching(someone: Visitor, heard: list[int]) -> None:
    """Hold the live list; heard: bytes of the stream."""
    async with someone.http.stream("GET", "/connections/stream?state=open") as answer:
        answer.raise_for_status()
        async for part in answer.aiter_bytes():
            heard.append(len(part))


async def shares(
    system: Embedded, tenant: Tenant, pid: int, seconds: float
) -> list[tuple[int, float, float]]:
    """(viewers, share of a core that the system takes, bytes per second and viewer)."""
    found = []
    async with AsyncExitStack() as stack:
        tasks: list[asyncio.Task[None]] = []
        heard: list[int] = []
        for count in VIEWERS:
            while len(tasks) < count:
                someone = await stack.enter_async_context(visitor(system))
                await someone.sign_in(tenant.tokens["superuser"])
                tasks.append(asyncio.create_task(watching(someone, heard)))
            for gone in tasks[count:]:
                gone.cancel()
            await asyncio.gather(*tasks[count:], return_exceptions=True)
            del tasks[count:]
            await asyncio.sleep(3)
            heard.clear()
            before, began = cpu_seconds(pid), time.perf_counter()
            await asyncio.sleep(seconds)
            spent = time.perf_counter() - began
            for task in tasks:
                assert not task.done(), task.exception()
            share = (cpu_seconds(pid) - before) / spent
            found.append((count, share, sum(heard) / spent / max(count, 1)))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return found


async def main(connections: int, seconds: float) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (20_000, 20_000))
    with tempfile.TemporaryDirectory(prefix="handoff-bench-") as folder:
        async with origin_process() as port:
            system = Embedded(Path(folder) / "data", {"HANDOFF_WATERMARK_INTERVAL": "5"})
            await system.start()
            assert system.process is not None
            pid = system.process.pid
            try:
                tenant = await make_tenant(system, origin_port=port)
                gate = asyncio.Semaphore(64)

                async def one() -> ClientConnection:
                    async with gate:
                        return await opened(system.edge_port, tenant.domain)

                held = await asyncio.gather(*(one() for _ in range(connections)))
                await asyncio.sleep(5)
                async with visitor(system) as someone:
                    await someone.sign_in(tenant.tokens["superuser"])
                    print("| page, with all connections open | median | longest |\n|---|---|---|")
                    for path in PAGES:
                        times = [await took(someone, path) for _ in range(ROUNDS)]
                        print(
                            f"| `{path}` | {statistics.median(times):.0f} ms "
                            f"| {max(times):.0f} ms |"
                        )
                print(f"\n| viewers of {connections:,} | CPU of the system | each | bytes/s each |")
                print("|---|---|---|---|")
                rows = await shares(system, tenant, pid, seconds)
                idle = rows[-1][1]
                for count, share, rate in rows:
                    each = f"{(share - idle) / count:.2%} of a core" if count else "–"
                    print(f"| {count} | {share:.1%} of a core | {each} | {rate:,.0f} |")
                await asyncio.gather(*(connection.close() for connection in held))
            finally:
                await system.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=5_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    given = parser.parse_args()
    uvloop.run(main(given.connections, given.seconds))
