"""A real edge process on the embedded log, with one service or more configured before it starts."""

import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from handoff_common.events import ConnectionEvent, Envelope
from handoff_common.log_sqlite import SqliteLog
from support.edge_world import connection_events, publish
from support.parts.processes import Process, free_port


class EdgeProcess:
    def __init__(self, folder: Path, **settings: object) -> None:
        self.folder = folder
        self.port = free_port()
        admin = free_port()
        self.admin = f"http://127.0.0.1:{admin}"
        values = {
            "data_dir": folder,
            "edge_host": "127.0.0.1",
            "edge_port": self.port,
            "edge_admin_port": admin,
            "allow_private_origins": "true",
            "drain_grace": 0,
            "drain_spread": 0,
            **settings,
        }
        environ = {f"HANDOFF_{name.upper()}": str(value) for name, value in values.items()}
        command = [sys.executable, "-m", "handoff_edge", "serve"]
        self.process = Process("edge", command, folder / "edge.out", environ)

    async def ready(self) -> None:
        await self.process.wait_http(f"{self.admin}/readyz")

    async def metric(self, name: str) -> float:
        """`name` with its labels, as it stands in the text; 0 where there is none."""
        async with httpx.AsyncClient(trust_env=False) as client:
            text = (await client.get(f"{self.admin}/metrics")).text
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    async def refused(self, code: str) -> float:
        return await self.metric(f'handoff_edge_refused_total{{code="{code}"}}')

    def resident(self) -> int:
        """Bytes of memory that it has now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    def descriptors(self) -> list[int]:
        return [int(name) for name in os.listdir(f"/proc/{self.process.pid}/fd")]

    async def events(self) -> list[ConnectionEvent]:
        """What is in its log; it must have ended."""
        log = await SqliteLog.open(self.folder / "log.db")
        try:
            return await connection_events(log)
        finally:
            await log.close()


@asynccontextmanager
async def edge_process(
    folder: Path, *configuration: Envelope, **settings: object
) -> AsyncIterator[EdgeProcess]:
    """Ready, and stopped at the end where the test has not done so."""
    folder.mkdir(parents=True, exist_ok=True)
    log = await SqliteLog.open(folder / "log.db")
    await publish(log, *configuration)
    await log.close()
    edge = EdgeProcess(folder, **settings)
    await edge.process.start()
    try:
        await edge.ready()
        yield edge
    finally:
        await edge.process.stop()
