"""How long metering's tables take to be made again from a log of millions of events, and in how
much memory.

Real broker and real Postgres on this machine; the rebuild is the command of a release, in a process
of its own. Its resident memory is read every second: flat means that the last third of the run
needs no more than the middle one. At the end the sum is held against what was written.

    make bench n=rebuild [args="--events 10000000"]

Bounded in time: it gives up after an hour.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import asyncpg
from projection import script

from handoff_common import codec
from handoff_common.clock import SystemClock
from handoff_common.log import Message
from handoff_common.log_kafka import KafkaLog
from handoff_common.topics import CONNECTIONS

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.distributed import Distributed, distributed
from support.parts import choice

PARTITIONS = 8
TICKS = os.sysconf("SC_CLK_TCK")
MOST_SECONDS = 3_600.0
CHUNK = 20_000
WITHIN = 2_000
"""Connections that are open at once: each one's three events lie as far apart."""


async def write(log: KafkaLog, events: int) -> int:
    """Scripts of three events each, interleaved; returns how many connections."""
    now_ms = SystemClock().now_ms()
    made: list[Message] = []
    connections = events // 3
    for start in range(0, connections, WITHIN):
        scripts = [script(n, now_ms) for n in range(start, min(start + WITHIN, connections))]
        for step in range(3):
            made += [Message(of[step].subject, codec.encode(of[step])) for of in scripts]
        if len(made) >= CHUNK:
            await log.append(CONNECTIONS.name, made)
            made = []
    if made:
        await log.append(CONNECTIONS.name, made)
    return connections


def usage_of(pid: int) -> tuple[float, float]:
    """(CPU seconds, resident MiB)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20
    return (int(fields[11]) + int(fields[12])) / TICKS, resident


async def rebuilt(system: Distributed) -> tuple[float, float, list[float]]:
    """(wall seconds, CPU seconds, resident MiB every second)."""
    job = system.job("rebuild", "handoff_metering", "rebuild", service="metering")
    began, cpu = time.monotonic(), 0.0
    resident: list[float] = []
    await job.start()
    async with asyncio.timeout(MOST_SECONDS):
        while job.exit_status is None:
            try:
                cpu, now = usage_of(job.pid)
                resident.append(now)
            except OSError:
                pass
            await asyncio.sleep(1)
    wall = time.monotonic() - began
    if job.exit_status:
        sys.exit(f"the rebuild ended with {job.exit_status}: {job.tail()}")
    return wall, cpu, resident


async def opened(system: Distributed) -> int:
    """Connections in the rows that were made."""
    dsn = system.database.dsn(f"{system.prefix}_metering")
    connection = await asyncpg.connect(dsn, timeout=20)
    try:
        return int(await connection.fetchval("SELECT sum(opened) FROM usage", timeout=60))
    finally:
        await connection.close(timeout=5)


async def main(events: int) -> None:
    with tempfile.TemporaryDirectory(prefix="handoff-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        async with (
            choice.new_broker(folder / "kafka") as broker,
            choice.new_server() as server,
            distributed(
                folder / "system", broker.bootstrap, server.address, partitions=PARTITIONS
            ) as system,
        ):
            log = KafkaLog(broker.bootstrap)
            connections = await write(log, events)
            await log.close()
            print(f"load average at the start: {os.getloadavg()[0]:.1f}\n")
            wall, cpu, resident = await rebuilt(system)
            third = len(resident) // 3
            print("| events | minutes | events/s | CPU per event | resident MiB, by thirds |")
            print("|---|---|---|---|---|")
            thirds = (resident[:third], resident[third : 2 * third], resident[2 * third :])
            print(
                f"| {3 * connections:,} | {wall / 60:.1f} | {3 * connections / wall:,.0f} "
                f"| {cpu / connections / 3 * 1e6:.1f} µs "
                f"| {', '.join(f'{statistics.median(one):.0f}' for one in thirds if one)}"
                f" (most {max(resident):.0f}) |"
            )
            found = await opened(system)
            if found != connections:
                sys.exit(f"{found} connections after the rebuild, {connections} were written")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    asyncio.run(main(parser.parse_args().events))
