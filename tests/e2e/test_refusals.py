"""Why a handoff was refused, as a customer sees it a few seconds later, and as nobody else does."""

from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from handoff_standalone.rest import CallFailed
from support.embedded import Embedded, Tenant, make_tenant
from support.parts.waiting import eventually

pytestmark = pytest.mark.timeout(120)


async def refused(system: Embedded, domain: str, path: str = "/") -> str:
    with pytest.raises(InvalidStatus) as caught:
        url = f"ws://{domain}{path}"
        async with connect(url, host="127.0.0.1", port=system.edge_port, proxy=None):
            pass
    return str(caught.value.response.headers["x-handoff-error"])


async def counts(system: Embedded, token: str | None, **query: str) -> dict[Any, int]:
    """(service, cause) → how many."""
    async with system.api(token) as api:
        body = await api.call("GET", "/v1/refusals", query={"by": "total", **query})
    assert body["meta"] == {"limit": 100, "next_cursor": None}
    return {(row["service_id"], row["cause"]): row["count"] for row in body["data"]}


async def shows(system: Embedded, token: str | None, expected: dict[Any, int]) -> None:
    async def is_so() -> bool | None:
        return await counts(system, token) == expected or None

    await eventually(is_so, f"it shows {expected}", seconds=10)


async def with_a_rule(system: Embedded, tenant: Tenant) -> None:
    """Version 2 takes only what asks for /chat."""
    async with system.api(tenant.tokens["engineer"]) as engineer:
        service = f"/service/{tenant.service_id}"
        await engineer.call("PUT", f"{service}/version/1/clone")
        rule = {"name": "chat", "path_prefix": "/chat", "backend": "origin"}
        await engineer.call("POST", f"{service}/version/2/websocket-rule", rule)
        await engineer.call("PUT", f"{service}/version/2/activate")


async def test_a_customer_sees_why_its_handoffs_were_refused(
    system: Embedded, echo_origin: int
) -> None:
    off = await make_tenant(system, origin_port=echo_origin, domain="off.example.com", enable=False)
    # Port 1 of the loopback takes no connection.
    down = await make_tenant(system, origin_port=1, domain="down.example.com")
    for _ in range(3):
        assert await refused(system, off.domain) == "not_enabled"
    assert await refused(system, down.domain) == "origin_unreachable"
    await with_a_rule(system, down)
    assert await refused(system, down.domain, "/other") == "no_rule"
    assert await refused(system, "nobody.example.com") == "unknown_domain"

    offs = {(off.service_id, "not_enabled"): 3}
    downs = {(down.service_id, "origin_unreachable"): 1, (down.service_id, "no_rule"): 1}
    for role in ("user", "billing", "engineer", "superuser"):
        await shows(system, off.tokens[role], offs)
    await shows(system, down.tokens["user"], downs)
    await shows(system, None, offs | downs | {(None, "unknown_domain"): 1})
    assert await counts(system, down.tokens["user"], cause="no_rule") == {
        (down.service_id, "no_rule"): 1
    }
    async with system.api(down.tokens["user"]) as api:
        with pytest.raises(CallFailed) as caught:
            await api.call("GET", "/v1/refusals", query={"service_id": off.service_id})
        assert caught.value.status == 404

    # What was told stands behind a restart, whose process counts from nothing.
    await system.stop()
    await system.start()
    assert await refused(system, off.domain) == "not_enabled"
    await shows(system, off.tokens["user"], {(off.service_id, "not_enabled"): 4})
    await shows(system, down.tokens["user"], downs)
