"""Every operation of every REST service, given what its own OpenAPI document allows, and what it
does not: never a server error, and every answer is one that the document describes."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.embedded import Embedded, Tenant, make_tenant

pytestmark = [pytest.mark.timeout(300)]

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)
# They would take away the token, the customer's people or the service that all the others need.
ENDS_THE_RUN = ("/tokens/self", "/tokens", "/service/{service_id}", "/user/{user_id}")
# Deep enough to meet each operation's refusals.
EXAMPLES = 8


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[Embedded]:
    system = Embedded(tmp_path / "data")
    await system.start()
    yield system
    assert await system.stop() == 0


@pytest.fixture
async def known(system: Embedded) -> dict[str, str]:
    """Path parameters of objects that are there, so that calls get past 404."""
    tenant: Tenant = await make_tenant(system, origin_port=9)
    async with system.api(tenant.tokens["engineer"]) as api:
        version = f"/service/{tenant.service_id}/version"
        await api.call("PUT", f"{version}/1/clone")
        await api.call("POST", f"{version}/2/director", {"name": "origin"})
        await api.call(
            "POST", f"{version}/2/websocket-rule", {"name": "origin", "backend": "origin"}
        )
    async with system.api(tenant.tokens["superuser"]) as api:
        [invoice] = (await api.call("GET", "/v1/invoices"))["data"]
    return {
        "service_id": tenant.service_id,
        "customer_id": tenant.customer_id,
        "invoice_id": invoice["invoice_id"],
        "price_book_id": "example",
        "version": "2",
        "number": "2",
        "name": "origin",
        "backend": "origin",
        "director": "origin",
        "superuser": tenant.tokens["superuser"],
    }


@pytest.mark.parametrize(
    ("service", "who"),
    [
        ("billing", "operator"),
        ("billing", "superuser"),
        ("metering", "superuser"),
        ("config", "operator"),
    ],
)
async def test_no_request_breaks_a_service(
    system: Embedded, known: dict[str, str], tmp_path: Path, service: str, who: str
) -> None:
    token = system.operator_token if who == "operator" else known["superuser"]
    parameters = {f"path.{name}": value for name, value in known.items() if name != "superuser"}
    config = tmp_path / "schemathesis.toml"
    config.write_text(
        "[parameters]\n"
        + "".join(f"{json.dumps(name)} = {json.dumps(v)}\n" for name, v in parameters.items())
    )
    excluded = [part for path in ENDS_THE_RUN for part in ("--exclude-path", path)]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run"),
        f"{system.api_url}/{service}/openapi.json",
        *("--url", system.api_url, "--header", f"Fastly-Key: {token}"),
        *("--checks", ",".join(CHECKS), "--phases", "coverage,fuzzing"),
        *("--max-examples", str(EXAMPLES), "--seed", "1", "--generation-database", "none"),
        *("--no-color", "--request-timeout", "30"),
        *excluded,
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(240):
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()[-6000:]
