"""Refusals on Kafka and Postgres: told by several workers of an edge past their journals, read by
several workers of metering, and counted once through kills and an outage."""

from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from support.distributed import Distributed, distributed
from support.embedded import Tenant, make_tenant
from support.parts.kafka import Broker
from support.parts.postgres import Database
from support.parts.waiting import eventually

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("fault-kafka")]


async def refuse(system: Distributed, domain: str, times: int) -> int:
    """Ask so often; how often the answer was `not_enabled`. A worker that has not read the service
    yet says that it does not know the domain."""
    seen = 0
    for _ in range(times):
        with pytest.raises(InvalidStatus) as caught:
            async with connect(
                f"ws://{domain}/", host="127.0.0.1", port=system.edge_port, proxy=None
            ):
                pass
        seen += caught.value.response.headers["x-handoff-error"] == "not_enabled"
    assert seen, "the edge knows the service"
    return seen


async def shows(system: Distributed, tenant: Tenant, count: int) -> None:
    async def is_so() -> bool | None:
        async with system.api(tenant.tokens["user"]) as api:
            body = await api.call("GET", "/v1/refusals", query={"by": "total"})
        rows = [(row["service_id"], row["cause"], row["count"]) for row in body["data"]]
        assert sum(row[2] for row in rows) <= count, "none is counted twice"
        return rows == [(tenant.service_id, "not_enabled", count)] or None

    await eventually(is_so, f"{count} refusals are shown", seconds=60)


async def test_counts_of_several_workers_are_added_up(
    tmp_path: Path, origin: int, kafka: Broker, server: Database
) -> None:
    async with distributed(
        tmp_path / "system",
        kafka.bootstrap,
        server.address,
        environ={"HANDOFF_EDGE_WORKERS": "2"},
    ) as system:
        await system.start("config", "metering", "metering-1", "billing", "edge")
        tenant = await make_tenant(system, origin_port=origin, enable=False)
        seen = await refuse(system, tenant.domain, 12)
        await shows(system, tenant, seen)
        # Whoever is told nothing is told all of it later.
        await kafka.kill()
        seen += await refuse(system, tenant.domain, 8)
        await kafka.restart()
        await shows(system, tenant, seen)
        # What was told stands; the processes that come next count from nothing.
        await system.kill("metering")
        await system.processes["edge"].stop()
        await system.begin("edge")
        await system.ready("edge")
        seen += await refuse(system, tenant.domain, 5)
        await system.restart("metering")
        await shows(system, tenant, seen)
