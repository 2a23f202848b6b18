"""Making invoices final, and issuing those that correct them: under which holds, with which number,
chained to the one before, and published.

Whatever is issued holds its series until the commit, so that numbers have no gaps and nothing is
billed twice. What an invoice says is decided by the pure core.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from handoff_billing import late, pricebook, tables, terms
from handoff_billing.corrections import complete
from handoff_billing.directory import Directory
from handoff_billing.errors import (
    invoice_held,
    next_invoice,
    no_price_book,
    not_final,
    nothing_to_correct,
)
from handoff_billing.holds import Cut, Hold, Progress, cut_of, holds
from handoff_billing.instants import month_text
from handoff_billing.invoice import (
    Subject,
    canonical,
    chain_hash,
    content_document,
    content_hash,
    link_document,
    number_of,
)
from handoff_billing.late import Due
from handoff_billing.pricebook import PriceBook
from handoff_billing.rating import Line, rate, total
from handoff_billing.settings import BillingSettings
from handoff_billing.store import Tx, corrections, invoices, prices, rows
from handoff_billing.store.invoices import Final, Month
from handoff_common.clock import Clock
from handoff_common.codec import encode
from handoff_common.database import Database
from handoff_common.errors import ApiError, FieldError
from handoff_common.events import CustomerData, InvoiceData, InvoiceFinalized
from handoff_common.instants import from_ms
from handoff_common.log import EventLog, Message
from handoff_common.minutes import month_of
from handoff_common.outbox import Outbox, enqueue
from handoff_common.topics import INVOICES, USAGE

FLUSH_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class _Issue:
    """What is about to be issued. held: the holds that are passed over."""

    subject: Subject
    book: PriceBook
    lines: Sequence[Line]
    document: Mapping[str, Any]
    cut: Cut
    revision: int
    held: Sequence[Hold]


class Issuer:
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

    async def holds(self, month: Month) -> list[Hold]:
        """What holds the month open now."""
        known = await self._directory.customer(month.customer_id)
        partitions = await self._log.partitions(USAGE.name)
        async with self._database.read() as tx:
            progress = await rows.read_progress(tx)
            due = await late.due(tx, month)
            return await self._holds(
                tx, month, progress, partitions, known=known is not None, corrected=due.months
            )

    async def finalize(self, month: Month, *, by: str, forced_reason: str | None) -> Final:
        """Make the month's invoice final, or return the one that is; then have the month looked at
        for late usage once more.

        Raises invoice_held (409), which lists every hold; `forced_reason` passes over those that an
        operator may pass over.
        """
        customer = await self._directory.customer(month.customer_id)
        partitions = await self._log.partitions(USAGE.name)
        async with self._database.transaction() as tx:
            previous = await invoices.lock_series(tx, self._settings.invoice_series)
            final = await invoices.find_final(tx, month.invoice_id)
            if final is not None:
                await corrections.mark_late(tx, {(final.customer_id, final.month_ms)})
                return final
            marked = await corrections.late_months(tx, month.customer_id)
            await corrections.hold_months(tx, month.customer_id, {month.month_ms, *marked})
            # Progress is read before the rows, and the rows before their versions: so a row that
            # arrives in between is seen as one beyond the cut, and never billed unnoticed.
            progress = await rows.read_progress(tx)
            usage = await rows.read_usage(tx, month.customer_id, month.month_ms)
            # Before the rows too: one that arrives in between then counts as later than this.
            revision = await rows.latest_delivery_revision(tx, {month.customer_id})
            delivery = await rows.read_delivery(tx, month.customer_id, month.month_ms)
            due = await late.due(tx, month, marked=marked, detail="hour")
            found = await self._holds(
                tx, month, progress, partitions, known=customer is not None, corrected=due.months
            )
            if any(forced_reason is None or not hold.forceable for hold in found):
                raise _held(month, found)
            book, given = await prices.of(tx, month.customer_id, month.month_ms)
            agreed = given.terms
            lines = complete(rate(usage, delivery, book, agreed), due.corrections, due.carried)
            subject = Subject(month.customer_id, _name(month, customer), month.month_ms)
            document = content_document(
                subject,
                book,
                agreed,
                usage,
                delivery,
                lines,
                corrections=due.corrections,
                carried=due.carried,
            )
            final = await self._issue(
                tx,
                month,
                _Issue(subject, book, lines, document, cut_of(progress), revision, found),
                due,
                previous=previous,
                by=by,
                forced_reason=forced_reason,
            )
        await self._outbox.flushed(timeout=FLUSH_SECONDS)
        return final

    async def correct(self, month: Month, *, by: str, forced_reason: str | None) -> Final:
        """Issue an invoice alone that corrects the month's, where no next invoice in its currency
        can: late usage, and what it had carried forward.

        Raises not_final, next_invoice, nothing_to_correct, and invoice_held as `finalize` does (all
        409).
        """
        customer = await self._directory.customer(month.customer_id)
        partitions = await self._log.partitions(USAGE.name)
        async with self._database.transaction() as tx:
            previous = await invoices.lock_series(tx, self._settings.invoice_series)
            final = await invoices.find_final(tx, month.invoice_id)
            if final is None:
                raise not_final(month.invoice_id)
            if final.alone:
                raise nothing_to_correct(final.number, "it is itself issued to correct another")
            next_ms = await late.next_month_for(tx, final, month_of(self._clock.now_ms()))
            if next_ms is not None:
                raise next_invoice(final.number, month_text(next_ms))
            await corrections.hold_months(tx, month.customer_id, {month.month_ms})
            progress = await rows.read_progress(tx)
            revision = await rows.latest_delivery_revision(tx, {month.customer_id})
            due = await late.due_alone(tx, final)
            lines = complete((), due.corrections, due.carried, alone=True)
            if not lines:
                raise nothing_to_correct(final.number, "all its usage is billed")
            found = await self._holds(tx, month, progress, partitions, known=customer is not None)
            if any(forced_reason is None or not hold.forceable for hold in found):
                raise _held(month, found)
            content = msgspec.json.decode(final.content)
            book, agreed = pricebook.parse(content["price_book"]), terms.parse(content["terms"])
            subject = Subject(month.customer_id, _name(month, customer), month.month_ms)
            document = content_document(
                subject,
                book,
                agreed,
                {},
                [],
                lines,
                rater_version=content["rater_version"],
                corrections=due.corrections,
                carried=due.carried,
                alone=True,
            )
            alone = await self._issue(
                tx,
                await corrections.allocate_alone(tx, final),
                _Issue(subject, book, lines, document, cut_of(progress), revision, found),
                due,
                previous=previous,
                by=by,
                forced_reason=forced_reason,
            )
        await self._outbox.flushed(timeout=FLUSH_SECONDS)
        return alone

    async def _issue(
        self,
        tx: Tx,
        month: Month,
        issue: _Issue,
        due: Due,
        *,
        previous: str,
        by: str,
        forced_reason: str | None,
    ) -> Final:
        """Number, chain, store and publish what the caller, who holds the series, has made."""
        content = canonical(issue.document)
        now_ms = self._clock.now_ms()
        number = await self._next_number(tx, now_ms)
        positions = {str(s): offset for s, offset in issue.cut.positions.items()}
        final = Final(
            invoice_id=month.invoice_id,
            series=self._settings.invoice_series,
            number=number,
            customer_id=month.customer_id,
            customer_name=issue.subject.customer_name,
            month_ms=month.month_ms,
            issued_ms=now_ms,
            currency=issue.book.currency.code,
            exponent=issue.book.currency.exponent,
            total=total(issue.lines),
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
            through_ms={str(s): ms for s, ms in issue.cut.through_ms.items()},
            finalized_by=by,
            forced_reason=forced_reason if issue.held else None,
            overridden=[{"code": hold.code, "detail": hold.detail} for hold in issue.held],
            alone=month.alone,
        )
        await invoices.add_final(tx, final)
        settles = [*due.settles]
        if any(line.kind == "carried_forward" for line in issue.lines):
            settles.append(("carried_forward", final.invoice_id))
        await corrections.add_settlements(tx, final.customer_id, final.invoice_id, settles)
        await corrections.clear_late(tx, final.customer_id, due.seen)
        message = Message(final.customer_id, encode(finalized_event(final, issue.revision)))
        await enqueue(tx, tables.outbox, [(INVOICES.name, message)])
        return final

    async def _holds(
        self,
        tx: Tx,
        month: Month,
        progress: Sequence[Progress],
        partitions: int,
        *,
        known: bool,
        corrected: Sequence[int] = (),
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
            corrected={
                month_ms: await rows.read_row_versions(tx, month.customer_id, month_ms)
                for month_ms in corrected
            },
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


def _name(month: Month, customer: CustomerData | None) -> str:
    return month.customer_id if customer is None else customer.name


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
