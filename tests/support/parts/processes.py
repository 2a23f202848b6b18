"""Processes that tests start, wait for, kill by id, stop and start again. It owns the process, its
log file and its end; it does not know what the process is.

A process started here dies with the one that started it, even by kill -9: the kernel sends it
SIGKILL (`setpriv --pdeathsig`; where that program is missing, as outside Linux, only an orderly end
cleans up).
"""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from support.parts.waiting import eventually

START_SECONDS = 60.0
STOP_SECONDS = 40.0
TAIL = 3_000


def free_port() -> int:
    """A port on loopback that nobody listens on, outside the range of the clients' own ports.

    A client that tries again and again to reach a dead server is sooner or later given the server's
    port as its own and then talks to itself; a port from outside that range stays free for the
    restart.
    """
    try:
        bounds = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
        top = int(bounds[0])
    except OSError:
        top = 32_768
    chance = random.SystemRandom()
    for _ in range(200):
        port = chance.randrange(10_240, max(top, 10_241 + 1_000))
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise AssertionError("no free port on loopback")


def listens(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a connection is accepted there now."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, port)) == 0


def alive(pid: int) -> bool:
    """Whether there is such a process, and it is not merely waiting to be collected."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return False
    else:
        return stat.rpartition(")")[2].split()[0] not in "ZX"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@dataclass
class Process:
    """One command with its log file, to which every start adds.

    environ: added to this process's own. user: whom to run as; only root may ask for that.
    """

    name: str
    command: Sequence[str]
    log: Path
    environ: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    cwd: Path | None = None
    _process: asyncio.subprocess.Process | None = None
    _log_start: int = 0

    async def start(self) -> None:
        """Start it; it is not ready yet."""
        assert not self.running, f"{self.name} runs already"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._process = await asyncio.create_subprocess_exec(
                *self._guard(),
                *self.command,
                env={**os.environ, **self.environ},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.cwd,
            )

    def _guard(self) -> list[str]:
        guard = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        if self.user is not None:
            assert guard, f"setpriv (util-linux) is needed to run {self.name} as {self.user}"
            guard += ["--reuid", self.user, "--regid", self.user, "--init-groups"]
        return [*guard, "--"] if guard else []

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return None if self._process is None else self._process.returncode

    def check_running(self) -> None:
        """Fails with the end of the log if it has ended by itself."""
        assert self.running, f"{self.name} ended with {self.exit_status}: {self.tail()}"

    def output(self) -> str:
        """What it wrote since its last start."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def tail(self, size: int = TAIL) -> str:
        """The end of the log, for messages."""
        return self.log.read_text(errors="replace")[-size:] if self.log.exists() else ""

    async def wait_line(self, text: str, *, seconds: float = START_SECONDS) -> None:
        """Until `text` is in what it wrote since its last start."""

        async def said() -> bool | None:
            if text in self.output():
                return True
            self.check_running()
            return None

        await self._until(said, f"wrote {text!r}", seconds)

    async def wait_listening(self, port: int, *, seconds: float = START_SECONDS) -> None:
        """Until it accepts connections at this port of loopback."""

        async def accepts() -> bool | None:
            self.check_running()
            return listens(port) or None

        await self._until(accepts, f"listens on port {port}", seconds)

    async def wait_http(self, url: str, *, seconds: float = START_SECONDS) -> None:
        """Until a GET of `url` is answered with 200."""
        last = "nothing was answered"
        async with httpx.AsyncClient(trust_env=False, timeout=min(5.0, seconds)) as client:

            async def answers() -> bool | None:
                nonlocal last
                self.check_running()
                with contextlib.suppress(httpx.TransportError):
                    answer = await client.get(url)
                    last = f"{answer.status_code} {answer.text[:500]}"
                    return answer.status_code == 200 or None
                return None

            try:
                await self._until(answers, f"answers {url} with 200", seconds)
            except AssertionError as late:
                raise AssertionError(f"it said last: {last}; {late}") from None

    async def _until(
        self, ask: Callable[[], Awaitable[bool | None]], what: str, seconds: float
    ) -> None:
        try:
            await eventually(ask, f"{self.name} {what}", seconds=seconds)
        except AssertionError as late:
            if not self.running:
                raise
            raise AssertionError(f"{late}; its log ends: {self.tail()}") from None

    async def kill(self) -> None:
        """kill -9, and wait until the kernel has taken it away."""
        assert self._process is not None, f"{self.name} was never started"
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGKILL)
        await self._process.wait()

    async def stop(
        self, *, seconds: float = STOP_SECONDS, signum: signal.Signals = signal.SIGTERM
    ) -> int:
        """Ask it to end, and its exit status. One that does not end in time is killed and fails."""
        assert self._process is not None, f"{self.name} was never started"
        started = time.monotonic()
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signum)
                self._process.send_signal(signal.SIGCONT)
        try:
            async with asyncio.timeout(seconds):
                return await self._process.wait()
        except TimeoutError:
            await self.kill()
            waited = time.monotonic() - started
            raise AssertionError(
                f"{self.name} did not end within {waited:.0f} s of {signum.name}: {self.tail()}"
            ) from None

    async def pause(self) -> None:
        """SIGSTOP: it answers nothing, while the kernel still accepts connections for it. Every one
        of its threads has stopped when this returns."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        threads = Path(f"/proc/{self.pid}/task")

        async def stopped() -> bool | None:
            states = [
                (thread / "stat").read_text().rpartition(")")[2].split()[0]
                for thread in threads.iterdir()
            ]
            return all(state == "T" for state in states) or None

        if threads.exists():
            await eventually(stopped, f"{self.name} has stopped", seconds=STOP_SECONDS)

    def resume(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
