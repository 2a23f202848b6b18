"""What an idle tunnel costs in memory, and what checkpoints of many of them cost, beside nginx and
HAProxy.

    make bench n=memory [args="--tunnels 50000 --workers 6 --quick"]

A tunnel takes two descriptors of whoever carries it, one of a client and one of an origin. A
process may have so many only, so one process carries what it can. Beyond that there is `--workers`:
an edge of several, on a Kafka of its own (tests/support/install.sh brings it), with clients and
origins in as many processes as they need.

Memory is asked for before the first tunnel (after some handshakes, so that all code is loaded) and
with all of them open; the difference is theirs. Then the tunnels rest, and no event is written.
Then each sends 64 bytes once in an interval of checkpoints, and gets them back, so that every
checkpoint of the edge has something to say: the worst case. Peers relay the same bytes and write
nothing.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rig import ours, peers, programs
from rig.clients import Load, parted, run
from rig.figures import machine, shown, table
from rig.measured import Cpu, Memory
from rig.subjects import Subject

from handoff_relay import IMPLEMENTATIONS, active
from support.parts import choice

SPARE = 200
AT_ONCE = 64
NETWORKS = 8
REST_SECONDS = 1.0
PER_ORIGIN = 18_000
"""Tunnels of one origin's process, and of one client's: both have one descriptor for each, and a
pair of addresses has 28,000 ports."""


@dataclass
class Found:
    """Sizes in KiB. idle, busy: shares of a core. events, size: of one interval."""

    tunnels: int
    before: Memory
    opened: Memory
    after: Memory
    opening: float
    idle: float
    busy: float
    events: int = 0
    size: int = 0
    lost: int = 0


def measured(load: Load, subject: Subject, tunnels: int, interval: int) -> Found:
    run(load, "handshake", subject, settle=REST_SECONDS, concurrency=8, seconds=0.3)
    before = Memory.of(subject.pid)
    with ExitStack() as stack:
        began = time.monotonic()
        clients = [
            stack.enter_context(
                load.client(
                    "hold",
                    subject,
                    connections=part,
                    concurrency=AT_ONCE,
                    sources=NETWORKS,
                    every=interval,
                )
            )
            for part in parted(tunnels, PER_ORIGIN)
        ]
        for client in clients:
            seen = json.loads(client.line())
            if seen["outcomes"]:
                print(f"{subject.name}: not all were opened at once: {seen['outcomes']}\n")
        opening = time.monotonic() - began
        time.sleep(REST_SECONDS)
        opened = Memory.of(subject.pid)
        if subject.log:
            time.sleep(interval)  # what a first checkpoint has to say is no idle tunnel's
        idle = share_of_core(subject, min(interval, 10))
        for client in clients:
            client.tell("go")
        time.sleep(interval)  # until each has a message behind it, before its checkpoint
        began_at = ends(subject)
        busy = share_of_core(subject, interval)
        ended_at = ends(subject)
        after = Memory.of(subject.pid)
        lost = 0
        for client in clients:
            client.close_input()
            lost += json.loads(client.line())["lost"]
        events, size = between(subject, began_at, ended_at)
    return Found(
        tunnels,
        before,
        opened,
        after,
        opening,
        idle,
        busy,
        events,
        size,
        lost,
    )


def share_of_core(subject: Subject, seconds: float) -> float:
    cpu, began = Cpu.of(subject.pid), time.monotonic()
    time.sleep(seconds)
    return Cpu.of(subject.pid).since(cpu) / (time.monotonic() - began)


def ends(subject: Subject) -> ours.Ends:
    return asyncio.run(ours.ends(subject.log)) if subject.log else {}


def between(subject: Subject, before: ours.Ends, after: ours.Ends) -> tuple[int, int]:
    """Events of connections in an edge's log, and their bytes."""
    return asyncio.run(ours.between(subject.log, before, after)) if subject.log else (0, 0)


def row(name: str, found: Found) -> list[str]:
    opened = (found.opened.rss - found.before.rss) / found.tunnels
    after = (found.after.rss - found.before.rss) / found.tunnels
    pss = (found.opened.pss - found.before.pss) / found.tunnels
    return [
        name,
        f"{found.tunnels:,}",
        shown(opened),
        shown(pss),
        shown(after),
        shown(found.before.rss / 1024),
        f"{found.idle * 100:.1f} %",
        f"{found.busy * 100:.1f} %",
        f"{found.events:,}",
        shown(found.size / found.events) if found.events else "–",
        f"{found.lost:,}",
    ]


def starts(
    folder: Path, certificates: Path, origins: list[int], connections: int, interval: int
) -> Iterator[AbstractContextManager[Subject]]:
    given = (folder, certificates, origins)
    yield peers.nginx(*given, connections=connections)
    yield peers.nginx(*given, connections=connections, buffer=peers.LARGE)
    yield peers.haproxy(*given, connections=connections)
    for name in IMPLEMENTATIONS:
        yield ours.relay_alone(*given, name)
    for name in IMPLEMENTATIONS:
        yield ours.edge(*given, name, environ=_checkpoints(interval))


def _checkpoints(interval: int) -> dict[str, str]:
    return {"HANDOFF_CHECKPOINT_INTERVAL": str(interval)}


@contextmanager
def on_kafka(
    folder: Path, certificates: Path, origins: list[int], workers: int, interval: int
) -> Iterator[Subject]:
    """An edge of several workers, with a broker of its own."""
    folder.chmod(0o755)
    broker = choice.new_broker(folder / "kafka")
    with asyncio.Runner() as runner:
        runner.run(broker.start())
        try:
            environ = {**_checkpoints(interval), "HANDOFF_EDGE_WORKERS": str(workers)}
            with ours.edge(
                folder,
                certificates,
                origins,
                active,
                environ=environ,
                kafka=broker.bootstrap,
                core=None,
            ) as subject:
                yield subject
        finally:
            runner.run(broker.stop())


def main(folder: Path, given: argparse.Namespace) -> None:
    programs.install()
    descriptors = programs.raise_descriptor_limit()
    one = min((descriptors - SPARE) // 2, given.tunnels)
    load = Load(programs.compiled(folder), folder)
    certificates = ours.make_certificates(folder / "certificates")
    print(f"At the start: {machine()}.")
    print(
        f"A process may have {descriptors:,} descriptors: {one:,} tunnels in one process.\n",
        flush=True,
    )
    rows: list[list[str]] = []
    with load.origins(len(parted(max(one, given.tunnels), PER_ORIGIN))) as origins:
        if not given.workers:
            for start in starts(folder, certificates, origins, one, given.interval):
                with start as subject:
                    rows.append(row(subject.name, measured(load, subject, one, given.interval)))
        else:
            several = folder / "workers"
            several.mkdir()
            with on_kafka(several, certificates, origins, given.workers, given.interval) as subject:
                found = measured(load, subject, given.tunnels, given.interval)
                rows.append(row(f"{subject.name}, {given.workers} workers", found))
                print(f"{given.tunnels:,} tunnels were open after {found.opening:.1f} s.\n")
    columns: list[Any] = ["", "tunnels", "KiB RSS each", "KiB PSS each", "RSS each after messages"]
    columns += ["MiB before", "CPU idle", "CPU with a message each interval"]
    columns += ["events in it", "bytes each", "lost"]
    print(
        f"Interval of checkpoints and of messages: {given.interval} s. CPU in percent of a core.\n"
    )
    print(table(columns, rows))
    print(f"At the end: {machine()}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tunnels", type=int, default=50_000)
    parser.add_argument("--workers", type=int, default=0, help="an edge of so many, and no other")
    parser.add_argument("--interval", type=int, default=30, help="seconds, 1 to 60")
    parser.add_argument("--quick", action="store_true", help="2,000 tunnels, 5 s")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.tunnels, arguments.interval = min(arguments.tunnels, 2_000), 5
    with tempfile.TemporaryDirectory(prefix="handoff-bench-") as temporary:
        main(Path(temporary), arguments)
