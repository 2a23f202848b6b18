"""Drafts and final invoices as they are read: loads what the pure core needs. `issuing` makes them
final.

A draft is nowhere stored: it is rated again from the rows of now whenever it is read, so it cannot
be stale. A final invoice is what its stored content says, never computed again for display.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from handoff_billing import late
from handoff_billing.corrections import complete
from handoff_billing.directory import Directory
from handoff_billing.holds import cut_of
from handoff_billing.invoice import (
    line_document,
    totals_document,
)
from handoff_billing.proof import (
    Late,
    corrected_by,
    late_usage,
    month_behind,
    rows_behind,
    rows_in,
    usage_of,
)
from handoff_billing.rating import rate
from handoff_billing.store import invoices, prices, rows
from handoff_billing.store.invoices import Final, Month
from handoff_billing.usage import Delivered, Totals, UsageKey
from handoff_common.clock import Clock
from handoff_common.database import Database
from handoff_common.minutes import month_of


@dataclass(frozen=True, slots=True)
class Statement:
    """A customer's month as it is shown. lines, totals: as `invoice.line_document` and
    `totals_document` have them. minutes, websocket_bytes: what was used, priced or not.
    price_book_id, price_book_version: None where no prices are in force, and then there are no
    lines. final: None for a draft."""

    month: Month
    customer_name: str
    price_book_id: str | None
    price_book_version: int | None
    currency: str
    exponent: int
    minutes: int
    websocket_bytes: int
    lines: Sequence[Mapping[str, Any]]
    totals: Mapping[str, str]
    final: Final | None = None


@dataclass(frozen=True, slots=True)
class Aftermath:
    """What came for a final month since its invoice. billed: (number of a later invoice, amount of
    its corrections). next_ms: the month on whose invoice the late usage goes; None: on none, as
    there is no next one in that currency."""

    late: Late
    billed: Sequence[tuple[str, str]]
    next_ms: int | None


class Ledger:
    def __init__(self, *, database: Database, directory: Directory, clock: Clock) -> None:
        self._database = database
        self._directory = directory
        self._clock = clock

    def now(self) -> datetime:
        return self._clock.now()

    def current_month(self) -> int:
        return month_of(self._clock.now_ms())

    async def find(self, invoice_id: str) -> Month | None:
        """The month that an id from a path stands for; ids are digits."""
        if not (invoice_id.isascii() and invoice_id.isdigit() and len(invoice_id) <= 18):
            return None
        async with self._database.read() as tx:
            return await invoices.find_month(tx, int(invoice_id))

    async def month_for(self, customer_id: str, month_ms: int) -> Month:
        """The customer's month, which gets its id here if nothing has given it one."""
        async with self._database.read() as tx:
            known = await invoices.find_id(tx, customer_id, month_ms)
        if known is None:
            async with self._database.transaction() as tx:
                await invoices.allocate_ids(tx, [(customer_id, month_ms)])
                known = await invoices.find_id(tx, customer_id, month_ms)
        if known is None:
            raise AssertionError("an allocated id can be found")
        return Month(known, customer_id, month_ms)

    async def months(
        self,
        *,
        customer_id: str | None,
        month_ms: int | None,
        final: bool | None,
        after: tuple[int, int] | None,
        limit: int,
    ) -> list[Month]:
        """Months that have an id, newest first; the customer's asked-for or current one among them,
        whether or not anything was used in it."""
        if customer_id is not None:
            wanted = self.current_month() if month_ms is None else month_ms
            await self.month_for(customer_id, wanted)
        async with self._database.read() as tx:
            return await invoices.list_months(
                tx,
                customer_id=customer_id,
                month_ms=month_ms,
                final=final,
                after=after,
                limit=limit,
            )

    async def finals(
        self,
        customer_id: str,
        *,
        from_ms: int | None,
        to_ms: int | None,
        after: int | None,
        limit: int,
    ) -> tuple[list[Final], int]:
        """The customer's final invoices, newest first, and how many there are in all."""
        async with self._database.read() as tx:
            return await invoices.list_finals(
                tx, customer_id, from_ms=from_ms, to_ms=to_ms, after=after, limit=limit
            )

    async def used(
        self, customer_id: str, month_ms: int
    ) -> tuple[dict[UsageKey, Totals], list[Delivered]]:
        """What was used in a month, per service and region."""
        async with self._database.read() as tx:
            usage = await rows.read_usage(tx, customer_id, month_ms, detail="service")
            return usage, await rows.read_delivery(tx, customer_id, month_ms)

    async def complete_through(self) -> int | None:
        """The instant up to which every slice of metering vouches for its rows."""
        async with self._database.read() as tx:
            cut = cut_of(await rows.read_progress(tx))
        return min(cut.through_ms.values(), default=None)

    async def statement(self, month: Month) -> Statement:
        name = await self._directory.customer_name(month.customer_id)
        async with self._database.read() as tx:
            final = await invoices.find_final(tx, month.invoice_id)
            if final is not None:
                return final_statement(final)
            priced = await prices.find(tx, month.customer_id, month.month_ms)
            usage = await rows.read_usage(tx, month.customer_id, month.month_ms, detail="region")
            delivery = await rows.read_delivery(tx, month.customer_id, month.month_ms)
            currency = await prices.usual_currency(tx) if priced is None else priced[0].currency
            due = await late.due(tx, month)
        rated = () if priced is None else rate(usage, delivery, priced[0], priced[1].terms)
        lines = complete(rated, due.corrections, due.carried)
        return Statement(
            month,
            name,
            None if priced is None else priced[0].price_book_id,
            None if priced is None else priced[0].version,
            currency.code,
            currency.exponent,
            sum(totals.minutes for totals in usage.values()),
            sum(totals.priced_bytes for totals in usage.values()),
            [line_document(line) for line in lines],
            totals_document(lines),
        )

    async def aftermath(self, final: Final) -> Aftermath:
        """What came for a final month since: billed by now, and not billed yet."""
        async with self._database.read() as tx:
            correction = await late.correction_of(tx, final)
            next_ms = await late.next_month_for(tx, final, self.current_month())
        return Aftermath(late_usage(correction), corrected_by(correction), next_ms)

    async def line_rows(
        self, month: Month, line: Mapping[str, Any]
    ) -> tuple[list[tuple[UsageKey, Totals]], list[Delivered]]:
        """The rows behind one line of the month as it stands: for a final invoice those of its
        content, else those of now. Lines without a product are computed from the lines above."""
        async with self._database.read() as tx:
            final = await invoices.find_final(tx, month.invoice_id)
            if final is not None:
                return rows_in(msgspec.json.decode(final.content), line)
            month_ms, line = month_behind(line, month.month_ms)
            region = line["region"]
            usage = await rows.read_usage(tx, month.customer_id, month_ms, region=region)
            delivery = await rows.read_delivery(tx, month.customer_id, month_ms, region=region)
        return rows_behind(line, usage, delivery)


def final_statement(final: Final) -> Statement:
    document = msgspec.json.decode(final.content)
    used = usage_of(document).values()
    return Statement(
        Month(final.invoice_id, final.customer_id, final.month_ms, final.alone),
        final.customer_name,
        document["price_book"]["price_book_id"],
        document["price_book"]["version"],
        final.currency,
        final.exponent,
        sum(totals.minutes for totals in used),
        sum(totals.priced_bytes for totals in used),
        document["lines"],
        document["totals"],
        final,
    )
