"""An edge is given up, its month is billed, and then its journal is found: the bill follows, and is
proved from the log each time.

The edge is recorded events, appended to the log of a system that runs in this process.
"""

import asyncio
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from handoff_common import codec
from handoff_common.events import EdgeWatermark, WatermarkData
from handoff_common.log import Message
from handoff_common.log_sqlite import SqliteLog
from handoff_common.topics import CONNECTIONS, EDGES
from handoff_standalone.demo.recording import EDGE_ID, closed_month, connection_events
from handoff_standalone.rest import Api, CallFailed
from handoff_standalone.settings import StandaloneSettings
from handoff_standalone.system import system
from handoff_standalone.verification import prove
from support.parts.waiting import eventually

pytestmark = pytest.mark.timeout(120)
ENVIRON = {
    "HANDOFF_EDGE_HOST": "127.0.0.1",
    "HANDOFF_EDGE_PORT": "0",
    "HANDOFF_EDGE_ADMIN_PORT": "0",
    "HANDOFF_DRAIN_GRACE": "0",
    "HANDOFF_DRAIN_SPREAD": "0",
    "HANDOFF_WATERMARK_INTERVAL": "0.2",
    "HANDOFF_TICK_SECONDS": "0.05",
    "HANDOFF_TICKS_UNTIL_LOST": "40",
}
BEFORE_END = timedelta(minutes=30)
LIVED_MS = 45 * 60_000
PROVED_MS = 10 * 60_000
BODY = 10_000_000_000
"""Bytes each way: half of them in the old month, which are 10 GB sent at 0.12."""


class Lost:
    """An edge with two connections that cross the end of a month. It falls silent after 10 of their
    45 minutes, which lie in the log; the rest is in its journal."""

    def __init__(self, log: SqliteLog, customer_id: str, service_id: str, end: datetime) -> None:
        self.log = log
        self.accepted_at = end - BEFORE_END
        self.journal = [
            list(
                connection_events(
                    customer_id, service_id, end, self.accepted_at, LIVED_MS + n, BODY
                )
            )
            for n in range(2)
        ]
        self.positions: dict[str, int] = {}
        self.closed = 0

    async def falls_silent(self) -> None:
        for events in self.journal:
            await self._append(events[:1])
        await self._vouch(self.accepted_at + timedelta(milliseconds=PROVED_MS))

    async def is_found(self, number: int) -> None:
        """One connection's part of the journal is forwarded."""
        await self._append(self.journal[number][1:])
        self.closed += 1
        await self._vouch(datetime.now(UTC), ended=True)

    async def _append(self, events: list[Any]) -> None:
        messages = [Message(e.subject, codec.encode(e)) for e in events]
        for position in await self.log.append(CONNECTIONS.name, messages):
            self.positions[str(position.partition)] = position.offset

    async def _vouch(self, through: datetime, *, ended: bool = False) -> None:
        data = WatermarkData(
            edge_id=EDGE_ID,
            region="europe",
            pop="fra1",
            through=through,
            positions=self.positions,
            open_connections=2 - self.closed,
            accepted_total=2,
            closed_total=self.closed,
            ended=ended,
        )
        mark = EdgeWatermark(
            id="w", source=f"/edges/{EDGE_ID}", subject=EDGE_ID, time=datetime.now(UTC), data=data
        )
        await self.log.append(EDGES.name, [Message(EDGE_ID, codec.encode(mark))])


async def a_customer(operator: Api) -> tuple[str, str]:
    body = {"name": "Recorded", "account_type": "paid", "billing_email": "r@example.com"}
    customer_id = (await operator.call("POST", "/v1/customers", body))["id"]
    service = await operator.call(
        "POST", "/service", {"name": "recorded", "type": "vcl", "customer_id": customer_id}
    )
    return customer_id, service["id"]


async def draft_of(operator: Api, customer_id: str, month: datetime) -> Any:
    query = {"customer_id": customer_id, "month": f"{month:%Y-%m}"}
    [one] = (await operator.call("GET", "/v1/invoices", query=query))["data"]
    return await operator.call("GET", f"/v1/invoices/{one['invoice_id']}")


async def finalized(operator: Api, invoice: Any) -> Any:
    """As an operator would who waits until nothing holds it."""

    async def done() -> Any:
        try:
            return await operator.call("POST", f"/v1/invoices/{invoice['invoice_id']}/finalize")
        except CallFailed:
            return None

    return await eventually(done, "the month is final", seconds=30)


def figures(invoice: Any, kind: str) -> dict[tuple[str, str], tuple[int, str]]:
    """(kind of the line or of what it corrects, product) → counted, amount."""
    return {
        ((x["corrects"] or x)["kind"], x["product"]): (x["raw_quantity"], x["amount"])
        for x in invoice["lines"]
        if x["kind"] == kind
    }


async def test_an_edge_that_was_given_up_returns_after_its_month_was_billed(tmp_path: Path) -> None:
    # Two months back, so that the month after it can be final too.
    end, _ = closed_month(datetime.now(UTC))
    month = (end - timedelta(days=1)).replace(day=1)
    async with system(StandaloneSettings(data_dir=tmp_path, api_port=0), ENVIRON) as one:
        token = (tmp_path / "operator-token").read_text().strip()
        async with Api(one.endpoints.api_url, token) as operator:
            customer_id, service_id = await a_customer(operator)
            edge = Lost(one.log, customer_id, service_id, end)
            await edge.falls_silent()

            async def given_up() -> Any:
                found = await draft_of(operator, customer_id, month)
                return found if len(found["lines"]) == 3 else None

            draft = await eventually(given_up, "its connections are given up", seconds=30)
            first = await finalized(operator, draft)
            assert figures(first, "usage")["usage", "connection_minutes"] == (20, "0")
            assert figures(first, "outage") == {("outage", "connection_minutes"): (2, "0")}

            await edge.is_found(0)

            expected = {
                ("usage", "connection_minutes"): (20, "0"),
                ("usage", "delivery_bandwidth"): (BODY, "1.2"),
                ("outage", "connection_minutes"): (-1, "0"),
            }

            async def corrected() -> Any:
                # Row by row as they come: a draft may be seen between two of them.
                found = await draft_of(operator, customer_id, end)
                return found if figures(found, "correction") == expected else None

            draft = await eventually(corrected, "the next month's draft corrects it", seconds=30)
            assert {
                x["corrects"]["invoice"] for x in draft["lines"] if x["kind"] == "correction"
            } == {first["number"]}
            second = await finalized(operator, draft)
            assert figures(second, "correction") == expected
            assert figures(second, "usage")["usage", "connection_minutes"][0] == 15

            for invoice in (first, second):
                proof = await prove(one.log, invoice["number"])
                assert proof.ok, proof.difference

            # The rest comes when that is billed too: on the current month's draft, at once.
            await edge.is_found(1)

            async def to_date() -> Any:
                path = "/billing/v3/invoices/month-to-date"
                found = await operator.call("GET", path, query={"customer_id": customer_id})
                wanted = f"Correction of {first['number']}, {month:%Y-%m}:"
                amounts = [
                    x["amount"]
                    for x in found["transaction_line_items"]
                    if x["description"].startswith(wanted)
                ]
                return found if 1.2 in amounts else None

            await eventually(to_date, "month-to-date corrects it", seconds=30)
            now = await operator.call("GET", f"/v1/invoices/{first['invoice_id']}")
            assert now["corrected_by"] == [{"number": second["number"], "amount": "1.2"}]
            assert (now["total"], now["late_usage"]["amount"]) == (first["total"], "1.2")
            assert (await prove(one.log, second["number"])).ok, "what came later changes no proof"

    for number in (first["number"], second["number"]):
        command = [sys.executable, "-m", "handoff_standalone", "verify-invoice", number]
        result = await asyncio.to_thread(
            subprocess.run, [*command, "--data", str(tmp_path)], capture_output=True, text=True
        )
        assert result.returncode == 0, result.stdout + result.stderr
