"""Processes are waited for, killed and stopped, and none outlives whoever started it."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from support.parts.processes import Process, alive, free_port, listens
from support.parts.shared import TESTS, Run
from support.parts.waiting import eventually

SERVER = """
import http.server, sys
print("starting", flush=True)
handler = http.server.SimpleHTTPRequestHandler
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), handler)
print("ready", flush=True)
server.serve_forever()
"""


def server(tmp_path: Path, port: int) -> Process:
    return Process("server", [sys.executable, "-c", SERVER, str(port)], tmp_path / "server.log")


async def test_start_wait_kill_start_again(tmp_path: Path) -> None:
    port = free_port()
    process = server(tmp_path, port)
    for _ in range(2):
        await process.start()
        await process.wait_line("ready")
        await process.wait_listening(port)
        await process.wait_http(f"http://127.0.0.1:{port}/")
        await process.kill()
        assert process.exit_status == -signal.SIGKILL
        assert not listens(port)
        assert not alive(process.pid)
    assert process.tail().count("ready") == 2
    assert process.output().count("ready") == 1


async def test_stop_gives_the_exit_status(tmp_path: Path) -> None:
    code = "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done"
    process = Process("ender", ["sh", "-c", code], tmp_path / "log")
    await process.start()
    await process.wait_line("up")
    assert await process.stop() == 7


async def test_one_that_will_not_end_is_killed_and_fails(tmp_path: Path) -> None:
    code = "trap '' TERM; echo up; while :; do sleep 1; done"
    process = Process("stubborn", ["sh", "-c", code], tmp_path / "log")
    await process.start()
    await process.wait_line("up")
    with pytest.raises(AssertionError, match="stubborn did not end within"):
        await process.stop(seconds=0.3)
    assert not process.running


async def test_one_that_ends_by_itself_fails_with_its_log(tmp_path: Path) -> None:
    process = Process("short", ["sh", "-c", "echo no such setting >&2; exit 3"], tmp_path / "log")
    await process.start()
    with pytest.raises(AssertionError, match="short ended with 3: no such setting"):
        await process.wait_line("ready")


async def test_a_paused_process_accepts_and_does_not_answer(tmp_path: Path) -> None:
    port = free_port()
    process = server(tmp_path, port)
    await process.start()
    await process.wait_http(f"http://127.0.0.1:{port}/")
    await process.pause()
    assert listens(port)
    with pytest.raises(AssertionError, match="answers"):
        await process.wait_http(f"http://127.0.0.1:{port}/", seconds=0.2)
    process.resume()
    await process.wait_http(f"http://127.0.0.1:{port}/")
    await process.stop()


async def test_a_process_dies_with_the_one_that_started_it(tmp_path: Path) -> None:
    parent = textwrap.dedent(
        """
        import asyncio, pathlib, sys
        from support.parts.processes import Process
        async def main():
            child = Process("child", ["sleep", "600"], pathlib.Path(sys.argv[1]))
            await child.start()
            print(child.pid, flush=True)
            await asyncio.Event().wait()
        asyncio.run(main())
        """
    )
    started = Process(
        "parent",
        [sys.executable, "-c", parent, str(tmp_path / "child.log")],
        tmp_path / "parent.log",
        {"PYTHONPATH": str(TESTS)},
    )
    await started.start()
    await started.wait_line("\n")
    child = int(started.output())
    assert alive(child)
    await started.kill()

    async def gone() -> bool | None:
        return None if alive(child) else True

    await eventually(gone, "the child is gone too")


async def test_a_run_that_is_killed_leaves_no_server_and_no_folder(tmp_path: Path) -> None:
    """The shared server belongs to no worker: it ends with the run's first process, however."""
    code = textwrap.dedent(
        """
        import signal
        from support.parts.shared import Run
        run = Run.begin()
        run.address("postgres")
        assert run.address("postgres") == run.address("postgres")
        print(run.folder, run._read("postgres")["pid"], flush=True)
        signal.pause()
        """
    )
    environ = {k: v for k, v in os.environ.items() if "HANDOFF_TEST_POSTGRES" not in k}
    owner = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=TESTS,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    with owner, owner.stdout:
        line = await asyncio.to_thread(owner.stdout.readline)
        folder, pid = line.split()
        assert alive(int(pid))
        owner.kill()
        owner.wait()

    async def gone() -> bool | None:
        return None if alive(int(pid)) or Path(folder).exists() else True

    await eventually(gone, "host and folder are gone")


def test_only_one_process_is_inside_a_lock(tmp_path: Path) -> None:
    run = Run(tmp_path, os.getpid())
    with run.locked("x"):
        code = f"""
import fcntl, sys
with open({str(tmp_path / "x.lock")!r}, "w") as file:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
"""
        tried = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "BlockingIOError" in tried.stderr


def test_free_ports_are_outside_the_clients_range() -> None:
    bottom = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(1_024 < free_port() < bottom for _ in range(50))
