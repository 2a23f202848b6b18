"""What a handshake costs: connect, upgrade, close, in CPU, beside nginx and HAProxy; and a storm.

    make bench n=handshake [args="--rounds 5 --seconds 2 --quick"]
    make bench n=handshake args=--profile

An edge does more than its peers: it decides by a rule book, writes `accepted` to its journal with a
sync before the client sees its 101, meters, and writes `closed`. All of that is in its figures, and
so is what it does up to a moment after the last connection has ended. Peers write no access log.

Whoever is asked has a core of its own; clients and origin share another. Each of them runs through
all rounds and they take their turns within each. A connection is opened, sends a Close frame at
once, gets the origin's, and sees the end of the stream. With TLS the handshake is a whole one,
without resumption, and the client leaves once its Close was answered, whoever is asked.

In a storm, clients from eight networks connect all at once to a process that has just been started,
and stay. Who is refused comes again 0.2 s later; a time is counted from the connect that led to the
101.

`--profile` says where the CPU of the edge's handshakes goes, 64 at once: by thread, by function of
Python (cProfile, which makes calls dearer than they are), and by symbol (perf, where there is one).
"""

import argparse
import json
import os
import pstats
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from rig import ours, peers, programs
from rig.clients import Load, run
from rig.figures import Figure, machine, ratio, shown, table
from rig.measured import Cpu, Memory
from rig.subjects import Subject

from handoff_relay import IMPLEMENTATIONS, active

SETTLE_SECONDS = 0.4
"""In which the edge writes the last `closed`."""

STORM = 10_000
NETWORKS = 8
"""Whence a storm comes: an edge bounds the heads that it waits for from any one /24."""

SPARE = 200
"""Descriptors that a process needs besides two for each connection."""

AT_ONCE = (1, 64)
LINES = 40

Start = Callable[[Path], AbstractContextManager[Subject]]


def everyone(certificates: Path, origins: list[int], connections: int) -> dict[str, Start]:
    """Ways to start each that is compared, in a folder of its own."""
    found: dict[str, Start] = {
        "nginx": lambda folder: peers.nginx(folder, certificates, origins, connections=connections),
        "HAProxy": lambda folder: peers.haproxy(
            folder, certificates, origins, connections=connections
        ),
    }
    for name in IMPLEMENTATIONS:
        found[f"{name} relay"] = partial(
            ours.relay_alone, certificates=certificates, origins=origins, relay=name
        )
        found[f"edge, {name} relay"] = partial(
            ours.edge, certificates=certificates, origins=origins, relay=name
        )
    return found


def cost(
    load: Load, subject: Subject, seconds: float, *, at_once: int, tls: bool
) -> tuple[float, float, Counter[str]]:
    """Milliseconds of CPU per handshake, microseconds to the 101 at p50, and what went wrong."""
    given: dict[str, Any] = {"concurrency": at_once, "seconds": seconds, "leave": int(tls)}
    found = run(load, "handshake", subject, settle=SETTLE_SECONDS, tls=tls, **given)
    took = float(found.seen["opening"]["p50"])
    if not found.seen["finished"]:
        raise RuntimeError(f"{subject.name}, {at_once} at once, TLS {tls}: {found.seen}")
    return found.cpu / found.seen["finished"] * 1e3, took, Counter(found.seen["outcomes"])


def handshakes(
    load: Load, folder: Path, starts: dict[str, Start], rounds: int, seconds: float
) -> None:
    kinds = [(at_once, tls) for tls in (False, True) for at_once in AT_ONCE]
    cpu: dict[tuple[int, bool], dict[str, Figure]] = {kind: defaultdict(Figure) for kind in kinds}
    took: dict[tuple[int, bool], dict[str, Figure]] = {kind: defaultdict(Figure) for kind in kinds}
    wrong: dict[str, Counter[str]] = defaultdict(Counter)
    with ExitStack() as stack:
        subjects = [stack.enter_context(start(folder)) for start in starts.values()]
        for number in range(-1, rounds):
            for kind in kinds:
                for subject in random.sample(subjects, len(subjects)):
                    # A first one, short and uncounted: what is loaded once costs no handshake.
                    brief = seconds if number >= 0 else 0.2
                    ms, us, outcomes = cost(load, subject, brief, at_once=kind[0], tls=kind[1])
                    wrong[subject.name] += outcomes
                    if number >= 0:
                        cpu[kind][subject.name].values.append(ms)
                        took[kind][subject.name].values.append(us)
    names = list(starts)
    edges = [name for name in names if name.startswith("edge")]
    rows = []
    for at_once, tls in kinds:
        found = cpu[at_once, tls]
        ratios = [f"{ratio(found[name], [found['nginx']]):.2f}" for name in edges]
        title = (
            f"{'one at a time' if at_once == 1 else f'{at_once} at once'}{', wss' if tls else ''}"
        )
        target = "≤ 2.5, the aim is 1.5" if at_once > 1 and not tls else "–"
        rows.append([title, *(found[name] for name in names), *ratios, target])
    print("CPU ms of a handshake, from connect to close:\n")
    print(table(["", *names, *(f"{name} / nginx" for name in edges), "target"], rows))
    print("Microseconds from connect to the 101, p50:\n")
    rows = [
        [
            f"{at_once} at once{', wss' if tls else ''}",
            *(took[at_once, tls][name] for name in names),
        ]
        for at_once, tls in kinds
    ]
    print(table(["", *names], rows))
    for name, outcomes in wrong.items():
        if outcomes:
            print(f"{name}: not all went well: {dict(outcomes)}\n")


def storm(load: Load, folder: Path, starts: dict[str, Start], count: int, rounds: int) -> None:
    columns = ("all open, s", "101 at p50, ms", "at p99, ms", "CPU ms each", "RSS MiB", "KiB each")
    figures: dict[str, dict[str, Figure]] = {
        name: {column: Figure() for column in columns} for name in starts
    }
    refused: dict[str, Counter[str]] = defaultdict(Counter)
    for number in range(rounds):
        for name in random.sample(list(starts), len(starts)):
            home = folder / f"storm-{number}"
            home.mkdir(exist_ok=True)
            with starts[name](home) as subject:
                run(load, "handshake", subject, settle=SETTLE_SECONDS, concurrency=8, seconds=0.2)
                memory, before = Memory.of(subject.pid), Cpu.of(subject.pid)
                with load.client(
                    "hold", subject, connections=count, concurrency=count, sources=NETWORKS
                ) as clients:
                    seen = json.loads(clients.line())
                    time.sleep(SETTLE_SECONDS)
                    cpu, after = Cpu.of(subject.pid).since(before), Memory.of(subject.pid)
            each = (after.rss - memory.rss) / count
            values = (
                seen["seconds"],
                seen["opening"]["p50"] / 1e3,
                seen["opening"]["p99"] / 1e3,
                cpu / count * 1e3,
                after.rss / 1024,
                each,
            )
            for column, value in zip(columns, values, strict=True):
                figures[name][column].values.append(value)
            refused[name] += Counter(seen["outcomes"])
    print(f"{count:,} clients at once, {rounds} storms; refusals are the sum of all storms:\n")
    rows = [
        [name, *(figures[name][column] for column in columns), _text(refused[name])]
        for name in starts
    ]
    print(table(["", *columns, "refused, by code"], rows))


def _text(outcomes: Counter[str]) -> str:
    return ", ".join(f"{code} {count:,}" for code, count in sorted(outcomes.items())) or "none"


def profile(load: Load, folder: Path, certificates: Path, origins: list[int], relay: str) -> None:
    given: dict[str, Any] = {"concurrency": 64, "settle": SETTLE_SECONDS}
    edge = partial(ours.edge, certificates=certificates, origins=origins, relay=relay)
    with edge(folder / "perf") as subject:
        run(load, "handshake", subject, seconds=1.0, **given)
        found = run(load, "handshake", subject, seconds=3.0, **given)
        print(f"CPU by thread, {relay} relay, {found.seen['finished']:,} handshakes:\n")
        each = 1e6 / found.seen["finished"]
        rows = [[name, shown(s * each)] for name, s in Counter(found.threads).most_common()]
        print(table(["thread", "µs each"], [*rows, ["all", shown(found.cpu * each)]]))
        if perf := shutil.which("perf"):
            data = folder / "perf.data"
            command = [perf, "record", "-q", "-e", "cpu-clock", "-F", "2000", "-p"]
            with programs.running(
                [*command, subject.pid, "-o", data, "--", "sleep", "4"],
                folder / "perf.log",
                core=None,
            ) as recording:
                run(load, "handshake", subject, seconds=3.0, **given)
                recording.wait()
            for sort in ("comm,dso", "comm,dso,symbol"):
                _perf_report(perf, data, sort)
    data = folder / "cprofile"
    with edge(folder / "cprofiled", profile=data) as subject:
        run(load, "handshake", subject, seconds=1.0, **given)
        os.kill(subject.pid, signal.SIGUSR1)
        found = run(load, "handshake", subject, seconds=5.0, **given)
        os.kill(subject.pid, signal.SIGUSR2)
        programs.until(data.exists, "the profile is written")
    print(f"cProfile of the event loop's thread, {found.seen['finished']:,} handshakes:\n")
    print(_by_file(pstats.Stats(str(data)), found.seen["finished"]))
    statistics = pstats.Stats(str(data)).strip_dirs()
    statistics.sort_stats("tottime").print_stats(LINES)
    statistics.sort_stats("cumtime").print_stats(LINES)


def _by_file(statistics: pstats.Stats, handshakes: int) -> str:
    """Own time of all functions of a file; what is in C has the name of the function."""
    own: Counter[str] = Counter()
    for (file, _, function), (_, _, seconds, _, _) in statistics.stats.items():  # type: ignore[attr-defined]
        name = "/".join(Path(file).parts[-2:]) if "/" in file else function
        own[name] += seconds
    whole = sum(own.values())
    rows = [
        [name, f"{seconds / whole * 100:.1f} %", shown(seconds / handshakes * 1e6)]
        for name, seconds in own.most_common(LINES)
    ]
    return table(["file, or function in C", "own time", "µs each"], rows)


def _perf_report(perf: str, data: Path, sort: str) -> None:
    command = [perf, "report", "--stdio", "-q", "--no-children", "-i", str(data), "-s", sort]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = [line.rstrip() for line in said.splitlines() if line.strip()]
    print(f"perf by {sort}:\n")
    print("\n".join(lines[:LINES]) + "\n")


def main(folder: Path, given: argparse.Namespace) -> None:
    programs.install()
    most = (programs.raise_descriptor_limit() - SPARE) // 2
    load = Load(programs.compiled(folder), folder)
    certificates = ours.make_certificates(folder / "certificates")
    print(f"At the start: {machine()}.\n", flush=True)
    with load.origins(1) as origins:
        if given.profile:
            profile(load, folder, certificates, origins, given.relay)
            return
        count = min(given.storm, most)
        starts = everyone(certificates, origins, count)
        if given.rounds:
            handshakes(load, folder, starts, given.rounds, given.seconds)
        if count < given.storm:
            print(
                f"A process may have {2 * most + SPARE:,} descriptors here, so {count:,} clients.\n"
            )
        if given.storms:
            storm(load, folder, starts, count, given.storms)
    print(f"At the end: {machine()}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--storms", type=int, default=3)
    parser.add_argument("--storm", type=int, default=STORM, help="clients that come at once")
    parser.add_argument("--quick", action="store_true", help="two short rounds and one storm")
    parser.add_argument("--profile", action="store_true", help="of the edge, and nothing else")
    parser.add_argument("--relay", choices=list(IMPLEMENTATIONS), default=active)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.seconds = min(arguments.rounds, 2), 0.5
        arguments.storms, arguments.storm = min(arguments.storms, 1), min(arguments.storm, 2_000)
    with tempfile.TemporaryDirectory(prefix="handoff-bench-") as temporary:
        main(Path(temporary), arguments)
