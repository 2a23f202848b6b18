"""Drafts and final invoices: loads what the pure core needs, and stores what it decides.

A draft is nowhere stored: it is rated again from the rows of now whenever it is read, so it cannot
be stale. A final invoice is what its stored content says, never computed again for display.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from handoff_billing import pricebook, tables, terms
from handoff_billing.directory import Directory
from handoff_billing.errors import invoice_held, no_price_book
from handoff_billing.holds import Hold, Progress, cut_of, holds
from handoff_billing.instants import month_text
from handoff_billing.invoice import (
    Subject,
    canonical,
    chain_hash,
    content_document,
    content_hash,
    line_document,
    link_document,
    number_of,
    totals_document,
)
from handoff_billing.proof import Late, delivery_of, late_usage, rows_behind, usage_of
from handoff_billing.rating import RATERS, rate, total
from handoff_billing.settings import BillingSettings
from handoff_billing.store import Tx, invoices, prices, rows
from handoff_billing.store.invoices import Final, Month
from handoff_billing.usage import Delivered, Totals, UsageKey
from handoff_common.clock import Clock
from handoff_common.codec import encode
from handoff_common.database import Database
from handoff_common.errors import ApiError, FieldError
from handoff_common.events import InvoiceData, InvoiceFinalized
from handoff_common.instants import from_ms
from handoff_common.log import EventLog, Message
from handoff_common.minutes import month_of
from handoff_common.outbox import Outbox, enqueue
from handoff_common.topics import INVOICES, USAGE

FLUSH_SECONDS = 2.0


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


class Ledger:
    def __init__(
        self,
        *,
        database: Database,
        log: EventLog,
        outbox: Outbox,
        directory: Directory,
        clock: Clock,
        settings: BillingSettings,
    ) -> None:
        self._database = database
        self._log = log
        self._outbox = outbox
        self._directory = directory
        self._clock = clock
        self._settings = settings

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
        lines = [] if priced is None else rate(usage, delivery, priced[0], priced[1].terms)
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

    async def holds(self, month: Month) -> list[Hold]:
        """What holds the month open now."""
        known = await self._directory.customer(month.customer_id)
        partitions = await self._log.partitions(USAGE.name)
        async with self._database.read() as tx:
            progress = await rows.read_progress(tx)
            return await self._holds(tx, month, progress, partitions, known=known is not None)

    async def late(self, final: Final) -> Late:
        """The month rated again with the rows of now and the prices of the invoice, minus what the
        invoice says. Empty as long as nothing came late."""
        document = msgspec.json.decode(final.content)
        book = pricebook.parse(document["price_book"])
        agreed = terms.parse(document["terms"])
        async with self._database.read() as tx:
            usage = await rows.read_usage(tx, final.customer_id, final.month_ms, detail="region")
            delivery = await rows.read_delivery(tx, final.customer_id, final.month_ms)
        now = RATERS[document["rater_version"]](usage, delivery, book, agreed)
        return late_usage(document["lines"], now)

    async def finalize(self, month: Month, *, by: str, forced_reason: str | None) -> Final:
        """Make the month's invoice final, or return the one that is.

        Raises invoice_held (409), which lists every hold; `forced_reason` passes over those that an
        operator may pass over.
        """
        customer = await self._directory.customer(month.customer_id)
        name = month.customer_id if customer is None else customer.name
        partitions = await self._log.partitions(USAGE.name)
        async with self._database.transaction() as tx:
            previous = await invoices.lock_series(tx, self._settings.invoice_series)
            final = await invoices.find_final(tx, month.invoice_id)
            if final is not None:
                return final
            # Progress is read before the rows, and the rows before their versions: so a row that
            # arrives in between is seen as one beyond the cut, and never billed unnoticed.
            progress = await rows.read_progress(tx)
            usage = await rows.read_usage(tx, month.customer_id, month.month_ms)
            # Before the rows too: one that arrives in between then counts as later than this.
            revision = await rows.latest_delivery_revision(tx, {month.customer_id})
            delivery = await rows.read_delivery(tx, month.customer_id, month.month_ms)
            found = await self._holds(tx, month, progress, partitions, known=customer is not None)
            if any(forced_reason is None or not hold.forceable for hold in found):
                raise _held(month, found)
            book, given = await prices.of(tx, month.customer_id, month.month_ms)
            agreed = given.terms
            lines = rate(usage, delivery, book, agreed)
            subject = Subject(month.customer_id, name, month.month_ms)
            content = canonical(content_document(subject, book, agreed, usage, delivery, lines))
            now_ms = self._clock.now_ms()
            number = await self._next_number(tx, now_ms)
            cut = cut_of(progress)
            positions = {str(s): offset for s, offset in cut.positions.items()}
            final = Final(
                invoice_id=month.invoice_id,
                series=self._settings.invoice_series,
                number=number,
                customer_id=month.customer_id,
                customer_name=name,
                month_ms=month.month_ms,
                issued_ms=now_ms,
                currency=book.currency.code,
                exponent=book.currency.exponent,
                total=total(lines),
                content=content,
                content_hash=content_hash(content),
                previous_chain_hash=previous,
                chain_hash=chain_hash(
                    link_document(
                        previous=previous,
                        number=number,
                        issued_at_ms=now_ms,
                        positions=positions,
                        content_hash=content_hash(content),
                    )
                ),
                positions=positions,
                through_ms={str(s): ms for s, ms in cut.through_ms.items()},
                finalized_by=by,
                forced_reason=forced_reason if found else None,
                overridden=[{"code": hold.code, "detail": hold.detail} for hold in found],
            )
            await invoices.add_final(tx, final)
            message = Message(final.customer_id, encode(finalized_event(final, revision)))
            await enqueue(tx, tables.outbox, [(INVOICES.name, message)])
        await self._outbox.flushed(timeout=FLUSH_SECONDS)
        return final

    async def line_rows(
        self, month: Month, line: Mapping[str, Any]
    ) -> tuple[list[tuple[UsageKey, Totals]], list[Delivered]]:
        """The rows behind one line of the month as it stands: for a final invoice those of its
        content, else those of now. Lines without a product are computed from the lines above."""
        region = line["region"]
        async with self._database.read() as tx:
            final = await invoices.find_final(tx, month.invoice_id)
            if final is None:
                usage = await rows.read_usage(tx, month.customer_id, month.month_ms, region=region)
                delivery = await rows.read_delivery(
                    tx, month.customer_id, month.month_ms, region=region
                )
                return rows_behind(line, usage, delivery)
        document = msgspec.json.decode(final.content)
        return rows_behind(line, usage_of(document), delivery_of(document))

    async def _holds(
        self,
        tx: Tx,
        month: Month,
        progress: Sequence[Progress],
        partitions: int,
        *,
        known: bool,
    ) -> list[Hold]:
        found = holds(
            customer_id=month.customer_id,
            month_ms=month.month_ms,
            now_ms=self._clock.now_ms(),
            grace_ms=self._settings.invoice_grace_s * 1000,
            partitions=partitions,
            progress=progress,
            rows=await rows.read_row_versions(tx, month.customer_id, month.month_ms),
            unreadable=await rows.count_unreadable(tx),
        )
        if not known:
            found.append(
                Hold("customer_unknown", f"config has not said who {month.customer_id!r} is")
            )
        if await prices.find(tx, month.customer_id, month.month_ms) is None:
            detail = no_price_book(month.customer_id, month_text(month.month_ms))
            found.append(Hold(detail.code, detail.detail, forceable=False))
        return found

    async def _next_number(self, tx: Tx, now_ms: int) -> str:
        series, year = self._settings.invoice_series, from_ms(now_ms).year
        counter = await invoices.count_up(tx, f"invoice/{series}/{year}")
        return number_of(series, year, counter)


def final_statement(final: Final) -> Statement:
    document = msgspec.json.decode(final.content)
    used = usage_of(document).values()
    return Statement(
        Month(final.invoice_id, final.customer_id, final.month_ms),
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


def finalized_event(final: Final, delivery_revision: int) -> InvoiceFinalized:
    """What goes to `handoff.invoices.v1`; its id is the invoice's number."""
    return InvoiceFinalized(
        id=final.number,
        source="/billing",
        subject=str(final.invoice_id),
        time=from_ms(final.issued_ms),
        data=InvoiceData(
            invoice_id=str(final.invoice_id),
            number=final.number,
            customer_id=final.customer_id,
            issued_at=from_ms(final.issued_ms),
            content=final.content,
            content_hash=final.content_hash,
            chain_hash=final.chain_hash,
            previous_chain_hash=final.previous_chain_hash,
            positions=dict(final.positions),
            through={slice_: from_ms(ms) for slice_, ms in final.through_ms.items()},
            delivery_revision=delivery_revision,
            forced_reason=final.forced_reason,
        ),
    )


def _held(month: Month, found: Sequence[Hold]) -> ApiError:
    never = [hold.code for hold in found if not hold.forceable]
    way_out = (
        f"not even by force while {', '.join(never)}"
        if never
        else 'an operator may pass over this with {"force": true, "reason": "…"}'
    )
    detail = (
        f"{month_text(month.month_ms)} cannot be final for customer {month.customer_id!r}: "
        f"{', '.join(dict.fromkeys(hold.code for hold in found))}; {way_out}"
    )
    return invoice_held(detail, [FieldError(hold.code, hold.detail) for hold in found])
