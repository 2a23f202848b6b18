"""From an edge's event in Kafka to an answer of `/v1/usage`: how fast, how late, how much memory.

Real broker and real Postgres on this machine, metering as processes of its own. Two questions:

- delay: events arrive at a steady rate; how long after an event's acknowledgement does `/v1/usage`
  show it? The total of opened connections is asked for all the time; the k-th event was shown when
  the answer first reached k.
- throughput: events lie in Kafka; how long until one worker, and until two, have folded them all?
  CPU seconds are of the workers' processes; their resident memory is read along the way.

    make bench n=stream [args="--rate 5000 --seconds 20 --events 300000"]

Everything is bounded in time and ends by itself.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from projection import script

from handoff_common import codec
from handoff_common.clock import SystemClock
from handoff_common.log import Message
from handoff_common.log_kafka import KafkaLog
from handoff_common.topics import CONNECTIONS

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.distributed import Distributed, distributed
from support.embedded import make_customer, make_tokens
from support.parts import choice
from support.parts.waiting import eventually

PARTITIONS = 8
TICKS = os.sysconf("SC_CLK_TCK")
MOST_SECONDS = 600.0


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20


def messages(count: int, customer_id: str) -> list[Message]:
    """`accepted` of new connections, `bytes` and `closed` of earlier ones: a third each."""
    now_ms = SystemClock().now_ms()
    old = customer_id.encode()
    found = []
    for number in range(count // 3):
        for event in script(number, now_ms):
            value = codec.encode(event)
            start = value.index(b'"customer_id":"') + 15
            end = value.index(b'"', start)
            found.append(Message(event.subject, value[:start] + old + value[end:]))
    return found


async def opened(system: Distributed, token: str) -> int:
    async with system.api(token) as api:
        rows = await api.call("GET", "/v1/usage", query={"by": "month"})
    return sum(row["opened"] for row in rows["data"])


async def delay(
    system: Distributed, log: KafkaLog, customer_id: str, token: str, *, rate: int, seconds: int
) -> tuple[list[float], float]:
    """(delays of `accepted` events in s, events per second that were really sent)."""
    before = await opened(system, token)
    batches = [messages(rate // 20, customer_id) for _ in range(seconds * 20)]
    acknowledged: list[tuple[int, float]] = []
    shown: list[tuple[int, float]] = []
    sent = 0
    over = asyncio.Event()

    async def watch() -> None:
        async with system.api(token) as api:
            while not over.is_set() or (shown and shown[-1][0] < sent):
                rows = await api.call("GET", "/v1/usage", query={"by": "month"})
                count = sum(row["opened"] for row in rows["data"]) - before
                shown.append((count, time.monotonic()))

    watching = asyncio.create_task(watch())
    began = time.monotonic()
    for number, batch in enumerate(batches):
        await asyncio.sleep(max(0.0, began + number / 20 - time.monotonic()))
        await log.append(CONNECTIONS.name, batch)
        sent += len(batch) // 3
        acknowledged.append((sent, time.monotonic()))
    took = time.monotonic() - began
    over.set()
    async with asyncio.timeout(MOST_SECONDS):
        await watching
    delays = []
    answers = iter(shown)
    count, at = next(answers)
    first = 0
    for reached, when in acknowledged:
        while count < reached:
            count, at = next(answers)
        delays += [at - when] * (reached - first)
        first = reached
    return delays, len(batches) * len(batches[0]) / took


async def folded(
    system: Distributed, token: str, workers: Sequence[str], expected: int
) -> tuple[float, float, list[float]]:
    """(wall seconds, CPU seconds of the workers, resident MiB along the way)."""
    for name in workers:
        await system.begin(name)
    for name in workers:
        await system.processes[name].wait_line('"ready"')
    pids = [system.processes[name].pid for name in workers]
    began, cpu = time.monotonic(), sum(cpu_seconds(pid) for pid in pids)
    resident: list[float] = []

    async def done() -> bool | None:
        resident.append(sum(resident_mib(pid) for pid in pids))
        return await opened(system, token) >= expected or None

    await eventually(done, f"{expected} connections are metered", seconds=MOST_SECONDS)
    wall = time.monotonic() - began
    return wall, sum(cpu_seconds(pid) for pid in pids) - cpu, resident


async def main(rate: int, seconds: int, events: int) -> None:
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
            await system.start("config", "metering")
            log = KafkaLog(broker.bootstrap)
            customer_id = await make_customer(system)
            token = (await make_tokens(system, customer_id))["superuser"]
            print(f"load average at the start: {os.getloadavg()[0]:.1f}\n")
            delays, really = await delay(
                system, log, customer_id, token, rate=rate, seconds=seconds
            )
            ordered = sorted(delays)
            print("| delay from acknowledgement to /v1/usage | s |\n|---|---|")
            print(f"| events per second sent | {really:,.0f} |")
            for share in (0.5, 0.99):
                print(f"| p{share * 100:.0f} | {ordered[int(share * (len(ordered) - 1))]:.3f} |")
            print(f"| longest | {ordered[-1]:.3f} |\n")
            print("| workers | events/s | CPU of the workers per event | resident MiB |")
            print("|---|---|---|---|")
            have = await opened(system, token)
            for workers in (["metering"], ["metering", "metering-1"]):
                for worker in workers:
                    if worker in system.processes and system.processes[worker].running:
                        await system.processes[worker].stop()
                batch = messages(events, customer_id)
                for at in range(0, len(batch), 10_000):
                    await log.append(CONNECTIONS.name, batch[at : at + 10_000])
                wall, cpu, resident = await folded(system, token, workers, have + len(batch) // 3)
                have += len(batch) // 3
                spread = f"{min(resident):.0f}–{max(resident):.0f}"
                print(
                    f"| {len(workers)} | {len(batch) / wall:,.0f} "
                    f"| {cpu / len(batch) * 1e6:.1f} µs | {spread} |"
                )
            await log.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=5_000)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--events", type=int, default=300_000)
    given = parser.parse_args()
    asyncio.run(main(given.rate, given.seconds, given.events))
