"""A customer's figures of the current month, by service: what the lists show beside the names.

Metering's usage is live; the cost is billing's and follows within a second or two. Who may not read
the bill gets none.
"""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple

from handoff_client import HandoffApiError, Unauthorized, costs, usage
from handoff_common.access import Permission
from handoff_console.context import Visit

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


class Figure(NamedTuple):
    """open: connections now. minutes, bytes: of this month; bytes as billed. cost: None where it
    cannot be told."""

    open: int = 0
    minutes: int = 0
    bytes: int = 0
    cost: Decimal | None = None


class Figures(NamedTuple):
    """total: over all services, deleted ones too. currency: None where no prices are in force, or
    the cost is not shown. untold: it would be, but cannot be told just now."""

    by_service: Mapping[str, Figure]
    total: Figure
    currency: str | None
    month: datetime
    untold: bool

    @property
    def priced(self) -> bool:
        """Whether cost has a place on the page."""
        return self.currency is not None or self.untold

    def of(self, service_id: str) -> Figure:
        nothing = Figure(cost=None if self.currency is None else Decimal(0))
        return self.by_service.get(service_id, nothing)


def month_of(now_ms: int) -> datetime:
    """The start of the month, UTC."""
    now = datetime.fromtimestamp(now_ms // 1_000, UTC)
    return now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


async def figures_of(visit: Visit) -> Figures:
    """Raises Refused where nobody's are asked for; HandoffApiError."""
    month = month_of(visit.console.clock.now_ms())
    customer_id = visit.customer_id if visit.viewer.is_operator else None
    rows, (bill, untold) = await asyncio.gather(_rows(visit, customer_id), _costs(visit, month))
    found: dict[str, Figure] = {}
    for row in rows:
        figure = found.get(row.service_id, Figure())
        figure = figure._replace(open=figure.open + row.opened - row.closed)
        if row.start >= month:
            billed = (
                row.resp_header_bytes
                + row.resp_body_bytes
                + row.bereq_header_bytes
                + row.bereq_body_bytes
            )
            figure = figure._replace(
                minutes=figure.minutes + row.minutes, bytes=figure.bytes + billed
            )
        found[row.service_id] = figure
    total = Figure(
        sum(one.open for one in found.values()),
        sum(one.minutes for one in found.values()),
        sum(one.bytes for one in found.values()),
        None if bill is None else bill.total,
    )
    if bill is not None:
        shares = {one.service_id: one.amount for one in bill.data}
        found = {
            service_id: figure._replace(cost=shares.get(service_id, Decimal(0)))
            for service_id, figure in found.items()
        }
    return Figures(found, total, None if bill is None else bill.currency, month, untold)


async def _rows(visit: Visit, customer_id: str | None) -> list[usage.Row]:
    """Every month's, since what is open was opened in any of them."""
    listing = usage.listing(by="month", from_=EPOCH, customer_id=customer_id, limit=1_000)
    return [row async for row in visit.api.items(listing)]


async def _costs(visit: Visit, month: datetime) -> tuple[costs.Costs | None, bool]:
    """None for those who may not read the bill, where no prices are in force, and, then True, where
    it cannot be told just now."""
    if not visit.viewer.can(Permission.READ_BILLING):
        return None, False
    try:
        found = await visit.api.run(costs.of_customer(visit.customer_id, month=f"{month:%Y-%m}"))
    except Unauthorized:
        raise
    except HandoffApiError:
        # A page about services does not fail because the bill cannot be told.
        return None, True
    return (None if found.currency is None else found), False
