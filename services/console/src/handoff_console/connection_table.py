"""The table of connections with its totals, as a live source: figures of the APIs, as HTML."""

import asyncio
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from jinja2 import Environment

from handoff_client import AsyncClient, HandoffApiError, Unauthorized, connections, costs, usage
from handoff_client.call import Page
from handoff_client.connections import Connection
from handoff_common.clock import Clock
from handoff_console.board import View
from handoff_console.connection_cost import Rates
from handoff_console.context import Console
from handoff_console.figures import month_of
from handoff_console.filters import Filters
from handoff_console.live import (
    CALL_SECONDS,
    EPOCH,
    SELDOM_SECONDS,
    Kept,
    all_of,
    rates_now,
    service_names,
)

PER_PAGE = 100
COST_SECONDS = 5.0
"""Billing follows metering by a second or two; a bill is not asked for at every poll."""
_TEMPLATE = "connection_parts.html"


class Asked(NamedTuple):
    """Whose connections, which, and whether money is shown: what viewers share a poll by."""

    customer_id: str
    filters: Filters
    with_cost: bool


class Bill(NamedTuple):
    """cost: of the month so far, with bandwidth. currency: None where no prices are in force.
    untold: neither can be told just now."""

    cost: Decimal | None
    currency: str | None
    untold: bool = False


class Totals(NamedTuple):
    """open: now. opened_today: since midnight UTC. minutes: of this month. in_range: minutes of the
    hours asked for, None where the filters say more than usage is told by. bill: None where the
    filters say more than cost is told by."""

    open: int
    opened_today: int
    minutes: int
    in_range: int | None
    bill: Bill | None


class Cells(NamedTuple):
    """What a row shows; a row with equal cells is not made again."""

    connection_id: str
    accepted_at: datetime
    service_id: str
    service: str
    region: str
    state: str
    reason: str | None
    provisional: bool
    minutes: int
    in_range: int | None
    received: int
    sent: int
    cost: Decimal | None


def cells_of(one: Connection, name: str, rates: Rates | None) -> Cells:
    """received, sent: between client and edge, with the heads."""
    return Cells(
        one.connection_id,
        one.accepted_at,
        one.service_id,
        name,
        one.region,
        one.state,
        one.reason,
        one.provisional,
        one.minutes,
        one.minutes_in_range,
        one.req_header_bytes + one.req_body_bytes,
        one.resp_header_bytes + one.resp_body_bytes,
        None if rates is None else rates.cost(one.region, one.minutes),
    )


class ConnectionTable:
    """A `feeds.Source`. page: of the last poll. rates: None where money is not shown."""

    def __init__(self, console: Console, asked: Asked) -> None:
        self._client = console.client
        self._templates: Environment = console.templates
        self._clock: Clock = console.clock
        self._asked = asked
        self.page: Page[Connection] = Page((), None)
        self.rates: Rates | None = None
        self.names: dict[str, str] = {}
        self._rows: dict[str, tuple[Cells, str]] = {}
        self._polled_at: datetime | None = None
        self._names = Kept(self._clock, SELDOM_SECONDS, self._ask_names)
        self._rates = Kept(self._clock, SELDOM_SECONDS, self._ask_rates)
        self._open_before = Kept(self._clock, SELDOM_SECONDS, self._ask_open_before)
        self._costs = Kept(self._clock, COST_SECONDS, self._ask_costs)
        self._in_range = Kept(self._clock, COST_SECONDS, self._ask_in_range)

    async def poll(self, token: str) -> View:
        api = self._client(token, None)
        self.page, self.names, self.rates, totals = await asyncio.gather(
            self._ask_page(api), self._names.get(api), self._rates.get(api), self._totals(api)
        )
        self._polled_at = self._clock.now()
        self._rows = {
            one.connection_id: self._row(
                cells_of(one, self.names.get(one.service_id, one.service_id), self.rates)
            )
            for one in self.page.items
        }
        rows = [(f"c-{name}", html) for name, (_, html) in self._rows.items()]
        if not rows:
            rows = [("c-none", self._html("nothing", self._asked))]
        return View(
            {
                "totals": self._html("totals", totals, self._month(), self._asked),
                "older": self._html("older", self._asked.filters, self.page.next),
                "status": self._html("fine"),
            },
            rows,
        )

    def away(self) -> View:
        return View(
            {"status": self._html("away", self._polled_at)},
            [(f"c-{name}", html) for name, (_, html) in self._rows.items()],
        )

    def _row(self, cells: Cells) -> tuple[Cells, str]:
        held = self._rows.get(cells.connection_id)
        if held is not None and held[0] == cells:
            return held
        currency = None if self.rates is None else self.rates.currency
        return cells, self._html("row", cells, self._asked, currency)

    def _html(self, macro: str, *values: Any) -> str:
        # Jinja's own text, escaped already; it stays one when it is stripped.
        html: str = getattr(self._templates.get_template(_TEMPLATE).module, macro)(*values)
        return html.strip()

    def _month(self) -> datetime:
        return month_of(self._clock.now_ms())

    async def _ask_page(self, api: AsyncClient) -> Page[Connection]:
        filters = self._asked.filters
        listing = connections.listing(
            state=filters.state,
            service_id=filters.service_id,
            region=filters.region,
            reason=filters.reason,
            from_=filters.from_,
            to=filters.to,
            customer_id=self._asked.customer_id,
            limit=PER_PAGE,
        )
        return await api.run(listing.page(filters.at), timeout=CALL_SECONDS)

    async def _totals(self, api: AsyncClient) -> Totals:
        month = self._month()
        today = self._clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
        this_month, of_today, before, in_range, bill = await asyncio.gather(
            self._usage(api, "month", month),
            self._usage(api, "day", today),
            self._open_before.get(api),
            self._in_range.get(api),
            self._costs.get(api),
        )
        return Totals(
            before + sum(row.opened - row.closed for row in this_month),
            sum(row.opened for row in of_today),
            sum(row.minutes for row in this_month),
            in_range,
            bill,
        )

    async def _usage(
        self, api: AsyncClient, by: Any, from_: datetime, to: datetime | None = None
    ) -> list[usage.Row]:
        filters = self._asked.filters
        listing = usage.listing(
            by=by,
            service_id=filters.service_id,
            region=filters.region,
            from_=from_,
            to=to,
            customer_id=self._asked.customer_id,
            limit=1_000,
        )
        return await all_of(api, listing)

    async def _ask_open_before(self, api: AsyncClient) -> int:
        """Connections open when the month began that have not ended before: with those of the
        month, what is open now."""
        rows = await self._usage(api, "month", EPOCH, self._month())
        return sum(row.opened - row.closed for row in rows)

    async def _ask_in_range(self, api: AsyncClient) -> int | None:
        filters = self._asked.filters
        if not filters.ranged or filters.state is not None or filters.reason is not None:
            return None
        ends = (filters.from_, filters.to)
        if any(
            at is not None and (at.minute, at.second, at.microsecond) != (0, 0, 0) for at in ends
        ):
            # Usage is told by the hour.
            return None
        rows = await self._usage(api, "month", filters.from_ or EPOCH, filters.to)
        return sum(row.minutes for row in rows)

    async def _ask_names(self, api: AsyncClient) -> dict[str, str]:
        return await service_names(api, self._asked.customer_id)

    async def _ask_rates(self, api: AsyncClient) -> Rates | None:
        if not self._asked.with_cost:
            return None
        return await rates_now(api, self._asked.customer_id, self._month())

    async def _ask_costs(self, api: AsyncClient) -> Bill | None:
        filters = self._asked.filters
        if not self._asked.with_cost or filters.region is not None:
            return None
        try:
            bill = await api.run(costs.of_customer(self._asked.customer_id), timeout=CALL_SECONDS)
        except Unauthorized:
            raise
        except HandoffApiError:
            return Bill(None, None, untold=True)
        if filters.service_id is None:
            return Bill(bill.total, bill.currency)
        shares = {one.service_id: one.amount for one in bill.data}
        return Bill(shares.get(filters.service_id, Decimal(0)), bill.currency)
