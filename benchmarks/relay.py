"""What relaying costs in CPU and in latency, beside nginx and HAProxy.

    make bench n=relay [args="--rounds 5 --seconds 2 --quick"]

The one that carries has a core of its own; clients and origin share another. All of them run
through the whole of it and take their turns within each round, so that they meet the same machine;
who does not carry sleeps. Ours are the relays alone (rig/relay_alone.py): what an edge does besides
happens before the first byte is relayed, and is the question of `handshake`.
"""

import argparse
import random
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rig import ours, peers, programs
from rig.clients import Load, run
from rig.figures import Figure, machine, ratio, table
from rig.subjects import Subject

from handoff_relay import IMPLEMENTATIONS

CONNECTIONS = 2_000
"""That each peer is set up for."""

RATE = 2_000
"""Messages a second, over 100 connections, for latency: a tenth of what any of them can do."""


@dataclass(frozen=True)
class Work:
    """size: bytes of a message. bulk: they come without end. target: of CPU, to the best peer."""

    name: str
    connections: int
    size: int
    target: float | None
    tls: bool = False
    bulk: bool = False

    @property
    def title(self) -> str:
        unit = "CPU s per GB" if self.bulk else "CPU µs each"
        return f"{self.name}{', wss' if self.tls else ''}: {unit}"


WORKS = (
    Work("100 × 64 B echo", 100, 64, 0.85),
    Work("1000 × 64 B echo", 1_000, 64, 0.85),
    Work("64 × 16 KiB echo", 64, 16_384, 0.80),
    Work("bulk of 64 KiB, 4 connections", 4, 65_536, 0.45, bulk=True),
    Work("bulk of 1 MiB, 4 connections", 4, 1_048_576, 0.45, bulk=True),
    Work("1000 × 64 B echo", 1_000, 64, None, tls=True),
    Work("64 × 16 KiB echo", 64, 16_384, None, tls=True),
    Work("bulk of 64 KiB, 4 connections", 4, 65_536, None, tls=True, bulk=True),
)


def cost(load: Load, subject: Subject, work: Work, seconds: float) -> float:
    """Microseconds of CPU per echo, or seconds per GB."""
    given: dict[str, Any] = {
        "connections": work.connections,
        "seconds": seconds,
        "size": work.size,
    }
    if work.bulk:
        found = run(load, "bulk", subject, tls=work.tls, **given)
        return found.cpu / float(found.seen["bytes"]) * 1e9
    found = run(load, "echo", subject, tls=work.tls, **given)
    return found.cpu / float(found.seen["messages"]) * 1e6


def latency(load: Load, subject: Subject, seconds: float) -> tuple[float, float]:
    """Microseconds at p50 and p99 of an echo of 64 bytes at a steady rate."""
    given: dict[str, Any] = {"connections": 100, "size": 64, "rate": RATE, "seconds": seconds}
    seen = run(load, "echo", subject, **given).seen["latency"]
    return seen["p50"], seen["p99"]


def main(rounds: int, seconds: float, folder: Path) -> None:
    programs.install()
    programs.raise_descriptor_limit()
    load = Load(programs.compiled(folder), folder)
    certificates = ours.make_certificates(folder / "certificates")
    costs: dict[Work, dict[str, Figure]] = {work: defaultdict(Figure) for work in WORKS}
    p50: dict[str, Figure] = defaultdict(Figure)
    p99: dict[str, Figure] = defaultdict(Figure)
    added: dict[str, tuple[Figure, Figure]] = defaultdict(lambda: (Figure(), Figure()))
    print(f"At the start: {machine()}.\n", flush=True)
    with ExitStack() as stack:
        origins = stack.enter_context(load.origins(1))
        given = (folder, certificates, origins)
        nginx = partial(peers.nginx, *given, connections=CONNECTIONS)
        haproxy = partial(peers.haproxy, *given, connections=CONNECTIONS)
        others = [
            stack.enter_context(started)
            for started in (
                nginx(),
                nginx(buffer=peers.LARGE),
                haproxy(),
                haproxy(splice=True),
                haproxy(buffer=peers.LARGE),
            )
        ]
        own = [stack.enter_context(ours.relay_alone(*given, name)) for name in IMPLEMENTATIONS]
        # Nobody carries for this one: the origin's own core pays.
        direct = Subject("direct", own[0].pid, origins[0])
        everyone = [*others, *own]
        for _ in range(rounds):
            for work in WORKS:
                for subject in random.sample(everyone, len(everyone)):
                    costs[work][subject.name].values.append(cost(load, subject, work, seconds))
            seen = {
                subject.name: latency(load, subject, seconds)
                for subject in random.sample([direct, *everyone], len(everyone) + 1)
            }
            for name, (middle, late) in seen.items():
                p50[name].values.append(middle)
                p99[name].values.append(late)
                added[name][0].values.append(middle - seen["direct"][0])
                added[name][1].values.append(late - seen["direct"][1])
    names = [subject.name for subject in others]
    mine = [subject.name for subject in own]
    ratios = [f"{name} / best peer" for name in mine]
    rows = []
    for work in WORKS:
        found = costs[work]
        best = [f"{ratio(found[name], (found[n] for n in names)):.2f}" for name in mine]
        target = "–" if work.target is None else f"≤ {work.target:.2f}"
        rows.append([work.title, *(found[n] for n in (*names, *mine)), *best, target])
    print(table(["work", *names, *mine, *ratios, "target"], rows))
    print(f"64 B echo over 100 connections, {RATE:,} a second together, in µs:\n")
    print(
        table(
            ["", "p50", "p99", "added at p50", "added at p99"],
            [
                [name, p50[name], p99[name], *(added[name] if name != "direct" else ("–", "–"))]
                for name in ("direct", *names, *mine)
            ],
        )
    )
    print(f"At the end: {machine()}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--quick", action="store_true", help="two rounds of 0.4 s, to see it work")
    arguments = parser.parse_args()
    chosen = (2, 0.4) if arguments.quick else (arguments.rounds, arguments.seconds)
    with tempfile.TemporaryDirectory(prefix="handoff-bench-") as temporary:
        main(chosen[0], chosen[1], Path(temporary))
