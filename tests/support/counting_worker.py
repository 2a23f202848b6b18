"""One worker of a node as a process of its own, on a log of its own: what limits need of a
node, and no broker. `python -m support.counting_worker FOLDER COUNTS ORIGIN_PORT`.

Each line of its standard input is a service's limits in JSON; it answers with its port once it acts
on them. It ends with its standard input.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from handoff_common.clock import SystemClock
from handoff_common.events import BackendSnapshot, Limits
from handoff_common.log_sqlite import SqliteLog
from handoff_common.service import running
from handoff_common.telemetry import configure_logs
from handoff_edge.node_counts import NodeCounts
from handoff_edge.wiring import assemble
from support.edge_events import customer, service
from support.edge_world import edge_settings, publish, soon, until


class CountingWorker:
    """Such a process, as a test holds it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.port = 0

    @classmethod
    async def start(
        cls, folder: Path, counts: Path, origin_port: int, **limits: int
    ) -> "CountingWorker":
        folder.mkdir()
        with (folder / "worker.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "support.counting_worker",
                *map(str, (folder, counts, origin_port)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=Path(__file__).parents[1],
            )
        worker = cls(process)
        await worker.limit(**limits)
        return worker

    async def limit(self, **limits: int) -> None:
        """These are the service's limits from now on."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(limits).encode() + b"\n")
        self.port = int(await soon(self.process.stdout.readline()))

    async def kill(self) -> None:
        """kill -9, and wait until the kernel has taken it away."""
        self.process.kill()
        await soon(self.process.wait())

    async def stop(self) -> None:
        if self.process.returncode is None:
            assert self.process.stdin is not None
            self.process.stdin.close()
            await soon(self.process.wait())


async def serve(folder: Path, counts: Path, origin_port: int) -> None:
    configure_logs()
    shared = NodeCounts(counts)
    log = await SqliteLog.open(folder / "log.db")
    await publish(log, customer(1))
    clock = SystemClock()
    edge = assemble(edge_settings(folder), log=log, clock=clock, shared=shared)
    backend = BackendSnapshot(name="main", address="127.0.0.1", port=origin_port)
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    revision = 1
    async with running(edge.service):
        while line := await reader.readline():
            revision += 1
            told: Any = service(
                revision, backends=(backend,), limits=msgspec.convert(json.loads(line), Limits)
            )
            await publish(log, told)

            def acts(told: Any = told) -> bool:
                return bool(edge.configuration.book.service("svc") == told.data)

            await until(acts, "the limits are known")
            print(edge.port, flush=True)
    await log.close()
    shared.close()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
