"""The console as a process of its own, and the APIs behind a network that hangs."""

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from support.console import Visitor
from support.embedded import Embedded, Tenant
from support.parts.processes import Process, free_port
from support.parts.proxy import Proxy

pytestmark = [pytest.mark.timeout(120), pytest.mark.xdist_group("console-away")]

SOON = 20.0


@dataclass
class Apart:
    someone: Visitor
    network: Proxy


@pytest.fixture
async def apart(system: Embedded, tenant: Tenant, tmp_path: Path) -> AsyncIterator[Apart]:
    """Somebody who has signed in to a console that reaches the APIs over a network."""
    port = free_port()
    async with Proxy(int(urlsplit(system.api_url).port or 0)) as network:
        environ = {
            "HANDOFF_CONSOLE_API_URL": f"http://127.0.0.1:{network.port}",
            "HANDOFF_CONSOLE_PORT": str(port),
            "HANDOFF_DATA_DIR": str(tmp_path / "console"),
        }
        command = [sys.executable, "-m", "handoff_console", "serve"]
        process = Process("the console", command, tmp_path / "console.log", environ)
        await process.start()
        try:
            await process.wait_listening(port)
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}",
                trust_env=False,
                timeout=60,
                headers={"Accept": "text/html"},
            ) as http:
                someone = Visitor(http)
                await someone.sign_in(tenant.tokens["engineer"])
                yield Apart(someone, network)
        finally:
            await process.stop()


async def test_signing_out_does_not_wait_for_an_api_that_hangs(apart: Apart) -> None:
    """Whoever walks away from a machine must not have to stand by it."""
    apart.network.blackhole()
    async with asyncio.timeout(SOON):
        answer = await apart.someone.post("/sign-out")
    assert answer.status_code == 303 and answer.headers["location"] == "/sign-in"
    assert (await apart.someone.get("/services")).headers["location"].startswith("/sign-in")


async def test_an_api_that_cannot_be_reached_is_said_so(apart: Apart) -> None:
    await apart.network.cut()
    answer = await apart.someone.get("/services")
    assert answer.status_code == 503 and "cannot be reached" in answer.text
    apart.network.restore()
    assert (await apart.someone.get("/services")).status_code == 200
