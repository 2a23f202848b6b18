"""Invoice ids, final invoices, their numbers and their chain."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec
from sqlalchemy import Select, and_, func, or_, select
from sqlalchemy import insert as plain_insert

from handoff_billing import tables as t
from handoff_billing.invoice import NO_CHAIN
from handoff_billing.store import Tx, as_json, inserting
from handoff_common.minutes import month_of, next_month


@dataclass(frozen=True, slots=True)
class Final:
    """A final invoice as it stands in the database. `alone`: as of `Month`."""

    invoice_id: int
    series: str
    number: str
    customer_id: str
    customer_name: str
    month_ms: int
    issued_ms: int
    currency: str
    exponent: int
    total: Decimal
    content: str
    content_hash: str
    previous_chain_hash: str
    chain_hash: str
    positions: Mapping[str, int]
    through_ms: Mapping[str, int]
    finalized_by: str
    forced_reason: str | None
    overridden: Sequence[Mapping[str, str]]
    alone: int = 0

    @property
    def place_ms(self) -> int:
        """Where it stands among the customer's invoices: see `tables.invoice_ids`."""
        return self.month_ms + self.alone


@dataclass(frozen=True, slots=True)
class Month:
    """A customer's month and its invoice id; or, where `alone` is not 0, the id of the invoice that
    was the `alone`-th to be issued only to correct that month."""

    invoice_id: int
    customer_id: str
    month_ms: int
    alone: int = 0

    @property
    def place_ms(self) -> int:
        return self.month_ms + self.alone


async def allocate_ids(tx: Tx, months: Collection[tuple[str, int]]) -> None:
    """See that each (customer, month) has an invoice id."""
    if not months:
        return
    insert = inserting(tx)
    await tx.execute(
        insert(t.invoice_ids).on_conflict_do_nothing(index_elements=["customer_id", "month_ms"]),
        [{"customer_id": c, "month_ms": m} for c, m in sorted(months)],
    )


async def find_month(tx: Tx, invoice_id: int) -> Month | None:
    row = (
        await tx.execute(select(t.invoice_ids).where(t.invoice_ids.c.id == invoice_id))
    ).one_or_none()
    return None if row is None else _month(row)


async def find_id(tx: Tx, customer_id: str, month_ms: int) -> int | None:
    i = t.invoice_ids.c
    found: int | None = await tx.scalar(
        select(i.id).where(i.customer_id == customer_id, i.month_ms == month_ms)
    )
    return found


async def list_months(
    tx: Tx,
    *,
    customer_id: str | None,
    month_ms: int | None,
    before_ms: int | None,
    final: bool | None,
    after: tuple[int, int] | None,
    limit: int,
) -> list[Month]:
    """Newest first, then by id; `after` is (place, id) of the last one seen. before_ms: without
    that month and later ones."""
    i = t.invoice_ids.c
    query = select(t.invoice_ids).order_by(i.month_ms.desc(), i.id).limit(limit)
    if customer_id is not None:
        query = query.where(i.customer_id == customer_id)
    if month_ms is not None:
        query = query.where(i.month_ms >= month_ms, i.month_ms < next_month(month_ms))
    if before_ms is not None:
        query = query.where(i.month_ms < before_ms)
    if final is not None:
        is_final = select(t.invoices.c.invoice_id).where(t.invoices.c.invoice_id == i.id).exists()
        query = query.where(is_final if final else ~is_final)
    if after is not None:
        month, last = after
        query = query.where(or_(i.month_ms < month, and_(i.month_ms == month, i.id > last)))
    return [_month(row) for row in await tx.execute(query)]


async def find_final(tx: Tx, invoice_id: int) -> Final | None:
    row = (
        await tx.execute(select(t.invoices).where(t.invoices.c.invoice_id == invoice_id))
    ).one_or_none()
    return None if row is None else final_of(row)


async def list_finals(
    tx: Tx,
    customer_id: str,
    *,
    from_ms: int | None,
    to_ms: int | None,
    after: int | None,
    limit: int,
) -> tuple[list[Final], int]:
    """The customer's final invoices whose month begins within [from, to), newest first, and how
    many there are in all. `after` is the place of the last one seen."""

    def within(query: Select[Any]) -> Select[Any]:
        query = query.where(t.invoices.c.customer_id == customer_id)
        if from_ms is not None:
            query = query.where(t.invoices.c.month_ms >= from_ms)
        if to_ms is not None:
            query = query.where(t.invoices.c.month_ms < to_ms)
        return query

    query = within(select(t.invoices)).order_by(t.invoices.c.month_ms.desc()).limit(limit)
    if after is not None:
        query = query.where(t.invoices.c.month_ms < after)
    count = await tx.scalar(within(select(func.count()).select_from(t.invoices)))
    return [final_of(row) for row in await tx.execute(query)], int(count or 0)


async def has_final_since(tx: Tx, customer_id: str | None, month_ms: int) -> bool:
    """Whether the month or a later one is final, of the customer or (None) of any."""
    query = select(func.count()).where(t.invoices.c.month_ms >= month_ms)
    if customer_id is not None:
        query = query.where(t.invoices.c.customer_id == customer_id)
    return bool(await tx.scalar(query))


async def add_final(tx: Tx, final: Final) -> None:
    await tx.execute(
        plain_insert(t.invoices).values(
            invoice_id=final.invoice_id,
            series=final.series,
            number=final.number,
            customer_id=final.customer_id,
            customer_name=final.customer_name,
            month_ms=final.place_ms,
            issued_ms=final.issued_ms,
            currency=final.currency,
            exponent=final.exponent,
            total=final.total,
            content=final.content,
            content_hash=final.content_hash,
            previous_chain_hash=final.previous_chain_hash,
            chain_hash=final.chain_hash,
            positions=as_json(final.positions),
            through=as_json(final.through_ms),
            finalized_by=final.finalized_by,
            forced_reason=final.forced_reason,
            overridden=as_json(final.overridden),
        )
    )
    insert = inserting(tx)
    link = insert(t.series).values(series=final.series, chain_hash=final.chain_hash)
    await tx.execute(
        link.on_conflict_do_update(
            index_elements=["series"], set_={"chain_hash": link.excluded.chain_hash}
        )
    )


async def lock_series(tx: Tx, series: str) -> str:
    """Take the series for this transaction; returns its last chain hash. Whatever must not happen
    beside a finalization takes it too."""
    insert = inserting(tx)
    mine = insert(t.series).values(series=series, chain_hash=NO_CHAIN)
    last: str | None = await tx.scalar(
        mine.on_conflict_do_update(
            index_elements=["series"], set_={"series": mine.excluded.series}
        ).returning(t.series.c.chain_hash)
    )
    return last or NO_CHAIN


async def count_up(tx: Tx, name: str, *, by: int = 1, at_least: int = 0) -> int:
    """Raise a counter by `by`, from no less than `at_least`; returns its new value."""
    insert = inserting(tx)
    first = insert(t.counters).values(name=name, value=at_least + by)
    risen = func.max if tx.dialect.name == "sqlite" else func.greatest
    value = await tx.scalar(
        first.on_conflict_do_update(
            index_elements=["name"], set_={"value": risen(t.counters.c.value, at_least) + by}
        ).returning(t.counters.c.value)
    )
    if value is None:
        raise AssertionError("an upsert with RETURNING gives its row")
    return int(value)


def _month(row: Any) -> Month:
    month_ms = month_of(row.month_ms)
    return Month(row.id, row.customer_id, month_ms, row.month_ms - month_ms)


def final_of(row: Any) -> Final:
    month_ms = month_of(row.month_ms)
    return Final(
        invoice_id=row.invoice_id,
        series=row.series,
        number=row.number,
        customer_id=row.customer_id,
        customer_name=row.customer_name,
        month_ms=month_ms,
        issued_ms=row.issued_ms,
        currency=row.currency,
        exponent=row.exponent,
        total=row.total,
        content=row.content,
        content_hash=row.content_hash,
        previous_chain_hash=row.previous_chain_hash,
        chain_hash=row.chain_hash,
        positions=msgspec.json.decode(row.positions, type=dict[str, int]),
        through_ms=msgspec.json.decode(row.through, type=dict[str, int]),
        finalized_by=row.finalized_by,
        forced_reason=row.forced_reason,
        overridden=msgspec.json.decode(row.overridden, type=list[dict[str, str]]),
        alone=row.month_ms - month_ms,
    )
