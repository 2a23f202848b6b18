"""The embedded system with 2,000 open connections: echo latency beside a direct one, memory per
connection, CPU per echo, and events per second through metering.

    make bench n=embedded

The origin, the clients and the system are three processes. Latency through the edge and direct is
measured in the same run, interleaved in rounds, so that both meet the same machine.
"""

import asyncio
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import uvloop
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve

from handoff_common import codec
from handoff_common.clock import SystemClock
from handoff_common.database import Database
from handoff_common.events import (
    AcceptedData,
    BytesData,
    ClosedData,
    ConnectionAccepted,
    ConnectionBytes,
    ConnectionClosed,
    Reason,
)
from handoff_common.log import Message
from handoff_common.log_sqlite import SqliteLog
from handoff_common.topics import CONNECTIONS
from handoff_metering.rebuild import rebuild
from handoff_metering.settings import MeteringSettings

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from support.embedded import Embedded, make_tenant

CONNECTIONS_OPEN = 2_000
ROUNDS = 5
ECHOES = 1_000
EVENTS = 60_000


def origin(pipe: "multiprocessing.connection.Connection") -> None:
    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async def main() -> None:
        async with serve(
            echo, "127.0.0.1", 0, ping_interval=None, compression=None, backlog=4096
        ) as server:
            pipe.send(server.sockets[0].getsockname()[1])
            await asyncio.to_thread(pipe.recv)

    resource.setrlimit(resource.RLIMIT_NOFILE, (20_000, 20_000))
    uvloop.run(main())


@asynccontextmanager
async def origin_process() -> AsyncIterator[int]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=origin, args=(theirs,))
    process.start()
    try:
        yield await asyncio.to_thread(ours.recv)
    finally:
        ours.send(None)
        process.join(10)


def opened(port: int, domain: str) -> connect:
    return connect(
        f"ws://{domain}/",
        host="127.0.0.1",
        port=port,
        proxy=None,
        ping_interval=None,
        compression=None,
        open_timeout=60,
    )


async def echoes(connection: ClientConnection) -> list[int]:
    """Nanoseconds of each round trip of 64 bytes."""
    found = []
    for _ in range(ECHOES):
        before = time.perf_counter_ns()
        await connection.send(b"x" * 64)
        await connection.recv()
        found.append(time.perf_counter_ns() - before)
    return found


def rss_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    raise RuntimeError("no VmRSS")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def percentile(values: list[int], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] / 1000


async def edge_figures(folder: Path) -> list[tuple[str, str]]:
    async with origin_process() as port:
        system = Embedded(folder / "data", {"HANDOFF_WATERMARK_INTERVAL": "10"})
        await system.start()
        assert system.process is not None
        pid = system.process.pid
        try:
            tenant = await make_tenant(system, origin_port=port)
            before_kib, before_cpu = rss_kib(pid), cpu_seconds(pid)
            started = time.perf_counter()
            gate = asyncio.Semaphore(64)

            async def one() -> ClientConnection:
                async with gate:
                    return await opened(system.edge_port, tenant.domain)

            idle = await asyncio.gather(*(one() for _ in range(CONNECTIONS_OPEN)))
            opening = time.perf_counter() - started
            handshake = (cpu_seconds(pid) - before_cpu) / CONNECTIONS_OPEN
            await asyncio.sleep(2)
            per_connection = (rss_kib(pid) - before_kib) / CONNECTIONS_OPEN
            through: list[list[int]] = []
            direct: list[list[int]] = []
            cpu = 0.0
            async with (
                opened(system.edge_port, tenant.domain) as via,
                opened(port, "127.0.0.1") as straight,
            ):
                for _ in range(ROUNDS):
                    direct.append(await echoes(straight))
                    before_cpu = cpu_seconds(pid)
                    through.append(await echoes(via))
                    cpu += cpu_seconds(pid) - before_cpu
            await asyncio.gather(*(connection.close() for connection in idle))
        finally:
            await system.stop()

    def row(name: str, rounds: list[list[int]], share: float) -> tuple[str, str]:
        values = [percentile(one, share) for one in rounds]
        spread = f"{min(values):.0f}–{max(values):.0f}"
        return name, f"{statistics.median(values):.0f} µs ({spread})"

    return [
        ("open connections", str(CONNECTIONS_OPEN)),
        ("opening them, wall time, 64 at once", f"{opening:.1f} s"),
        ("CPU of the system per handshake, all events included", f"{handshake * 1000:.2f} ms"),
        ("RSS of the system per open connection", f"{per_connection:.1f} KiB"),
        row("echo of 64 B direct, p50", direct, 0.50),
        row("echo of 64 B through the edge, p50", through, 0.50),
        row("echo of 64 B direct, p99", direct, 0.99),
        row("echo of 64 B through the edge, p99", through, 0.99),
        ("CPU of the system per echo", f"{cpu / (ROUNDS * ECHOES) * 1e6:.0f} µs"),
    ]


def recorded(n: int) -> list[Message]:
    """Three events of one connection."""
    accepted = datetime(2026, 9, 1, tzinfo=UTC) + timedelta(seconds=n)
    common: dict[str, Any] = {
        "customer_id": f"customer-{n % 20}",
        "service_id": f"service-{n % 50}",
        "region": "europe",
        "pop": "fra1",
        "edge_id": "edge",
        "connection_id": f"connection-{n}",
        "accepted_at": accepted,
    }
    envelope: dict[str, Any] = {
        "source": "/edges/edge",
        "subject": f"connection-{n}",
        "time": accepted,
    }
    events = [
        ConnectionAccepted(
            id=f"{n}-0",
            **envelope,
            data=AcceptedData(
                **common, seq=0, elapsed_ms=0, domain="d", backend="b", service_version=1
            ),
        ),
        ConnectionBytes(
            id=f"{n}-1",
            **envelope,
            data=BytesData(**common, seq=1, elapsed_ms=60_000, resp_body_bytes=1_000),
        ),
        ConnectionClosed(
            id=f"{n}-2",
            **envelope,
            data=ClosedData(
                **common,
                seq=2,
                elapsed_ms=90_000,
                resp_body_bytes=2_000,
                reason=Reason.CLIENT_CLOSED,
                closed_by="client",
            ),
        ),
    ]
    return [Message(f"connection-{n}", codec.encode(event)) for event in events]


async def metering_figures(folder: Path) -> list[tuple[str, str]]:
    log = await SqliteLog.open(folder / "log.db")
    database = Database(f"sqlite+aiosqlite:///{folder / 'metering.db'}")
    messages = [m for n in range(EVENTS // 3) for m in recorded(n)]
    started = time.perf_counter()
    for at in range(0, len(messages), 500):
        await log.append(CONNECTIONS.name, messages[at : at + 500])
    appending = time.perf_counter() - started
    before_cpu = time.process_time()
    started = time.perf_counter()
    await rebuild(MeteringSettings(), log=log, database=database, clock=SystemClock())
    folding, cpu = time.perf_counter() - started, time.process_time() - before_cpu
    started = time.perf_counter()
    for message in messages:
        codec.decode(CONNECTIONS.name, message.value)
    decoding = time.perf_counter() - started
    await database.close()
    await log.close()
    return [
        ("events appended to the embedded log, 500 at once", f"{EVENTS / appending:,.0f} /s"),
        ("events through metering into SQLite, by a rebuild", f"{EVENTS / folding:,.0f} /s"),
        ("CPU of metering per event", f"{cpu / EVENTS * 1e6:.0f} µs"),
        ("limit beside it: decoding alone", f"{EVENTS / decoding:,.0f} /s"),
    ]


async def main() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (20_000, 20_000))
    with tempfile.TemporaryDirectory(prefix="handoff-bench-") as folder:
        rows = await edge_figures(Path(folder)) + await metering_figures(Path(folder))
    print("| what | figure |\n|---|---|")
    for name, figure in rows:
        print(f"| {name} | {figure} |")


if __name__ == "__main__":
    uvloop.run(main())
