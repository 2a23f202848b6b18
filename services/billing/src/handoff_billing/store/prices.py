"""Price books and customers' terms: append-only."""

from dataclasses import dataclass

import msgspec
from sqlalchemy import insert, select

from handoff_billing import pricebook
from handoff_billing import tables as t
from handoff_billing import terms as agreed
from handoff_billing.errors import no_price_book
from handoff_billing.instants import month_text
from handoff_billing.pricebook import Currency, PriceBook
from handoff_billing.store import Tx, as_json
from handoff_billing.terms import Terms


@dataclass(frozen=True, slots=True)
class Given:
    """Terms as given: `default` where they are those of every customer without its own."""

    terms: Terms
    created_ms: int
    created_by: str
    default: bool

    @property
    def effective_ms(self) -> int:
        return self.terms.effective_ms


async def read_books(tx: Tx, price_book_id: str | None = None) -> list[PriceBook]:
    """Every version, of one book or of all, by id and version."""
    b = t.price_books.c
    query = select(b.document).order_by(b.price_book_id, b.version)
    if price_book_id is not None:
        query = query.where(b.price_book_id == price_book_id)
    return [pricebook.parse(msgspec.json.decode(row.document)) for row in await tx.execute(query)]


async def add_book(tx: Tx, book: PriceBook, *, now_ms: int, by: str) -> None:
    await tx.execute(
        insert(t.price_books).values(
            price_book_id=book.price_book_id,
            version=book.version,
            effective_ms=book.effective_ms,
            document=as_json(pricebook.document(book)),
            created_ms=now_ms,
            created_by=by,
        )
    )


async def read_terms(tx: Tx, owner: str) -> list[Given]:
    """What was given for this owner (a customer, or tables.DEFAULT_CUSTOMER), in that order."""
    found = await tx.execute(
        select(t.terms).where(t.terms.c.customer_id == owner).order_by(t.terms.c.id)
    )
    return [
        Given(
            agreed.parse(msgspec.json.decode(row.document)),
            row.created_ms,
            row.created_by,
            owner == t.DEFAULT_CUSTOMER,
        )
        for row in found
    ]


async def terms_in_force(tx: Tx, customer_id: str, month_ms: int) -> Given | None:
    """The customer's own terms of the month, or else those of everyone."""
    for owner in (customer_id, t.DEFAULT_CUSTOMER):
        given = agreed.in_force(await read_terms(tx, owner), month_ms)
        if given is not None:
            return given
    return None


async def add_terms(tx: Tx, owner: str, terms: Terms, *, now_ms: int, by: str) -> None:
    await tx.execute(
        insert(t.terms).values(
            customer_id=owner,
            effective_ms=terms.effective_ms,
            document=as_json(agreed.document(terms)),
            created_ms=now_ms,
            created_by=by,
        )
    )


async def of(tx: Tx, customer_id: str, month_ms: int) -> tuple[PriceBook, Given]:
    """The price book version and the terms of a customer's month. Raises no_price_book (409)."""
    found = await find(tx, customer_id, month_ms)
    if found is None:
        raise no_price_book(customer_id, month_text(month_ms))
    return found


async def find(tx: Tx, customer_id: str, month_ms: int) -> tuple[PriceBook, Given] | None:
    """What prices a customer's month; None where nothing is in force."""
    given = await terms_in_force(tx, customer_id, month_ms)
    if given is None:
        return None
    versions = await read_books(tx, given.terms.price_book_id)
    book = pricebook.in_force(versions, month_ms)
    return None if book is None else (book, given)


async def usual_currency(tx: Tx) -> Currency:
    """The currency of the first prices that held for everyone: a month that nothing prices has no
    other."""
    given = (await read_terms(tx, t.DEFAULT_CUSTOMER))[0]
    return (await read_books(tx, given.terms.price_book_id))[0].currency
