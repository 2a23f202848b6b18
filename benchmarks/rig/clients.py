"""The load program at work: origins, and clients of each kind. See load/load.c."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handoff_edge.answer import accept_for
from rig.measured import Cpu
from rig.programs import LOAD_CORE, Program, running
from rig.subjects import Subject

KEY = "aGFuZG9mZiBtZWFzdXJlcw=="
LIMIT_SECONDS = 600
"""After that the load program ends itself, whatever it is at."""


@dataclass(frozen=True)
class Load:
    """Where the compiled program is, and where its complaints go."""

    program: Path
    folder: Path

    @contextmanager
    def origins(self, count: int) -> Iterator[list[int]]:
        """The ports of so many origins, each a process."""
        with ExitStack() as stack:
            found = []
            for number in range(count):
                words: list[object] = [
                    self.program,
                    "serve",
                    "--key",
                    KEY,
                    "--accept",
                    accept_for(KEY),
                ]
                words += ["--limit", str(24 * 3600)]
                log = self.folder / f"origin-{number}.log"
                origin = stack.enter_context(running(words, log, core=LOAD_CORE))
                found.append(int(origin.line().split()[1]))
            yield found

    @contextmanager
    def client(
        self, kind: str, subject: Subject, *, tls: bool = False, **given: Any
    ) -> Iterator[Program]:
        """A client of that kind, started."""
        port = subject.tls_port if tls else subject.port
        words: list[object] = [self.program, kind, "--to", f"127.0.0.1:{port}", "--key", KEY]
        words += ["--host", ",".join(subject.hosts), "--tls", str(int(tls))]
        words += ["--limit", str(LIMIT_SECONDS)]
        for name, value in given.items():
            words += [f"--{name}", str(value)]
        with running(words, self.folder / "clients.log", core=LOAD_CORE) as program:
            yield program


@dataclass(frozen=True)
class Run:
    """What the clients saw, and what it cost whoever was asked. cpu: seconds."""

    seen: dict[str, Any]
    cpu: float
    threads: dict[str, float]


def run(
    load: Load, kind: str, subject: Subject, *, settle: float = 0.0, tls: bool = False, **given: Any
) -> Run:
    """One run of `echo`, `bulk` or `handshake`. settle: seconds after its end in which what it left
    behind still counts: a journal is written a little later than a connection ends."""
    with load.client(kind, subject, tls=tls, **given) as client:
        if kind != "handshake":
            assert client.line() == "open"
        before = Cpu.of(subject.pid)
        client.tell("go")
        seen = json.loads(client.line())
        if settle:
            time.sleep(settle)
        after = Cpu.of(subject.pid)
    return Run(seen, after.since(before), dict(after.by_thread(before)))


def parted(count: int, most: int) -> Sequence[int]:
    """A number in as few nearly equal parts as keep below `most`."""
    parts = -(-count // most)
    return [count // parts + (number < count % parts) for number in range(parts)]
