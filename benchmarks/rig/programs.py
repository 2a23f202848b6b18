"""Programs that a benchmark runs: made or installed, pinned to a core, and ended with it."""

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

_HERE = Path(__file__).parent
_SOURCE = _HERE.parent / "load" / "load.c"
_PACKAGES = {
    "/usr/sbin/nginx": "nginx-light",
    "/usr/sbin/haproxy": "haproxy",
    "/usr/bin/cc": "gcc",
    "/usr/include/stdlib.h": "libc6-dev",
    "/usr/include/openssl/ssl.h": "libssl-dev",
}
_STOP_SECONDS = 30.0

RELAY_CORE = 0
LOAD_CORE = (os.cpu_count() or 1) - 1
"""Whoever is measured has a core of its own; clients and origin share another."""


def install() -> None:
    """What is missing of the peers and of the compiler, from Debian. Ends the benchmark where that
    cannot be done."""
    missing = [name for path, name in _PACKAGES.items() if not Path(path).exists()]
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        sys.exit(f"the benchmarks need these packages of Debian: {' '.join(missing)}")
    print(f"installing for the benchmarks: {' '.join(missing)}", file=sys.stderr)
    # A peer is started by the benchmark alone: the run level keeps Debian from doing so.
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    get = ["apt-get", "-o", "DPkg::Lock::Timeout=300", "-qq", "-y", "--no-install-recommends"]
    quiet = {"env": environ, "stdout": subprocess.DEVNULL, "check": False}
    if subprocess.run([*get, "install", *missing], **quiet).returncode:  # type: ignore[call-overload]
        subprocess.run([*get, "update"], **quiet)  # type: ignore[call-overload]
        if subprocess.run([*get, "install", *missing], **quiet).returncode:  # type: ignore[call-overload]
            sys.exit(f"these packages could not be installed: {' '.join(missing)}")


def compiled(folder: Path) -> Path:
    """The load program."""
    program = folder / "load"
    subprocess.run(
        ["cc", "-O2", "-Wall", "-Wextra", "-o", program, _SOURCE, "-lssl", "-lcrypto"], check=True
    )
    return program


def raise_descriptor_limit() -> int:
    """As far as the system lets us, also for the programs that are started; what it is now."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class Program:
    """One that runs. Its input and output are lines; what it complains of is in its log."""

    def __init__(self, process: "subprocess.Popen[str]", log: Path) -> None:
        self._process = process
        self.log = log

    @property
    def pid(self) -> int:
        return self._process.pid

    def check_running(self) -> None:
        if self._process.poll() is not None:
            raise RuntimeError(
                f"{self._process.args!r} ended with {self._process.returncode}: {self._tail()}"
            )

    def line(self) -> str:
        """The next line that it says. Raises RuntimeError where it ended instead."""
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            return line.strip()
        self._process.wait()
        self.check_running()
        raise RuntimeError("it said nothing")

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def close_input(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def wait(self, seconds: float = _STOP_SECONDS) -> int:
        return self._process.wait(seconds)

    def stop(self) -> None:
        """End it in order, and by force where that takes too long."""
        self.close_input()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _tail(self) -> str:
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""


@contextmanager
def running(
    command: Sequence[object],
    log: Path,
    *,
    core: int | None,
    environ: Mapping[str, str] | None = None,
) -> Iterator[Program]:
    """A program on one core (None: on any), until the block ends. It dies with this process, also
    where that is killed."""
    guard = ["setpriv", "--pdeathsig", "KILL", "--"]
    pin = ["taskset", "--cpu-list", str(core)] if core is not None else []
    words = [*guard, *pin, *(str(word) for word in command)]
    with log.open("ab") as complaints:
        process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env={**os.environ, **(environ or {})},
            text=True,
        )
    program = Program(process, log)
    try:
        yield program
    finally:
        program.stop()


def until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"after {seconds:.0f} s it is still not so that {what}")
        time.sleep(0.02)
