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
from handoff_billing.allocation import Costs, allocate
from handoff_billing.corrections import complete
from handoff_billing.directory import Directory
from handoff_billing.forecast import Method, complete_through, expect, reach
from handoff_billing.holds import cut_of
from handoff_billing.invoice import (
    line_document,
    totals_document,
)
from handoff_billing.pricebook import Currency, PriceBook
from handoff_billing.proof import (
    Late,
    corrected_by,
    delivery_of,
    late_usage,
    month_behind,
    rows_behind,
    rows_in,
    usage_of,
)
from handoff_billing.rating import rate
from handoff_billing.store import Tx, invoices, prices, rows
from handoff_billing.store.invoices import Final, Month
from handoff_billing.store.prices import Given
from handoff_billing.usage import Delivered, Totals, Usage, UsageKey
from handoff_common.clock import Clock
from handoff_common.database import Database
from handoff_common.minutes import month_of, next_month


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
class Outlook:
    """A month as it stands, and as it is expected to end. delivery_bytes, expected_delivery_bytes:
    of other teams. through_ms: up to which its hours are complete."""

    so_far: Statement
    delivery_bytes: int
    expected: Statement
    expected_delivery_bytes: int
    method: Method
    through_ms: int


@dataclass(frozen=True, slots=True)
class Shares:
    """A month with what each service has in its lines. delivery_bytes: of other teams."""

    statement: Statement
    costs: Costs
    delivery_bytes: int


@dataclass(frozen=True, slots=True)
class _Prices:
    """What a draft depends on beside usage. priced: None where no prices are in force."""

    priced: tuple[PriceBook, Given] | None
    currency: Currency
    due: late.Due


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
        before_ms: int | None = None,
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
                before_ms=before_ms,
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
            usage = await rows.read_usage(tx, month.customer_id, month.month_ms, detail="region")
            delivery = await rows.read_delivery(tx, month.customer_id, month.month_ms)
            found = await _prices(tx, month)
        return _draft(month, name, found, usage, delivery)

    async def costs(self, customer_id: str, month_ms: int) -> Shares:
        """What each service has in the lines of the customer's invoice, draft or final."""
        name = await self._directory.customer_name(customer_id)
        async with self._database.read() as tx:
            month, final = await _invoice_of(tx, customer_id, month_ms)
            if final is not None:
                return _shares(final_statement(final), *_used_in(final))
            usage = await rows.read_usage(tx, customer_id, month_ms, detail="service")
            delivery = await rows.read_delivery(tx, customer_id, month_ms)
            found = await _prices(tx, month)
        return _shares(_draft(month, name, found, usage, delivery), usage, delivery)

    async def outlook(self, customer_id: str, month_ms: int) -> Outlook:
        """What the customer's month is expected to come to. A month that is over comes to what its
        invoice says, draft or final."""
        if month_ms < self.current_month():
            shares = await self.costs(customer_id, month_ms)
            given, count = shares.statement, shares.delivery_bytes
            return Outlook(given, count, given, count, "complete", next_month(month_ms))
        name = await self._directory.customer_name(customer_id)
        now_ms, end_ms = self._clock.now_ms(), next_month(month_ms)
        async with self._database.read() as tx:
            month, _ = await _invoice_of(tx, customer_id, month_ms)
            cut = cut_of(await rows.read_progress(tx))
            vouched_ms = min(cut.through_ms.values(), default=None)
            through_ms = complete_through(month_ms, now_ms, vouched_ms)
            since_ms = reach(month_ms, through_ms)
            usage, delivery = await rows.read_hours(tx, customer_id, since_ms, end_ms)
            found = await _prices(tx, month)
        expected = expect(usage, delivery, month_ms=month_ms, through_ms=through_ms)
        used = {key: totals for key, totals in usage.items() if key.hour_ms >= month_ms}
        delivered = [row for row in delivery if row.hour_ms >= month_ms]
        return Outlook(
            _draft(month, name, found, used, delivered),
            sum(row.bytes for row in delivered),
            _draft(month, name, found, expected.usage, expected.delivery),
            sum(row.bytes for row in expected.delivery),
            expected.method,
            through_ms,
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


async def _invoice_of(tx: Tx, customer_id: str, month_ms: int) -> tuple[Month, Final | None]:
    """The month with its final invoice. Nothing is written: a month that has no id yet is 0."""
    invoice_id = await invoices.find_id(tx, customer_id, month_ms)
    final = None if invoice_id is None else await invoices.find_final(tx, invoice_id)
    return Month(invoice_id or 0, customer_id, month_ms), final


async def _prices(tx: Tx, month: Month) -> _Prices:
    priced = await prices.find(tx, month.customer_id, month.month_ms)
    currency = await prices.usual_currency(tx) if priced is None else priced[0].currency
    return _Prices(priced, currency, await late.due(tx, month))


def _draft(
    month: Month, name: str, found: _Prices, usage: Usage, delivery: Sequence[Delivered]
) -> Statement:
    priced, due = found.priced, found.due
    rated = () if priced is None else rate(usage, delivery, priced[0], priced[1].terms)
    lines = complete(rated, due.corrections, due.carried)
    return Statement(
        month,
        name,
        None if priced is None else priced[0].price_book_id,
        None if priced is None else priced[0].version,
        found.currency.code,
        found.currency.exponent,
        sum(totals.minutes for totals in usage.values()),
        sum(totals.priced_bytes for totals in usage.values()),
        [line_document(line) for line in lines],
        totals_document(lines),
    )


def _shares(statement: Statement, usage: Usage, delivery: Sequence[Delivered]) -> Shares:
    costs = allocate(statement.lines, usage, statement.exponent)
    return Shares(statement, costs, sum(row.bytes for row in delivery))


def _used_in(final: Final) -> tuple[Usage, Sequence[Delivered]]:
    document = msgspec.json.decode(final.content)
    return usage_of(document), delivery_of(document)


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
