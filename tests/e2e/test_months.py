"""From events to a proved invoice: minutes at their edges, a month's end, rebuilding from the log.

The events are recorded ones, appended to the log of a system that runs in this process.
"""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from handoff_common import codec
from handoff_common.database import Database
from handoff_common.events import EdgeWatermark, WatermarkData
from handoff_common.log import Message
from handoff_common.log_sqlite import SqliteLog
from handoff_common.topics import CONNECTIONS, EDGES
from handoff_metering.rebuild import snapshot_tables
from handoff_standalone.demo.place import Customer, Place
from handoff_standalone.demo.recording import closed_month, connection_events
from handoff_standalone.demo.story import close_a_month
from handoff_standalone.rest import Api
from handoff_standalone.settings import StandaloneSettings
from handoff_standalone.system import System, rebuild, system
from handoff_standalone.verification import prove
from support.parts.waiting import eventually

pytestmark = pytest.mark.timeout(120)
ENVIRON = {
    "HANDOFF_EDGE_HOST": "127.0.0.1",
    "HANDOFF_EDGE_PORT": "0",
    "HANDOFF_EDGE_ADMIN_PORT": "0",
    "HANDOFF_DRAIN_GRACE": "0",
    "HANDOFF_DRAIN_SPREAD": "0",
    "HANDOFF_WATERMARK_INTERVAL": "0.5",
}


@asynccontextmanager
async def running(data: Path) -> AsyncIterator[tuple[System, Api]]:
    async with system(StandaloneSettings(data_dir=data, api_port=0), ENVIRON) as one:
        token = (data / "operator-token").read_text().strip()
        async with Api(one.endpoints.api_url, token) as operator:
            yield one, operator


async def customer_with_service(operator: Api) -> tuple[str, str]:
    body = {"name": "Recorded", "account_type": "paid", "billing_email": "r@example.com"}
    customer_id = (await operator.call("POST", "/v1/customers", body))["id"]
    service = await operator.call(
        "POST", "/service", {"name": "recorded", "type": "vcl", "customer_id": customer_id}
    )
    return customer_id, service["id"]


async def append(
    log: SqliteLog, customer_id: str, service_id: str, end: datetime, shapes: list[tuple[Any, ...]]
) -> None:
    """Connections (accepted, elapsed ms, body bytes) of an edge that has ended."""
    positions: dict[str, int] = {}
    for shape in shapes:
        events = list(connection_events(customer_id, service_id, end, *shape))
        written = await log.append(
            CONNECTIONS.name, [Message(e.subject, codec.encode(e)) for e in events]
        )
        for position in written:
            positions[str(position.partition)] = position.offset
    mark = EdgeWatermark(
        id="w",
        source="/edges/recorded-edge",
        subject="recorded-edge",
        time=datetime.now(UTC),
        data=WatermarkData(
            edge_id="recorded-edge",
            region="europe",
            pop="fra1",
            through=datetime.now(UTC),
            positions=positions,
            open_connections=0,
            accepted_total=len(shapes),
            closed_total=len(shapes),
            ended=True,
        ),
    )
    await log.append(EDGES.name, [Message("recorded-edge", codec.encode(mark))])


async def minutes_by_month(operator: Api, customer_id: str, start: datetime) -> dict[str, int]:
    query = {
        "by": "month",
        "customer_id": customer_id,
        "from": start.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "to": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    rows = (await operator.call("GET", "/v1/usage", query=query))["data"]
    return {row["start"][:7]: row["minutes"] for row in rows}


@pytest.mark.parametrize(
    ("before_end", "elapsed_ms", "old", "new"),
    [
        (timedelta(minutes=10), 0, 1, 0),
        (timedelta(minutes=10), 60_000, 1, 0),
        (timedelta(minutes=10), 60_001, 2, 0),
        (timedelta(seconds=90), 180_000, 2, 1),
        (timedelta(seconds=60), 60_001, 1, 1),
        (timedelta(seconds=60), 60_000, 1, 0),
        (timedelta(days=20), 40 * 86_400_000, 28_800, 28_800),
    ],
    ids=["zero", "60.000s", "60.001s", "crossing", "boundary", "boundary-exact", "40-days"],
)
async def test_minutes_fall_into_the_months_in_which_they_start(
    tmp_path: Path, before_end: timedelta, elapsed_ms: int, old: int, new: int
) -> None:
    start, end = closed_month(datetime.now(UTC))
    if elapsed_ms > 30 * 86_400_000:
        # Forty days must lie in the past: take the month before.
        end = start
        start = (start - timedelta(days=1)).replace(day=1)
    async with running(tmp_path) as (one, operator):
        customer_id, service_id = await customer_with_service(operator)
        shape = (end - before_end, elapsed_ms, 1_000)
        await append(one.log, customer_id, service_id, end, [shape])

        async def metered() -> dict[str, int] | None:
            found = await minutes_by_month(operator, customer_id, start)
            return found if sum(found.values()) >= old + new else None

        found = await eventually(metered, f"{old} + {new} minutes are metered")
    assert found.get(f"{start:%Y-%m}", 0) == old
    assert sum(found.values()) == old + new


async def test_a_rebuild_gives_identical_tables_and_the_identical_invoice_hash(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as (one, operator):
        customer_id, service_id = await customer_with_service(operator)
        place = Place(one.endpoints.api_url, 0, one.log, "")
        place = place._replace(operator_token=(tmp_path / "operator-token").read_text().strip())
        customer = Customer(customer_id, service_id, "", "", "")
        invoice = await close_a_month(place, customer, Console(quiet=True))
        assert (await prove(one.log, invoice["number"])).ok
    before = await tables(tmp_path)
    settings = StandaloneSettings(data_dir=tmp_path)
    rebuilt = await rebuild(settings, ENVIRON)
    assert rebuilt.events > 900
    assert await tables(tmp_path) == before
    assert before["usage"], "there is something to compare"
    async with running(tmp_path) as (one, operator):
        again = await operator.call("GET", f"/v1/invoices/{invoice['invoice_id']}/proof")
        assert again["content_hash"] == invoice["final"]["content_hash"]
        assert (await prove(one.log, invoice["number"])).ok
        month = invoice["period_start"][:7]
        start = datetime.fromisoformat(invoice["period_start"])

        async def metered() -> dict[str, int] | None:
            found = await minutes_by_month(operator, customer_id, start)
            return found if month in found else None

        found = await eventually(metered, "the rebuilt rows are served")
        assert found[month] == invoice["minutes"]
    command = [sys.executable, "-m", "handoff_standalone", "verify-invoice", invoice["number"]]
    result = await asyncio.to_thread(
        subprocess.run, [*command, "--data", str(tmp_path)], capture_output=True, text=True
    )
    assert result.returncode == 0 and "proved" in result.stdout
    assert invoice["final"]["content_hash"] in result.stdout


async def tables(data: Path) -> dict[str, list[dict[str, Any]]]:
    database = Database(f"sqlite+aiosqlite:///{data / 'metering'}.db")
    try:
        return await snapshot_tables(database)
    finally:
        await database.close()
