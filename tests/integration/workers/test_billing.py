"""Two billing workers on one Postgres database and one log: rows once, numbers without a gap."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from handoff_billing import tables
from handoff_billing.pricing import Pricing
from handoff_billing.wiring import PACKAGE, build
from handoff_common.database import Database, migrate
from handoff_common.log_sqlite import SqliteLog
from handoff_common.outbox import Outbox
from handoff_common.service import running
from support.billing_system import MINE, THEIRS, System
from support.databases import database_url, drop_databases, use_postgres
from support.parts.postgres import Address


@pytest.fixture
async def first(tmp_path: Path, postgres_shared: Address) -> AsyncIterator[System]:
    use_postgres(tmp_path, postgres_shared)
    made = System(tmp_path)
    await made.start()
    await made.people()
    yield made
    await made.stop()
    await drop_databases(tmp_path)


@pytest.fixture
async def second(first: System) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the second worker."""
    async with AsyncExitStack() as stack:
        database = Database(await database_url(first.folder, "billing"), name="second")
        stack.push_async_callback(database.close)
        service = build(first.settings, log=first.log, database=database, clock=first.clock)
        failed = await stack.enter_async_context(running(service))
        yield await stack.enter_async_context(
            httpx.AsyncClient(
                transport=httpx.ASGITransport(service.app),
                base_url="http://billing",
                headers={"fastly-key": "operator"},
            )
        )
        assert not failed.done()


async def test_a_month_is_final_once_whoever_is_asked(
    first: System, second: httpx.AsyncClient
) -> None:
    for hour in range(20):
        await first.use(60, hour=hour, slice_=hour % 2)
        await first.use(30, hour=hour, slice_=hour % 2, customer_id=THEIRS)
    await first.progress()
    await first.settled()
    ids = [(await first.draft(who))["invoice_id"] for who in (MINE, THEIRS)]
    paths = [f"/v1/invoices/{invoice_id}/finalize" for invoice_id in ids]
    answers = await asyncio.gather(
        *(first.call("POST", path) for path in paths * 2),
        *(second.post(path) for path in paths * 2),
    )
    assert {answer.status_code for answer in answers} <= {200, 201}
    numbers = {answer.json()["number"] for answer in answers}
    assert numbers == {"INV-2024-000001", "INV-2024-000002"}
    hashes = {answer.json()["final"]["content_hash"] for answer in answers}
    assert len(hashes) == 2
    assert {(await first.draft(who))["minutes"] for who in (MINE, THEIRS)} == {1200, 600}


async def test_workers_that_start_together_for_the_first_time(
    tmp_path: Path, postgres_shared: Address
) -> None:
    use_postgres(tmp_path, postgres_shared)
    system = System(tmp_path)
    database = Database(await database_url(tmp_path, "billing"))
    await migrate(database, PACKAGE)
    log = await SqliteLog.open(tmp_path / "log.db")
    outbox = Outbox(database, tables.outbox, log)
    workers = [
        Pricing(database=database, outbox=outbox, clock=system.clock, settings=system.settings)
        for _ in range(8)
    ]
    await asyncio.gather(*(worker.seed() for worker in workers))
    assert len(await workers[0].books()) == 1
    await log.close()
    await database.close()
    await drop_databases(tmp_path)
