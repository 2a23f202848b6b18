"""Asks a running system for all that it recorded, metered and billed, and holds it against the
load generator's own record."""

import time
from typing import Any

from handoff_standalone.reconcile import (
    Recorded,
    Report,
    Sums,
    reconcile,
    recorded_of,
    witness_of,
)
from handoff_standalone.rest import Api
from support.embedded import HasApi, Tenant
from support.parts.waiting import eventually
from support.witness import Load

SLACK_MS = 4_000
"""What a client and an edge may see apart on a machine that is busy with everything at once."""


async def pages(api: Api, path: str, **query: str) -> list[dict[str, Any]]:
    """All rows of a list."""
    rows: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        more = {"cursor": cursor} if cursor else {}
        page = await api.call("GET", path, query={"limit": "1000"} | query | more)
        rows += page["data"]
        cursor = page["meta"]["next_cursor"]
        if cursor is None:
            return rows


async def recorded(system: HasApi, tenant: Tenant) -> list[Recorded]:
    async with system.api(tenant.tokens["engineer"]) as api:
        return [recorded_of(row) for row in await pages(api, "/v1/connections")]


async def sums(system: HasApi, tenant: Tenant) -> Sums:
    """Of the usage of all hours, and of the month's draft."""
    async with system.api(tenant.tokens["superuser"]) as api:
        rows = await pages(api, "/v1/usage", by="month")
        invoices = [
            await api.call("GET", f"/v1/invoices/{one['invoice_id']}")
            for one in await pages(api, "/v1/invoices", limit="100")
        ]
    totals = {name: sum(row[name] for row in rows) for name in ("minutes", "opened", "closed")}
    return Sums(**totals, billed_minutes=sum(one["minutes"] for one in invoices))


async def reconciled(
    system: HasApi, tenant: Tenant, *loads: Load, seconds: float = 60.0, all_closed: bool = True
) -> Report:
    """The report once it balances; fails with what differs where it does not within the time.

    all_closed: wait until no connection is open.
    """
    witnesses = [witness_of(line) for load in loads for line in load.lines()]
    last: list[Report] = []

    async def balanced() -> Report | None:
        rows = await recorded(system, tenant)
        if all_closed and any(row.reason is None for row in rows):
            last[:] = [Report(len(witnesses), len(rows))]
            return None
        now_ms = time.time_ns() // 1_000_000
        found = await sums(system, tenant)
        report = reconcile(witnesses, rows, found, now_ms=now_ms, slack_ms=SLACK_MS)
        last[:] = [report]
        return report if report.balanced else None

    try:
        return await eventually(balanced, "the record balances", seconds=seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}: {last[0] if last else 'nothing was read'}") from None
