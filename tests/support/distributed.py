"""The production form of the system: each service a process of its own, on Kafka and Postgres.

It owns the processes and where they listen; broker and database server are given. Any process may
be killed and started again; `api` speaks to whichever service a path belongs to, as the gateway
does.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from handoff_common.database import Database as Migrated
from handoff_common.database import migrate
from handoff_common.log_kafka.topics import Wanted
from handoff_common.log_kafka.topics import create as create_topics
from handoff_standalone.gateway import service_of
from handoff_standalone.rest import Api
from support.parts.postgres import Address
from support.parts.processes import Process, free_port
from support.parts.waiting import eventually

READY_SECONDS = 60.0
_REST = ("config", "metering", "billing")


class Routed(httpx.AsyncBaseTransport):
    """Sends each request to the service that its path belongs to."""

    def __init__(self, ports: Mapping[str, int]) -> None:
        self._ports = ports
        self._inner = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        service = service_of(request.url.path)
        assert service is not None, f"no service has {request.url.path}"
        request.url = request.url.copy_with(host="127.0.0.1", port=self._ports[service])
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()


@dataclass
class Distributed:
    """See the module. `name` of a process: config, metering, billing, edge; `metering-1` and so on
    for further ones."""

    folder: Path
    bootstrap: str
    database: Address
    environ: Mapping[str, str] = field(default_factory=dict)
    partitions: int = 4
    processes: dict[str, Process] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    admin: dict[str, int] = field(default_factory=dict)
    prefix: str = "handoff"
    jobs: bool = False

    async def prepare(self) -> None:
        """Topics and databases, as a deployment's jobs make them: by those themselves with
        `jobs`, else by what they call, which takes a tenth of the time."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.jobs:
            await self._job("topics", ["handoff_common.log_kafka", "create"])
        else:
            await create_topics(self.bootstrap, Wanted(self.partitions, 1))
        for service in _REST:
            name = f"{self.prefix}_{service}"
            await self.database.create_database(name)
            if self.jobs:
                await self._job(f"migrate-{service}", [f"handoff_{service}", "migrate"], service)
                continue
            database = Migrated(self.database.url(name))
            try:
                await migrate(database, f"handoff_{service}")
            finally:
                await database.close()

    async def start(self, *names: str) -> None:
        """Start processes (all four where none is named) and wait until they are ready."""
        names = names or (*_REST, "edge")
        for name in names:
            await self.begin(name)
        await asyncio.gather(*(self.ready(name) for name in names))

    async def begin(self, name: str, **environ: str) -> None:
        """Start one process; it is not ready yet. environ: added for this start and later ones."""
        process = self.processes.get(name)
        if process is None:
            service = name.partition("-")[0]
            self.ports[name], self.admin[name] = free_port(), free_port()
            process = Process(
                name,
                [sys.executable, "-m", f"handoff_{service}", "serve"],
                self.folder / f"{name}.log",
                self._environ(service, name),
            )
            self.processes[name] = process
        process.environ = dict(process.environ) | environ
        await process.start()

    async def ready(self, name: str, *, seconds: float = READY_SECONDS) -> None:
        port = self.admin[name] if name.startswith("edge") else self.ports[name]
        await self.processes[name].wait_http(f"http://127.0.0.1:{port}/readyz", seconds=seconds)

    async def kill(self, name: str) -> None:
        """kill -9, and wait until the kernel has taken it away."""
        await self.processes[name].kill()

    async def restart(self, name: str) -> None:
        """Start a killed process again on what it left."""
        await self.processes[name].start()
        await self.ready(name)

    async def edges_know(self, enabled: int = 1) -> None:
        """Wait until each worker of each running edge knows of that many enabled services."""
        edges = [n for n, p in self.processes.items() if n.startswith("edge") and p.running]
        async with httpx.AsyncClient() as client:

            async def known() -> bool | None:
                for name in edges:
                    url = f"http://127.0.0.1:{self.admin[name]}/v1/edge"
                    state = (await client.get(url)).json()
                    for worker in state.get("workers", [state]):
                        if worker.get("rulebook", {}).get("enabled", 0) < enabled:
                            return None
                return True

            await eventually(known, f"the edges know {enabled} enabled services")

    async def stop(self) -> dict[str, int]:
        """SIGTERM to all, edges first; name → exit status."""
        statuses = {}
        for name in sorted(self.processes, key=lambda name: not name.startswith("edge")):
            if self.processes[name].running:
                statuses[name] = await self.processes[name].stop()
        return statuses

    @property
    def edge_port(self) -> int:
        return self.ports["edge"]

    @property
    def operator_token(self) -> str:
        return (self.folder / "config" / "operator-token").read_text().strip()

    def api(self, token: str | None = None) -> Api:
        return Api("http://gateway", token or self.operator_token, transport=Routed(self.ports))

    def log_tail(self, name: str) -> str:
        return self.processes[name].tail()

    def logged(self, name: str, event: str) -> list[dict[str, Any]]:
        """Log lines of a process with that event."""
        found = []
        for line in self.processes[name].log.read_text(errors="replace").splitlines():
            if f'"event":"{event}"' in line:
                found.append(json.loads(line))
        return found

    def _environ(self, service: str, name: str) -> dict[str, str]:
        environ = {
            "HANDOFF_LOG": f"kafka://{self.bootstrap}",
            "HANDOFF_TOPIC_REPLICATION": "1",
            "HANDOFF_TOPIC_PARTITIONS": str(self.partitions),
            "HANDOFF_DATA_DIR": str(self.folder / name),
            "HANDOFF_DATABASE_URL": self.database.url(f"{self.prefix}_{service}"),
        }
        if service == "edge":
            environ |= {
                "HANDOFF_EDGE_HOST": "127.0.0.1",
                "HANDOFF_EDGE_PORT": str(self.ports.get(name, 0)),
                "HANDOFF_EDGE_ADMIN_PORT": str(self.admin.get(name, 0)),
                "HANDOFF_ALLOW_PRIVATE_ORIGINS": "true",
                "HANDOFF_WATERMARK_INTERVAL": "0.5",
                "HANDOFF_DRAIN_GRACE": "0",
                "HANDOFF_DRAIN_SPREAD": "0.2",
            }
        else:
            environ[f"HANDOFF_{service.upper()}_PORT"] = str(self.ports.get(name, 0))
        return environ | dict(self.environ)

    def job(self, name: str, *command: str, service: str = "", **environ: str) -> Process:
        """`python -m …` with a service's settings, not started."""
        job = Process(
            name,
            [sys.executable, "-m", *command],
            self.folder / f"{name}.log",
            self._environ(service, name) | environ,
        )
        job.log.unlink(missing_ok=True)
        return job

    async def command(
        self, name: str, *command: str, service: str = "", **environ: str
    ) -> tuple[int, str]:
        """Run `python -m …` to its end with a service's settings: exit status, what it said."""
        job = self.job(name, *command, service=service, **environ)
        await job.start()

        async def ended() -> int | None:
            return job.exit_status

        status = await eventually(ended, f"{name} has ended", seconds=READY_SECONDS)
        return status, job.log.read_text(errors="replace")

    async def _job(self, name: str, command: list[str], service: str = "") -> None:
        status, said = await self.command(name, *command, service=service)
        assert status == 0, f"job {name} ended with {status}: {said}"


@asynccontextmanager
async def distributed(
    folder: Path, bootstrap: str, database: Address, **given: Any
) -> AsyncIterator[Distributed]:
    """A prepared system; what is running at the end is stopped."""
    system = Distributed(folder, bootstrap, database, **given)
    await system.prepare()
    try:
        yield system
    finally:
        await system.stop()
