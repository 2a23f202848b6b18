"""The broker is away, or an edge is cut off from it: handoffs go on, nothing is lost, nobody who
lives is declared lost, and what was closed too early is taken back."""

import asyncio
import os
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from support.distributed import Distributed, distributed
from support.embedded import make_tenant
from support.parts.kafka import Broker
from support.parts.postgres import Database
from support.parts.proxy import Proxy
from support.parts.waiting import eventually
from support.reconciliation import reconciled
from support.witness import Load

AWAY_SECONDS = float(os.environ.get("HANDOFF_TEST_AWAY_SECONDS", "8"))
CONNECTIONS = int(os.environ.get("HANDOFF_TEST_CONNECTIONS", "100"))
pytestmark = [
    pytest.mark.timeout(240 + 3 * int(AWAY_SECONDS)),
    pytest.mark.xdist_group("fault-kafka"),
]
QUICK_TICKS = {"HANDOFF_TICK_SECONDS": "0.25", "HANDOFF_TICKS_UNTIL_LOST": "8"}


async def edge_metric(system: Distributed, name: str) -> float:
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"http://127.0.0.1:{system.admin['edge']}/metrics")).text
    return sum(
        float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name)
    )


async def through(system: Distributed) -> list[str]:
    async with system.api() as operator:
        marks = await operator.call("GET", "/v1/watermarks")
    return sorted(str(edge["through"]) for edge in marks["data"])


async def test_the_broker_is_away_and_no_handoff_is_refused(
    tmp_path: Path, origin: int, broker: Broker, server: Database
) -> None:
    async with distributed(tmp_path / "system", broker.bootstrap, server.address) as system:
        await system.start()
        tenant = await make_tenant(system, origin_port=origin)
        await system.edges_know()
        load = Load(system.edge_port, tenant.domain)
        # As much in all, however many they are: what is tried is not how fast a client can talk.
        await load.open(CONNECTIONS, talk=max(0.5, CONNECTIONS / 200))
        await broker.kill()
        meanwhile = Load(system.edge_port, tenant.domain)
        loop = asyncio.get_running_loop()
        over = loop.time() + AWAY_SECONDS
        while loop.time() < over:
            await meanwhile.open(5, talk=2)
            await meanwhile.close_some(
                meanwhile.open_ones[: max(2, len(meanwhile.open_ones) - 300)]
            )
            await asyncio.sleep(0.2)
        assert load.refused == meanwhile.refused == 0
        assert load.open_now == CONNECTIONS, "those that were open live on"
        assert await edge_metric(system, "handoff_edge_journal_unforwarded ") > 0
        await broker.restart()

        async def drained() -> bool | None:
            return await edge_metric(system, "handoff_edge_journal_unforwarded ") < 50 or None

        await eventually(drained, "the journal is drained", seconds=60)
        held = await through(system)

        async def moved() -> bool | None:
            return await through(system) > held or None

        await eventually(moved, "the watermark moves on", seconds=60)
        await load.close_all()
        await meanwhile.close_all()
        report = await reconciled(system, tenant, load, meanwhile)
        assert report.explained == []


async def test_a_full_journal_refuses_new_handoffs_and_open_ones_go_on(
    tmp_path: Path, origin: int, broker: Broker, server: Database
) -> None:
    small = {"HANDOFF_JOURNAL_MAX_BYTES": "1048576", "HANDOFF_CHECKPOINT_INTERVAL": "1"}
    async with distributed(
        tmp_path / "system", broker.bootstrap, server.address, environ=small
    ) as system:
        await system.start()
        tenant = await make_tenant(system, origin_port=origin)
        await system.edges_know()
        load = Load(system.edge_port, tenant.domain)
        await load.open(60, talk=0.2)
        await broker.kill()

        async def refused() -> str | None:
            try:
                async with connect(
                    f"ws://{tenant.domain}/", host="127.0.0.1", port=system.edge_port, proxy=None
                ):
                    return None
            except InvalidStatus as answer:
                assert answer.response.status_code == 503
                return str(answer.response.headers["x-handoff-error"])

        extra = Load(system.edge_port, tenant.domain)
        await extra.open(600, talk=0.2)
        assert (
            await eventually(refused, "new handoffs are refused", seconds=60)
            == "journal_unavailable"
        )
        assert load.open_now == 60, "those that are open go on"
        await broker.restart()

        async def taken() -> bool | None:
            probe = Load(system.edge_port, tenant.domain)
            await probe.open(1)
            probes.append(probe)
            return probe.refused == 0 or None

        probes: list[Load] = []
        await eventually(taken, "new handoffs are taken again", seconds=60)
        for one in (load, extra, *probes):
            await one.close_all()


async def test_silence_of_the_broker_is_not_silence_of_the_edges(
    tmp_path: Path, origin: int, broker: Broker, server: Database
) -> None:
    async with distributed(
        tmp_path / "system", broker.bootstrap, server.address, environ=QUICK_TICKS
    ) as system:
        await system.start()
        tenant = await make_tenant(system, origin_port=origin)
        await system.edges_know()
        load = Load(system.edge_port, tenant.domain)
        await load.open(20)
        await broker.kill()
        await asyncio.sleep(AWAY_SECONDS)
        await broker.restart()
        await system.kill("metering")
        await asyncio.sleep(4)
        await system.restart("metering")
        held = await through(system)

        async def moved() -> bool | None:
            return await through(system) > held or None

        await eventually(moved, "the watermark moves on", seconds=60)
        assert system.logged("metering", "edge_lost") == []
        await load.close_all()
        report = await reconciled(system, tenant, load)
        assert report.explained == []


async def test_an_edge_that_was_cut_off_takes_its_connections_back(
    tmp_path: Path, origin: int, broker: Broker, server: Database
) -> None:
    async with Proxy() as proxy:
        await broker.stop()
        proxy.upstream_port = broker.add_listener(proxy.port)
        await broker.start()
        async with distributed(
            tmp_path / "system", broker.bootstrap, server.address, environ=QUICK_TICKS
        ) as system:
            await system.start("config", "metering", "billing")
            await system.begin("edge", HANDOFF_LOG=f"kafka://127.0.0.1:{proxy.port}")
            await system.ready("edge")
            tenant = await make_tenant(system, origin_port=origin)
            await system.edges_know()
            load = Load(system.edge_port, tenant.domain)
            await load.open(20, talk=0.5)

            async def states() -> list[dict[str, Any]]:
                async with system.api(tenant.tokens["engineer"]) as api:
                    return await api.pages("/v1/connections")

            async def all_open() -> bool | None:
                return len([s for s in await states() if s["state"] == "open"]) == 20 or None

            await eventually(all_open, "all are metered")
            await proxy.cut()

            async def given_up() -> list[dict[str, Any]] | None:
                found = await states()
                return found if all(s["reason"] == "edge_lost" for s in found) else None

            closed = await eventually(given_up, "the edge is declared lost", seconds=60)
            assert all(s["provisional"] for s in closed)
            assert load.open_now == 20, "the clients notice nothing"
            proxy.restore()
            await eventually(all_open, "they are open again", seconds=60)
            again = {s["connection_id"]: s["elapsed_ms"] for s in await states()}
            assert all(again[s["connection_id"]] >= s["elapsed_ms"] for s in closed)
            await load.close_all()
            report = await reconciled(system, tenant, load)
            assert report.explained == []


async def test_the_database_is_away_and_the_edges_go_on(
    tmp_path: Path, origin: int, broker: Broker, server: Database
) -> None:
    async with distributed(tmp_path / "system", broker.bootstrap, server.address) as system:
        await system.start()
        tenant = await make_tenant(system, origin_port=origin)
        await system.edges_know()
        load = Load(system.edge_port, tenant.domain)
        await load.open(50, talk=0.5)
        await server.kill()
        loop = asyncio.get_running_loop()
        over = loop.time() + min(AWAY_SECONDS, 300)
        while loop.time() < over:
            await load.open(3, talk=1)
            await load.close_some(load.open_ones[: max(1, len(load.open_ones) - 200)])
            await asyncio.sleep(0.3)
        assert load.refused == 0
        async with httpx.AsyncClient() as client:
            url = f"http://127.0.0.1:{system.ports['metering']}"
            assert (await client.get(f"{url}/readyz")).status_code == 503
            token = {"Fastly-Key": tenant.tokens["user"]}
            answer = await client.get(f"{url}/v1/usage?by=month", headers=token, timeout=60)
            assert answer.status_code == 503
            assert answer.json()["type"] == "urn:handoff:error:database_away"
        await server.restart()
        await load.close_all()
        report = await reconciled(system, tenant, load)
        assert report.explained == []
        for name in ("config", "metering", "billing"):
            assert system.processes[name].running
            assert system.logged(name, "loop_ended") == []
