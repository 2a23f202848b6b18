"""Waits until a running system balances with the load generator's own record, by the same code as
`handoff reconcile`."""

from handoff_standalone.reconcile import Report, witness_of
from handoff_standalone.reconciliation import compare, recorded
from support.embedded import HasApi, Tenant
from support.parts.waiting import eventually
from support.witness import Load

SLACK_MS = 4_000
"""What a client and an edge may see apart on a machine that is busy with everything at once."""


async def reconciled(
    system: HasApi, tenant: Tenant, *loads: Load, seconds: float = 60.0, all_closed: bool = True
) -> Report:
    """The report once it balances; fails with what differs where it does not within the time.

    all_closed: wait until no connection is open.
    """
    witnesses = [witness_of(line) for load in loads for line in load.lines()]
    last: list[Report] = []

    async def balanced() -> Report | None:
        async with system.api(tenant.tokens["superuser"]) as api:
            if all_closed:
                rows = await recorded(api, tenant.customer_id)
                if any(row.reason is None for row in rows):
                    last[:] = [Report(len(witnesses), len(rows))]
                    return None
            report = await compare(api, tenant.customer_id, witnesses, slack_ms=SLACK_MS)
        last[:] = [report]
        return report if report.balanced else None

    try:
        return await eventually(balanced, "the record balances", seconds=seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}: {last[0] if last else 'nothing was read'}") from None
