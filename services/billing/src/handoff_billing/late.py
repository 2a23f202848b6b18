"""What an invoice has to bear for earlier ones: finds late usage and what was carried forward, and
says on which invoice it goes.

That is the invoice of the customer's first month after the corrected one that is not final and has
the same currency: the current month's, once those between are final. Each correction so stands on
one draft at a time. Where there is no such month, an invoice is issued alone.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import msgspec

from handoff_billing import pricebook, terms
from handoff_billing.corrections import (
    Carried,
    Correction,
    billed_by,
    carried_forward,
    changes,
)
from handoff_billing.pricebook import Currency
from handoff_billing.store import Tx, prices, rows
from handoff_billing.store import corrections as stored
from handoff_billing.store.invoices import Final, Month
from handoff_billing.store.rows import Detail


@dataclass(frozen=True, slots=True)
class Due:
    """corrections, carried: for `corrections.complete`. settles: (kind of line, id of the invoice
    that it is about). seen: the late months of which this is all there is to bill."""

    corrections: Sequence[Correction] = ()
    carried: Sequence[Carried] = ()
    settles: Sequence[tuple[str, int]] = ()
    seen: Sequence[int] = ()

    @property
    def months(self) -> list[int]:
        """The months that are corrected."""
        return [one.month_ms for one in self.corrections]


NOTHING = Due()


async def due(
    tx: Tx, month: Month, *, marked: Collection[int] | None = None, detail: Detail = "region"
) -> Due:
    """What the invoice of a month that is not final bears for earlier ones, as of now.

    marked: of the months marked as late, those to look at; all, where it is left out.
    """
    customer_id = month.customer_id
    if marked is None:
        marked = await stored.late_months(tx, customer_id)
    late = await stored.finals_of(tx, customer_id, marked)
    over = await stored.carrying(tx, customer_id)
    earlier = [final for final in (*late, *over) if final.month_ms < month.month_ms]
    if not earlier:
        return NOTHING
    first_ms = min(final.month_ms for final in earlier)
    opened = [one.month_ms for one in await stored.open_months(tx, customer_id, first_ms)]
    currencies = {
        month_ms: await _currency(tx, customer_id, month_ms)
        for month_ms in opened
        if month_ms <= month.month_ms
    }

    def here(finals: Iterable[Final]) -> list[Final]:
        return [one for one in finals if _first(one, currencies.items()) == month.month_ms]

    return await _settling(tx, here(late), here(over), detail=detail)


async def due_alone(tx: Tx, final: Final) -> Due:
    """What an invoice would bear that is issued only to correct this one."""
    over = await stored.carrying(tx, final.customer_id)
    own = [one for one in over if one.invoice_id == final.invoice_id]
    return await _settling(tx, [final], own, detail="hour")


async def correction_of(tx: Tx, final: Final, *, detail: Detail = "region") -> Correction:
    """A final month with the rows of now, and all that was billed for it."""
    document = msgspec.json.decode(final.content)
    number = final.number
    later = [
        billed_by(msgspec.json.decode(one.content), one.number, number)
        for one in await stored.correcting(tx, final.invoice_id)
    ]
    return Correction(
        final.month_ms,
        pricebook.parse(document["price_book"]),
        terms.parse(document["terms"]),
        document["rater_version"],
        await rows.read_usage(tx, final.customer_id, final.month_ms, detail=detail),
        await rows.read_delivery(tx, final.customer_id, final.month_ms),
        [billed_by(document, number, number), *later],
    )


async def next_month_for(tx: Tx, final: Final, current_ms: int) -> int | None:
    """The month on whose invoice corrections of this one go; None where there is none in its
    currency. current_ms: the current month, whether or not anything was used in it."""
    opened = await stored.open_months(tx, final.customer_id, final.month_ms)
    months = sorted({*(one.month_ms for one in opened), current_ms})
    for month_ms in months:
        found = await _currency(tx, final.customer_id, month_ms)
        if _first(final, [(month_ms, found)]) is not None:
            return month_ms
    return None


async def _settling(tx: Tx, late: Iterable[Final], over: Iterable[Final], *, detail: Detail) -> Due:
    corrections, settles, seen = [], [], []
    for final in late:
        correction = await correction_of(tx, final, detail=detail)
        seen.append(final.month_ms)
        if changes(correction):
            corrections.append(correction)
            settles.append(("correction", final.invoice_id))
    carried = []
    for final in over:
        left = carried_forward(msgspec.json.decode(final.content)["lines"])
        carried.append(Carried(final.number, final.month_ms, left))
        settles.append(("carried_over", final.invoice_id))
    return Due(corrections, carried, settles, seen)


async def _currency(tx: Tx, customer_id: str, month_ms: int) -> Currency | None:
    found = await prices.find(tx, customer_id, month_ms)
    return None if found is None else found[0].currency


def _first(final: Final, months: Iterable[tuple[int, Currency | None]]) -> int | None:
    """The first of the months, oldest first, that is later and has the invoice's currency."""
    wanted = Currency(final.currency, final.exponent)
    for month_ms, currency in months:
        if month_ms > final.month_ms and currency == wanted:
            return month_ms
    return None
