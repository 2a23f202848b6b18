"""The embedded system as a process of its own: started, killed, started again."""

import asyncio
import json
import secrets
import sys
import threading
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from handoff_standalone.rest import Api, CallFailed
from support.parts.processes import Process
from support.parts.waiting import eventually

START_SECONDS = 40.0


class HasApi(Protocol):
    """A running system, in whatever form."""

    def api(self, token: str | None = None) -> Api:
        """Its REST APIs; the operator's where no token is given."""


@dataclass
class Embedded:
    """One data folder, and the process that runs on it."""

    data: Path
    environ: Mapping[str, str] = field(default_factory=dict)
    process: Process | None = None
    endpoints: dict[str, Any] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()

    async def start(self) -> None:
        """Start and wait until it is ready. The log goes to `<data>/system.log`."""
        self.data.mkdir(parents=True, exist_ok=True)
        (self.data / "endpoints.json").unlink(missing_ok=True)
        environ = {
            "HANDOFF_DATA_DIR": str(self.data),
            "HANDOFF_API_PORT": "0",
            "HANDOFF_EDGE_HOST": "127.0.0.1",
            "HANDOFF_EDGE_PORT": "0",
            "HANDOFF_EDGE_ADMIN_PORT": "0",
            "HANDOFF_ALLOW_PRIVATE_ORIGINS": "true",
            "HANDOFF_WATERMARK_INTERVAL": "0.5",
            "HANDOFF_DRAIN_GRACE": "0",
            "HANDOFF_DRAIN_SPREAD": "0.2",
            **self.environ,
        }
        self.process = process = Process(
            "the system",
            [sys.executable, "-m", "handoff_standalone", "up", *self.arguments],
            self.data / "system.log",
            environ,
        )
        await process.start()

        async def ready() -> bool | None:
            process.check_running()
            file = self.data / "endpoints.json"
            if not file.exists():
                return None
            self.endpoints = json.loads(file.read_text())
            async with Api(self.api_url, "none") as api:
                try:
                    await api.call("GET", "/readyz")
                except CallFailed:
                    return None
            return True

        await eventually(ready, f"ready: {self.log_tail()}", seconds=START_SECONDS)

    @property
    def api_url(self) -> str:
        return str(self.endpoints["api_url"])

    @property
    def edge_port(self) -> int:
        return int(self.endpoints["edge_port"])

    @property
    def operator_token(self) -> str:
        return (self.data / "operator-token").read_text().strip()

    def log_tail(self) -> str:
        return "" if self.process is None else self.process.tail()

    def api(self, token: str | None = None) -> Api:
        return Api(self.api_url, token or self.operator_token)

    async def kill(self) -> None:
        """kill -9, and wait until the kernel has taken it away."""
        assert self.process is not None
        await self.process.kill()

    async def stop(self) -> int:
        """SIGTERM, and the exit status."""
        assert self.process is not None
        return await self.process.stop()


@contextmanager
def shared(data: Path, **environ: str) -> Iterator[Embedded]:
    """A system for several tests, each of which has an event loop of its own: this one lives on a
    loop in a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="shared system")
    thread.start()

    def wait(work: Coroutine[Any, Any, Any]) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result(2 * START_SECONDS)

    system = Embedded(data, environ)
    try:
        wait(system.start())
        yield system
        wait(system.stop())
    finally:
        # Where a stop has failed: the process dies with the thread that began it.
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@dataclass(frozen=True)
class Tenant:
    """A customer with one token per role, and a service that it has."""

    customer_id: str
    service_id: str
    domain: str
    tokens: Mapping[str, str]


async def make_customer(system: HasApi, name: str = "Example", **contract: Any) -> str:
    """A paid customer with a contract for WebSockets in force; its id."""
    async with system.api() as operator:
        body = {"name": name, "account_type": "paid", "billing_email": "b@example.com"}
        customer_id = str((await operator.call("POST", "/v1/customers", body))["id"])
        starts = (datetime.now(UTC) - timedelta(days=100)).strftime("%Y-%m-%dT00:00:00Z")
        await operator.call(
            "POST",
            f"/v1/customers/{customer_id}/contracts",
            {"product": "websockets", "starts_at": starts, "ends_at": None} | contract,
        )
    return customer_id


async def make_tokens(system: HasApi, customer_id: str) -> dict[str, str]:
    """Role → token of a user with that role."""
    tokens = {}
    async with system.api() as operator:
        for role in ("superuser", "engineer", "billing", "user"):
            user = await operator.call(
                "POST",
                f"/v1/customers/{customer_id}/users",
                {"login": f"{role}@{customer_id}.example", "name": role, "role": role},
            )
            made = await operator.call(
                "POST", f"/v1/users/{user['id']}/tokens", {"name": "test", "scope": "global"}
            )
            tokens[role] = made["access_token"]
    return tokens


async def make_tenant(
    system: HasApi,
    *,
    origin_port: int,
    domain: str = "",
    enable: bool = True,
    backend: Mapping[str, Any] | None = None,
    **contract: Any,
) -> Tenant:
    """A customer, its tokens, and an active service with one backend, at `domain` or at one that no
    other test has."""
    domain = domain or f"{secrets.token_hex(4)}.example.com"
    customer_id = await make_customer(system, domain, **contract)
    tokens = await make_tokens(system, customer_id)
    async with system.api(tokens["engineer"]) as engineer:
        service = await engineer.call("POST", "/service", {"name": domain, "type": "vcl"})
        service_id = service["id"]
        version = f"/service/{service_id}/version/1"
        await engineer.call("POST", f"{version}/domain", {"name": domain})
        await engineer.call(
            "POST",
            f"{version}/backend",
            {"name": "origin", "address": "127.0.0.1", "port": origin_port, "use_ssl": False}
            | dict(backend or {}),
        )
        await engineer.call("PUT", f"{version}/activate")
        if enable:
            await engineer.call("PUT", f"/enabled-products/v1/websockets/services/{service_id}")
    return Tenant(customer_id, service_id, domain, tokens)
