"""Several of everything: workers join, leave and are killed, edges change their number of workers,
and records come that cannot be folded. Nothing is lost and nothing is counted twice."""

import asyncio
import os
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from handoff_common.codec import encode
from handoff_common.log import Message
from handoff_common.log_kafka import KafkaLog
from handoff_common.topics import CONNECTIONS
from support.churn import churning
from support.distributed import Distributed, distributed
from support.embedded import make_tenant
from support.metering_edge import Script
from support.parts.kafka import Broker
from support.parts.postgres import Database
from support.parts.waiting import eventually
from support.reconciliation import reconciled
from support.witness import Load

STORM_SECONDS = float(os.environ.get("HANDOFF_TEST_STORM_SECONDS", "15"))
pytestmark = [
    pytest.mark.timeout(300 + 3 * int(STORM_SECONDS)),
    pytest.mark.xdist_group("fault-kafka"),
]


async def test_workers_that_join_leave_and_die_all_the_time(
    tmp_path: Path, origin: int, broker: Broker, server: Database
) -> None:
    chance = random.Random(5)
    async with distributed(
        tmp_path / "system", broker.bootstrap, server.address, partitions=12
    ) as system:
        await system.start("config", "metering", "billing", "billing-1", "edge")
        tenant = await make_tenant(system, origin_port=origin)
        await system.edges_know()
        load = Load(system.edge_port, tenant.domain)
        loop = asyncio.get_running_loop()
        async with churning(load, chance):
            over = loop.time() + STORM_SECONDS
            while loop.time() < over:
                for name in ("metering-1", "metering-2"):
                    process = system.processes.get(name)
                    if process is not None and process.running:
                        # One leaves in order, another is killed.
                        await (process.stop() if chance.random() < 0.5 else process.kill())
                    else:
                        await system.begin(name)
                await asyncio.sleep(chance.uniform(1, 5))
        await load.close_all()
        report = await reconciled(system, tenant, load)
        assert report.explained == []
        for name in ("metering", "billing", "billing-1"):
            assert system.logged(name, "loop_ended") == []


async def test_edges_of_two_workers_and_then_of_one(
    tmp_path: Path, origin: int, broker: Broker, server: Database
) -> None:
    async with distributed(
        tmp_path / "system",
        broker.bootstrap,
        server.address,
        environ={"HANDOFF_EDGE_WORKERS": "2"},
    ) as system:
        await system.start("config", "metering", "metering-1", "metering-2", "billing", "edge")
        await system.start("edge-1")
        tenant = await make_tenant(system, origin_port=origin)
        await system.edges_know()
        loads = [Load(system.ports[name], tenant.domain) for name in ("edge", "edge-1")]
        for load in loads:
            await load.open(60, talk=0.3)
        await workers_killed(system, "edge")
        await loads[0].all_ended()
        await workers_killed(system, "edge-1")
        await loads[1].all_ended()
        for name in ("edge", "edge-1"):
            await system.kill(name)
            await system.begin(name, HANDOFF_EDGE_WORKERS="1")
            await system.ready(name)
        for load in loads:
            await load.open(20, talk=0.3)
            await load.close_all()
        report = await reconciled(system, tenant, *loads)
        assert report.recorded >= 160, [load.refused_for for load in loads]
        for name in ("edge", "edge-1"):
            assert len(system.logged(name, "journal_adopted")) == 1


async def workers_killed(system: Distributed, name: str) -> None:
    """kill -9 of every worker of a node, and of the node's own process first, so that none is
    started again."""
    async with httpx.AsyncClient() as client:
        url = f"http://127.0.0.1:{system.admin[name]}/v1/edge"
        pids = [worker["pid"] for worker in (await client.get(url)).json()["workers"]]
    assert len(pids) == 2
    await system.kill(name)
    for pid in pids:
        os.kill(pid, 9)


async def test_a_limit_holds_for_a_node_whose_workers_are_killed(
    tmp_path: Path, origin: int, broker: Broker, server: Database
) -> None:
    async with distributed(
        tmp_path / "system",
        broker.bootstrap,
        server.address,
        environ={"HANDOFF_EDGE_WORKERS": "3"},
    ) as system:
        await system.start()
        tenant = await make_tenant(system, origin_port=origin)
        await system.edges_know()
        load = Load(system.edge_port, tenant.domain)
        admin = f"http://127.0.0.1:{system.admin['edge']}"
        async with system.api(tenant.tokens["engineer"]) as engineer, httpx.AsyncClient() as client:
            path = f"/v1/services/{tenant.service_id}/limits"
            await engineer.call("PUT", path, {"max_connections": 30})

            async def shown() -> list[dict[str, Any]]:
                found = (await client.get(f"{admin}/v1/connections?limit=1000")).json()
                assert found["meta"]["missing_workers"] == []
                rows: list[dict[str, Any]] = found["data"]
                return rows

            async def filled() -> bool | None:
                await load.open(40)
                assert len(load.open_ones) <= 30
                return len(load.open_ones) == 30 or None

            await eventually(filled, "all that is allowed is open", seconds=60)
            rows = await shown()
            assert len(rows) == 30
            assert {row["worker"] for row in rows} == {0, 1, 2}, "each carries some"
            workers = (await client.get(f"{admin}/v1/edge")).json()["workers"]
            os.kill(workers[0]["pid"], 9)
            left = sum(row["worker"] != 0 for row in rows)

            async def gone() -> bool | None:
                return len(load.open_ones) == left or None

            await eventually(gone, "the clients of the killed worker know it")
            await eventually(filled, "what it had is free", seconds=60)
        await load.close_all()


async def test_a_killed_worker_of_a_node_is_started_again(
    tmp_path: Path, origin: int, broker: Broker, server: Database
) -> None:
    async with distributed(
        tmp_path / "system",
        broker.bootstrap,
        server.address,
        environ={"HANDOFF_EDGE_WORKERS": "2"},
    ) as system:
        await system.start()
        tenant = await make_tenant(system, origin_port=origin)
        await system.edges_know()
        load = Load(system.edge_port, tenant.domain)
        await load.open(60, talk=0.3)
        admin = f"http://127.0.0.1:{system.admin['edge']}"
        async with httpx.AsyncClient() as client:
            first = (await client.get(f"{admin}/v1/edge")).json()["workers"]
            assert sum(worker["open_connections"] for worker in first) == 60
            assert all(worker["open_connections"] > 0 for worker in first), "both carry some"
            os.kill(first[0]["pid"], 9)

            async def again() -> bool | None:
                try:
                    workers = (await client.get(f"{admin}/v1/edge")).json()["workers"]
                    ready = (await client.get(f"{admin}/readyz")).status_code == 200
                except httpx.HTTPError:
                    return None
                return (ready and workers[0]["pid"] != first[0]["pid"]) or None

            await eventually(again, "the worker is there again", seconds=60)
            text = (await client.get(f"{admin}/metrics")).text
            assert 'handoff_edge_connections_recovered_total{worker="0"}' in text
        assert load.open_now == first[1]["open_connections"], "the other worker's live on"
        await load.open(20, talk=0.3)
        await load.close_all()
        report = await reconciled(system, tenant, load)
        assert {d.code for d in report.explained} <= {"billed_too_short"}


async def test_records_that_cannot_be_folded_are_parked_and_hold_nothing_else_up(
    tmp_path: Path, origin: int, broker: Broker, server: Database
) -> None:
    async with distributed(tmp_path / "system", broker.bootstrap, server.address) as system:
        await system.start()
        tenant = await make_tenant(system, origin_port=origin)
        await system.edges_know()
        log = KafkaLog(broker.bootstrap)
        ahead = int((datetime.now(UTC) + timedelta(hours=1)).timestamp() * 1000)
        skewed = Script(ahead, connection_id="skewed", customer_id=tenant.customer_id).accepted()
        future = encode(Script(ahead - 7_200_000).accepted()).replace(b"accepted.v1", b"moved.v9")
        await log.append(
            CONNECTIONS.name,
            [
                Message("poison", b"\xff\x00 this is no event", 0),
                Message("future", future, 0),
                Message("skewed", encode(skewed), 0),
            ],
        )
        await log.close()
        load = Load(system.edge_port, tenant.domain)
        await load.open(40, talk=0.2)
        await load.close_all()
        await reconciled(system, tenant, load)
        async with system.api() as operator:
            found = await operator.call("GET", "/v1/reconciliation")
        assert found["parked"] == 3
        parked = system.logged("metering", "record_parked")
        assert sorted(p["kind"] for p in parked) == ["malformed", "skewed", "unknown_type"]
