"""The product's statements, end to end on the embedded system, as its users would meet them."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from handoff_standalone.rest import CallFailed
from support.embedded import Embedded, make_customer, make_tenant, make_tokens
from support.parts.waiting import eventually
from support.witness import Load

pytestmark = pytest.mark.timeout(120)


async def refusal(system: Embedded, domain: str) -> tuple[int, str]:
    with pytest.raises(InvalidStatus) as caught:
        async with connect(f"ws://{domain}/", host="127.0.0.1", port=system.edge_port, proxy=None):
            pass
    return caught.value.response.status_code, caught.value.response.headers["x-handoff-error"]


async def test_disabled_by_default_then_enabled_for_all_then_disabled_at_once(
    system: Embedded, echo_origin: int
) -> None:
    tenant = await make_tenant(system, origin_port=echo_origin, enable=False)
    assert await refusal(system, tenant.domain) == (403, "not_enabled")
    path = f"/enabled-products/v1/websockets/services/{tenant.service_id}"
    for role in ("billing", "user"):
        async with system.api(tenant.tokens[role]) as api:
            with pytest.raises(CallFailed) as caught:
                await api.call("PUT", path)
            assert caught.value.status == 403
            await api.call("GET", f"/service/{tenant.service_id}")
    async with system.api(tenant.tokens["engineer"]) as engineer:
        enabled = await engineer.call("PUT", path)
        assert enabled["product"] == {"id": "websockets", "object": "product"}
        load = Load(system.edge_port, tenant.domain)
        await load.open(20)
        assert load.open_now == 20
        started = time.monotonic()
        await engineer.call("DELETE", path)
        assert await refusal(system, tenant.domain) == (403, "not_enabled")
        assert time.monotonic() - started < 2
        await load.all_ended()
        assert {(s.close_code, bool(s.close_reason)) for s in load.seen} == {(1001, True)}
        history = await engineer.call("GET", f"/v1/services/{tenant.service_id}/history")
        assert len(history["data"]) >= 2


async def test_keep_open_leaves_open_connections_alone(system: Embedded, echo_origin: int) -> None:
    tenant = await make_tenant(system, origin_port=echo_origin)
    async with connect(
        f"ws://{tenant.domain}/", host="127.0.0.1", port=system.edge_port, proxy=None
    ) as connection:
        async with system.api(tenant.tokens["superuser"]) as api:
            await api.call(
                "DELETE",
                f"/enabled-products/v1/websockets/services/{tenant.service_id}",
                query={"keep_open": "true"},
            )
        assert await refusal(system, tenant.domain) == (403, "not_enabled")
        await connection.send("still here")
        assert await connection.recv() == "still here"


async def test_a_contract_that_ends_stops_new_handoffs_within_two_seconds(
    system: Embedded, echo_origin: int
) -> None:
    ends = datetime.now(UTC) + timedelta(seconds=4)
    tenant = await make_tenant(
        system, origin_port=echo_origin, ends_at=ends.strftime("%Y-%m-%dT%H:%M:%SZ")
    )
    load = Load(system.edge_port, tenant.domain)
    await load.open(1)
    assert load.open_now == 1

    async def stopped() -> bool | None:
        try:
            async with connect(
                f"ws://{tenant.domain}/", host="127.0.0.1", port=system.edge_port, proxy=None
            ):
                return None
        except InvalidStatus as error:
            assert error.response.headers["x-handoff-error"] == "no_contract"
            return True

    await eventually(stopped, "new handoffs are refused")
    assert datetime.now(UTC) < ends + timedelta(seconds=2)
    assert load.open_now == 1, "open connections have a grace"
    await load.close_all()


async def test_without_a_contract_enabling_is_refused_and_names_whom_to_contact(
    system: Embedded, echo_origin: int
) -> None:
    customer_id = await make_customer(system, product="ngwaf")
    tokens = await make_tokens(system, customer_id)
    async with system.api(tokens["engineer"]) as engineer:
        service = await engineer.call("POST", "/service", {"name": "x", "type": "vcl"})
        with pytest.raises(CallFailed, match=r"not entitled to enable.*@") as caught:
            await engineer.call("PUT", f"/enabled-products/v1/websockets/services/{service['id']}")
        assert caught.value.status == 400


async def test_every_incompatibility_is_named_by_the_dry_run_and_blocks(
    system: Embedded, echo_origin: int
) -> None:
    tenant = await make_tenant(system, origin_port=echo_origin, enable=False)
    async with system.api(tenant.tokens["engineer"]) as engineer:
        service = f"/service/{tenant.service_id}"
        await engineer.call("PUT", f"{service}/version/1/clone")
        version = f"{service}/version/2"
        await engineer.call(
            "POST",
            f"{version}/backend",
            {"name": "shielded", "address": "192.0.2.7", "shield": "fra", "max_conn": 201},
        )
        await engineer.call("POST", f"{version}/director", {"name": "spread", "type": 1})
        await engineer.call("PUT", f"{version}/activate")
        ngwaf = f"/enabled-products/v1/ngwaf/services/{tenant.service_id}"
        async with system.api() as operator:
            starts = (datetime.now(UTC) - timedelta(days=1)).strftime("%Y-%m-%dT00:00:00Z")
            await operator.call(
                "POST",
                f"/v1/customers/{tenant.customer_id}/contracts",
                {"product": "ngwaf", "starts_at": starts, "ends_at": None},
            )
        await engineer.call("PUT", ngwaf)
        check = await engineer.call("GET", f"/v1/services/{tenant.service_id}/websockets/check")
        text = str(check)
        for named in ("shielded", "shield", "max_conn", "201", "spread", "ngwaf"):
            assert named in text, named
        with pytest.raises(CallFailed) as caught:
            await engineer.call(
                "PUT", f"/enabled-products/v1/websockets/services/{tenant.service_id}"
            )
        assert caught.value.status in (400, 409, 422)
        for named in ("shield", "max_conn", "spread"):
            assert named in str(caught.value), named
    assert (await refusal(system, tenant.domain))[1] == "not_enabled"


async def test_an_engineer_ends_one_connection(system: Embedded, echo_origin: int) -> None:
    tenant = await make_tenant(system, origin_port=echo_origin)
    async with connect(
        f"ws://{tenant.domain}/", host="127.0.0.1", port=system.edge_port, proxy=None
    ) as connection:
        async with system.api(tenant.tokens["engineer"]) as api:

            async def listed() -> str | None:
                rows = (await api.call("GET", "/v1/connections", query={"state": "open"}))["data"]
                return rows[0]["connection_id"] if rows else None

            connection_id = await eventually(listed, "the open connection is listed")
            await api.call("DELETE", f"/v1/connections/{connection_id}")
        with pytest.raises(ConnectionClosed) as caught:
            await asyncio.wait_for(connection.recv(), 10)
        assert caught.value.rcvd is not None and caught.value.rcvd.code == 1008


async def test_another_customer_sees_nothing_of_it(system: Embedded, echo_origin: int) -> None:
    tenant = await make_tenant(system, origin_port=echo_origin)
    stranger = await make_tokens(system, await make_customer(system, "Stranger"))
    async with system.api(stranger["superuser"]) as api:
        for path in (
            f"/service/{tenant.service_id}",
            f"/stats/service/{tenant.service_id}",
            f"/enabled-products/v1/websockets/services/{tenant.service_id}",
            f"/v1/services/{tenant.service_id}/history",
        ):
            with pytest.raises(CallFailed) as caught:
                await api.call("GET", path)
            assert caught.value.status == 404, path


async def test_sigterm_drains_with_1001_and_leaves_no_connection_open(
    tmp_path: Path, echo_origin: int
) -> None:
    system = Embedded(tmp_path / "data")
    await system.start()
    tenant = await make_tenant(system, origin_port=echo_origin)
    load = Load(system.edge_port, tenant.domain)
    await load.open(50, talk=0.05)
    assert await system.stop() == 0
    await load.all_ended()
    assert {s.close_code for s in load.seen} == {1001}
    await system.start()
    async with system.api(tenant.tokens["user"]) as api:
        query = {"state": "closed", "limit": "100"}
        rows = (await api.call("GET", "/v1/connections", query=query))["data"]
    assert len(rows) == 50 and {row["reason"] for row in rows} == {"drained"}
    assert await system.stop() == 0


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("HANDOFF_REGION", "moon", "HANDOFF_REGION = 'moon'"),
        ("HANDOFF_API_PORT", "-1", "HANDOFF_API_PORT = '-1'"),
        ("HANDOFF_EGDE_PORT", "1", "misspelt"),
    ],
)
async def test_a_wrong_setting_stops_the_start(
    tmp_path: Path, name: str, value: str, says: str
) -> None:
    system = Embedded(tmp_path / "data", {name: value})
    with pytest.raises(AssertionError, match="the system ended"):
        await system.start()
    assert says in system.log_tail()
