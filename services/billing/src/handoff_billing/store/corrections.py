"""Which final months may have late usage, and which invoices settle which: what finds a correction.

Rows and a finalization of their month are kept apart by the month's row in `invoice_ids`: whoever
writes rows shares it, whoever finalizes or corrects holds it alone. So a row is either among those
that an invoice counts, or marks its month as late; never neither.
"""

from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy import Select, delete, func, insert, select, tuple_

from handoff_billing import tables as t
from handoff_billing.store import Tx, inserting
from handoff_billing.store.invoices import Final, Month, allocate_ids, final_of, find_id
from handoff_common.minutes import next_month

_MONTHS_PER_STATEMENT = 500


async def mark_late(tx: Tx, months: Collection[tuple[str, int]]) -> None:
    """Mark those of the (customer, month)s that are final. For whoever has written rows of them in
    this transaction, after `allocate_ids`."""
    ordered = sorted(months)
    i, v = t.invoice_ids.c, t.invoices.c
    for start in range(0, len(ordered), _MONTHS_PER_STATEMENT):
        some = ordered[start : start + _MONTHS_PER_STATEMENT]
        await tx.execute(
            select(i.id)
            .where(tuple_(i.customer_id, i.month_ms).in_(some))
            .order_by(i.id)
            .with_for_update(read=True)
        )
        final = await tx.execute(
            select(v.customer_id, v.month_ms).where(tuple_(v.customer_id, v.month_ms).in_(some))
        )
        late = [{"customer_id": c, "month_ms": m} for c, m in sorted(map(tuple, final))]
        if late:
            await tx.execute(inserting(tx)(t.late_months).on_conflict_do_nothing(), late)


async def hold_months(tx: Tx, customer_id: str, months: Iterable[int]) -> None:
    """Until this transaction ends, nobody else writes rows of the customer's months."""
    i = t.invoice_ids.c
    await tx.execute(
        select(i.id)
        .where(i.customer_id == customer_id, i.month_ms.in_(sorted(months)))
        .order_by(i.id)
        .with_for_update()
    )


async def late_months(tx: Tx, customer_id: str) -> list[int]:
    """The customer's final months that may have late usage, oldest first."""
    m = t.late_months.c
    found = await tx.scalars(
        select(m.month_ms).where(m.customer_id == customer_id).order_by(m.month_ms)
    )
    return list(found)


async def clear_late(tx: Tx, customer_id: str, months: Collection[int]) -> None:
    """For months that this transaction holds, and whose invoices now say all there is."""
    m = t.late_months.c
    await tx.execute(
        delete(t.late_months).where(m.customer_id == customer_id, m.month_ms.in_(sorted(months)))
    )


async def finals_of(tx: Tx, customer_id: str, months: Collection[int]) -> list[Final]:
    """The final invoices of the customer's months, oldest month first."""
    v = t.invoices.c
    return await _finals(
        tx,
        select(t.invoices)
        .where(v.customer_id == customer_id, v.month_ms.in_(sorted(months)))
        .order_by(v.month_ms),
    )


async def correcting(tx: Tx, invoice_id: int) -> list[Final]:
    """The invoices that have corrected this one, in the order of their issue."""
    s, v = t.settlements.c, t.invoices.c
    return await _finals(
        tx,
        select(t.invoices)
        .join(t.settlements, s.invoice_id == v.invoice_id)
        .where(s.about_id == invoice_id, s.kind == "correction")
        .order_by(v.issued_ms, v.number),
    )


async def carrying(tx: Tx, customer_id: str) -> list[Final]:
    """The customer's invoices that have carried something forward which no other has taken over,
    oldest month first."""
    s, v = t.settlements.c, t.invoices.c
    taken = t.settlements.alias()
    return await _finals(
        tx,
        select(t.invoices)
        .join(t.settlements, s.invoice_id == v.invoice_id)
        .where(
            s.customer_id == customer_id,
            s.kind == "carried_forward",
            ~select(taken.c.about_id)
            .where(taken.c.about_id == s.about_id, taken.c.kind == "carried_over")
            .exists(),
        )
        .order_by(v.month_ms),
    )


async def add_settlements(
    tx: Tx, customer_id: str, invoice_id: int, about: Collection[tuple[str, int]]
) -> None:
    """about: (kind of line, id of the invoice that it is about)."""
    if about:
        await tx.execute(
            insert(t.settlements),
            [
                {"invoice_id": invoice_id, "kind": k, "about_id": i, "customer_id": customer_id}
                for k, i in sorted(about)
            ],
        )


async def open_months(tx: Tx, customer_id: str, after_ms: int) -> list[Month]:
    """The customer's months after that one that are not final, oldest first."""
    i = t.invoice_ids.c
    final = select(t.invoices.c.invoice_id).where(t.invoices.c.invoice_id == i.id).exists()
    found = await tx.execute(
        select(t.invoice_ids)
        .where(i.customer_id == customer_id, i.month_ms > after_ms, ~final)
        .order_by(i.month_ms)
    )
    return [Month(row.id, row.customer_id, row.month_ms) for row in found]


async def allocate_alone(tx: Tx, final: Final) -> Month:
    """The id of one more invoice that corrects the final one. The caller holds its month."""
    i = t.invoice_ids.c
    last = await tx.scalar(
        select(func.max(i.month_ms)).where(
            i.customer_id == final.customer_id,
            i.month_ms >= final.month_ms,
            i.month_ms < next_month(final.month_ms),
        )
    )
    place_ms = int(last or final.month_ms) + 1
    await allocate_ids(tx, [(final.customer_id, place_ms)])
    made = await find_id(tx, final.customer_id, place_ms)
    if made is None:
        raise AssertionError("an allocated id can be found")
    return Month(made, final.customer_id, final.month_ms, place_ms - final.month_ms)


async def _finals(tx: Tx, query: Select[Any]) -> list[Final]:
    return [final_of(row) for row in await tx.execute(query)]
