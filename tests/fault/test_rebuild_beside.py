"""Metering's tables are made again in a second database while the system runs, and the workers move
there: month-to-date never falls, and billing holds nothing of the former generation afterwards."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Row, select

from handoff_billing import tables as billing
from handoff_common import codec
from handoff_common.database import Database as Connected
from handoff_common.events import COUNTER_NAMES, UsageData, UsageTotals
from handoff_common.instants import from_ms
from handoff_common.log import Message
from handoff_common.log_kafka import KafkaLog
from handoff_common.minutes import hour_of
from handoff_common.topics import USAGE
from support.churn import churning
from support.distributed import Distributed, distributed
from support.embedded import Tenant, make_tenant
from support.parts.kafka import Broker
from support.parts.postgres import Database
from support.parts.waiting import eventually
from support.reconciliation import reconciled
from support.witness import Load

pytestmark = [pytest.mark.timeout(420), pytest.mark.xdist_group("fault-kafka")]
AGAIN = "handoff_metering_again"


async def test_a_rebuild_beside_the_running_system(
    tmp_path: Path, origin: int, broker: Broker, server: Database
) -> None:
    async with distributed(tmp_path / "system", broker.bootstrap, server.address) as system:
        await system.start("config", "metering", "metering-1", "billing", "edge")
        tenant = await make_tenant(system, origin_port=origin)
        await system.edges_know()
        load = Load(system.edge_port, tenant.domain)
        await publish_a_row_that_the_log_does_not_bear_out(broker.bootstrap)
        async with sampling(system, tenant) as samples, churning(load, random.Random(7)):
            await grown(samples, by=20)
            status, said = await system.command(
                "refused", "handoff_metering", "rebuild", service="metering"
            )
            assert status == 1 and "database_in_use: workers of metering run" in said, said

            await server.address.create_database(AGAIN)
            url = {"HANDOFF_DATABASE_URL": server.address.url(AGAIN)}
            status, said = await system.command(
                "rebuild", "handoff_metering", "rebuild", service="metering", **url
            )
            assert status == 0 and '"generation":1' in said, said
            # Meanwhile the workers go on, and publish what the new tables do not know yet.
            await grown(samples, by=20)
            assert {row.generation for row in await usage_rows(system)} == {0}

            for name in ("metering", "metering-1"):
                assert await system.processes.pop(name).stop() == 0
            for name in ("metering", "metering-1"):
                await system.begin(name, **url)
                await system.ready(name)

            async def taken_over() -> bool | None:
                rows = await usage_rows(system)
                return {row.generation for row in rows} == {1} or None

            await eventually(taken_over, "no row of the former generation stands", seconds=60)
            await grown(samples, by=20)
        await load.close_all()
        report = await reconciled(system, tenant, load)
        assert report.explained == []
        assert samples == sorted(samples), "month-to-date never falls"
        rows = await usage_rows(system)
        assert {row.generation for row in rows} == {1}
        [ghost] = [row for row in rows if row.customer_id == "ghost"]
        assert ghost.minutes == ghost.opened == ghost.resp_body_bytes == 0
        for name in ("metering", "metering-1", "billing"):
            assert system.logged(name, "loop_ended") == []


async def publish_a_row_that_the_log_does_not_bear_out(bootstrap: str) -> None:
    """As a fault of a former release would have left it."""
    hour = from_ms(hour_of(1_790_000_000_000))
    data = UsageData(
        customer_id="ghost",
        service_id="ghost",
        region="europe",
        hour=hour,
        slice=0,
        generation=0,
        revision=1,
        offset=0,
        minutes=500,
        opened=5,
        closed=5,
        lost=0,
        **dict.fromkeys(COUNTER_NAMES, 1_000),
    )
    event = UsageTotals(id="ghost", source="/metering/0", subject="ghost", time=hour, data=data)
    log = KafkaLog(bootstrap)
    try:
        await log.append(USAGE.name, [Message("ghost/0", codec.encode(event))])
    finally:
        await log.close()


@contextlib.asynccontextmanager
async def sampling(system: Distributed, tenant: Tenant) -> AsyncIterator[list[int]]:
    """The minutes of the current month's draft, read all along."""
    samples: list[int] = []

    async def read() -> None:
        async with system.api(tenant.tokens["superuser"]) as api:
            while True:
                for draft in await api.pages("/v1/invoices", limit="100"):
                    path = f"/v1/invoices/{draft['invoice_id']}"
                    samples.append((await api.call("GET", path))["minutes"])
                await asyncio.sleep(0.02)

    task = asyncio.create_task(read())
    try:
        yield samples
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def grown(samples: list[int], *, by: int) -> None:
    before = samples[-1] if samples else 0

    async def so() -> bool | None:
        return (bool(samples) and samples[-1] >= before + by) or None

    await eventually(so, f"month-to-date has grown by {by} minutes", seconds=60)


async def usage_rows(system: Distributed) -> Sequence[Row[Any]]:
    database = Connected(system.database.url(f"{system.prefix}_billing"))
    try:
        async with database.read() as tx:
            return (await tx.execute(select(billing.usage))).all()
    finally:
        await database.close()
