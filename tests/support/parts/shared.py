"""One broker and one server per test run, shared by the workers of pytest-xdist.

The first worker that needs one starts a *host*, a process that starts the part, writes its address
into the run's folder and keeps it for as long as the run's first process lives, however that ends.
So no worker owns it, and none that dies takes it along or leaves it behind.

    python -m support.parts.shared NAME FOLDER PID     the host; NAME is kafka or postgres
"""

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support.parts import choice
from support.parts.kafka import MissingPart
from support.parts.processes import alive

START_SECONDS = 150.0
STOP_SECONDS = 40.0
TESTS = Path(__file__).resolve().parents[2]
FOLDER = "_HANDOFF_TEST_RUN"
OWNER = "_HANDOFF_TEST_RUN_OWNER"


@dataclass(frozen=True)
class Run:
    """A test run: its folder, and the process whose end is the run's end. Workers inherit it."""

    folder: Path
    owner: int

    @classmethod
    def begin(cls) -> "Run":
        """In the run's first process, before it starts workers."""
        run = cls(Path(tempfile.mkdtemp(prefix="handoff-run-")), os.getpid())
        os.environ[FOLDER], os.environ[OWNER] = str(run.folder), str(run.owner)
        return run

    @classmethod
    def current(cls) -> "Run":
        return cls(Path(os.environ[FOLDER]), int(os.environ[OWNER]))

    def address(self, name: str) -> str:
        """Of the shared part, started if need be: host:port, or postgresql://… of "postgres"."""
        if (address := choice.given(name)) is not None:
            publish(self, name, {"address": address, "pid": self.owner})
            return address
        with self.locked(f"{name}.start"):
            found = self._read(name)
            if found is None:
                found = self._start(name)
        if "error" in found:
            raise MissingPart(str(found["error"]))
        return str(found["address"])

    def used(self) -> list[str]:
        """Which parts were asked for so far, and could be had."""
        return [name for name in choice.GIVEN if "address" in (self._read(name) or {})]

    @contextlib.contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Only one process of the run is inside at a time; the lock of a dead one is free."""
        with (self.folder / f"{name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def end(self) -> None:
        """In the run's first process, as the last thing: stop the hosts, remove the folder."""
        for name in self.used():
            found = self._read(name)
            if found is not None and choice.given(name) is None:
                stop(int(found["pid"]))
        shutil.rmtree(self.folder, ignore_errors=True)

    def _note(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _read(self, name: str) -> dict[str, str | int] | None:
        """What the host wrote; None when there is none or it is dead."""
        try:
            found: dict[str, str | int] = json.loads(self._note(name).read_text())
        except FileNotFoundError:
            return None
        return found if "error" in found or alive(int(found["pid"])) else None

    def _start(self, name: str) -> dict[str, str | int]:
        self._note(name).unlink(missing_ok=True)
        log = self.folder / f"{name}-host.log"
        with log.open("ab") as output:
            # A session of its own: Ctrl-C is for the run, which then ends the host.
            host = subprocess.Popen(
                [
                    sys.executable,
                    *("-m", "support.parts.shared"),
                    *(name, str(self.folder), str(self.owner)),
                ],
                cwd=TESTS,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while (found := self._read(name)) is None:
            if host.poll() is not None and self._read(name) is None:
                raise AssertionError(f"the host of {name} ended: {log.read_text()[-3000:]}")
            if time.monotonic() > deadline:
                host.kill()
                raise AssertionError(f"{name} did not start: {log.read_text()[-3000:]}")
            time.sleep(0.05)
        # It outlives this worker and is not its child to wait for.
        host.returncode = 0
        return found


def stop(pid: int) -> None:
    """SIGTERM to a host, which stops what it keeps; SIGKILL if that takes too long."""
    deadline = time.monotonic() + STOP_SECONDS
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        while alive(pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


async def host(name: str, run: Run) -> None:
    """Keep the part until SIGTERM or until the run's owner is gone."""
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, over.set)

    async def watch_owner() -> None:
        while alive(run.owner):
            await asyncio.sleep(0.5)
        over.set()

    watch = asyncio.create_task(watch_owner())
    try:
        # Nothing shared is ever killed, so commits need not reach the disk.
        if name == "kafka":
            async with choice.new_broker(run.folder / "kafka") as broker:
                publish(run, name, {"address": broker.bootstrap, "pid": os.getpid()})
                await over.wait()
        else:
            async with choice.new_server(durable=False) as server:
                publish(run, name, {"address": server.address.dsn(), "pid": os.getpid()})
                await over.wait()
    except MissingPart as missing:
        publish(run, name, {"error": str(missing)})
    finally:
        watch.cancel()
    if not alive(run.owner):
        shutil.rmtree(run.folder, ignore_errors=True)


def publish(run: Run, name: str, note: dict[str, str | int]) -> None:
    partial = run.folder / f"{name}.{os.getpid()}.partial"
    partial.write_text(json.dumps(note))
    partial.replace(run.folder / f"{name}.json")


if __name__ == "__main__":
    asyncio.run(host(sys.argv[1], Run(Path(sys.argv[2]), int(sys.argv[3]))))
