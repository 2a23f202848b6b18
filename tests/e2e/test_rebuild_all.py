"""Every projection thrown away and made again from the log: the same bill, to the last byte."""

import contextlib
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from handoff_standalone.demo import recording
from handoff_standalone.rest import Api, CallFailed
from handoff_standalone.settings import StandaloneSettings
from handoff_standalone.system import System, rebuild, system
from handoff_standalone.verification import prove
from support.parts.waiting import eventually

pytestmark = pytest.mark.timeout(180)
ENVIRON = {
    "HANDOFF_EDGE_HOST": "127.0.0.1",
    "HANDOFF_EDGE_PORT": "0",
    "HANDOFF_EDGE_ADMIN_PORT": "0",
    "HANDOFF_DRAIN_GRACE": "0",
    "HANDOFF_DRAIN_SPREAD": "0",
    "HANDOFF_WATERMARK_INTERVAL": "0.5",
}
PROJECTED = ("usage", "progress", "delivery", "positions")
"""Billing's tables that are projections; the others are its own truth."""


@asynccontextmanager
async def running(data: Path) -> AsyncIterator[tuple[System, Api]]:
    async with system(StandaloneSettings(data_dir=data, api_port=0), ENVIRON) as one:
        token = (data / "operator-token").read_text().strip()
        async with Api(one.endpoints.api_url, token) as operator:
            yield one, operator


async def drafted(operator: Api, customer_id: str, start: datetime, minutes: int) -> dict[str, Any]:
    """The month's draft, once billing has all of it."""

    async def whole() -> dict[str, Any] | None:
        query = {"customer_id": customer_id, "month": f"{start:%Y-%m}"}
        [listed] = (await operator.call("GET", "/v1/invoices", query=query))["data"]
        found = await operator.call("GET", f"/v1/invoices/{listed['invoice_id']}")
        return dict(found) if found["minutes"] == minutes else None

    return await eventually(whole, f"billing has {minutes} minutes", seconds=60)


async def finalized(operator: Api, invoice_id: str) -> dict[str, Any]:
    async def final() -> dict[str, Any] | None:
        try:
            return dict(await operator.call("POST", f"/v1/invoices/{invoice_id}/finalize", {}))
        except CallFailed:
            return None

    return await eventually(final, "nothing holds the invoice", seconds=60)


async def test_all_projections_are_thrown_away_and_the_invoice_is_identical(
    tmp_path: Path,
) -> None:
    kept, rebuilt = tmp_path / "kept", tmp_path / "rebuilt"
    start, end = recording.closed_month(datetime.now(UTC))
    minutes = recording.expected_minutes(end)
    async with running(kept) as (one, operator):
        body = {"name": "Recorded", "account_type": "paid", "billing_email": "r@example.com"}
        customer_id = (await operator.call("POST", "/v1/customers", body))["id"]
        named = {"name": "recorded", "type": "vcl", "customer_id": customer_id}
        service_id = (await operator.call("POST", "/service", named))["id"]
        await recording.append(one.log, customer_id, service_id, end)
        row = {"customer_id": customer_id, "hour": f"{start:%Y-%m-%d}T05:00:00Z"}
        sent = [
            row | {"region": "europe", "source": "cdn", "bytes": 10**12},
            row | {"region": "europe", "source": "images", "bytes": 10**10},
            row | {"region": "usa", "source": "cdn", "bytes": 3 * 10**9},
        ]
        await operator.call("POST", "/v1/delivery-usage", {"data": sent})
        draft = await drafted(operator, customer_id, start, minutes)
    shutil.copytree(kept, rebuilt)

    async with running(kept) as (_, operator):
        billed = await finalized(operator, draft["invoice_id"])

    for name in ("metering.db", "rulebook.json"):
        for file in rebuilt.glob(f"{name}*"):
            file.unlink()
    with contextlib.closing(sqlite3.connect(rebuilt / "billing.db")) as raw:
        for table in PROJECTED:
            assert raw.execute(f"SELECT count(*) FROM {table}").fetchone()[0], table
            raw.execute(f"DELETE FROM {table}")
        raw.commit()
    assert (await rebuild(StandaloneSettings(data_dir=rebuilt), ENVIRON)).events > 900
    async with running(rebuilt) as (one, operator):
        again = await drafted(operator, customer_id, start, minutes)
        assert again["lines"] == draft["lines"]
        invoice = await finalized(operator, again["invoice_id"])
        assert invoice["final"]["content_hash"] == billed["final"]["content_hash"]
        proof = await prove(one.log, invoice["number"])
        assert proof.ok and proof.delivery == (3, 0, None)

        # What other teams send later takes the place of what the invoice counted, in the log too.
        later = [sent[0] | {"bytes": 1}, sent[2] | {"region": "asia"}]
        await operator.call("POST", "/v1/delivery-usage", {"data": later})
        proof = await prove(one.log, invoice["number"])
        assert proof.ok and proof.delivery == (2, 1, None)
