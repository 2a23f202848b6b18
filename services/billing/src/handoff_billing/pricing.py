"""Price books, customers' terms, estimates, and delivery usage of other teams: what is given to
billing from outside, checked and stored."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from handoff_billing import pricebook, tables, terms
from handoff_billing.errors import PriceBookInvalid, in_force
from handoff_billing.instants import month_text
from handoff_billing.issuing import FLUSH_SECONDS
from handoff_billing.pricebook import PriceBook
from handoff_billing.rating import Line, rate
from handoff_billing.settings import BillingSettings
from handoff_billing.store import Tx, corrections, invoices, prices, rows
from handoff_billing.store.prices import Given
from handoff_billing.tables import DEFAULT_CUSTOMER
from handoff_billing.terms import Terms
from handoff_billing.usage import Delivered, Totals, UsageKey
from handoff_common.clock import Clock
from handoff_common.codec import encode
from handoff_common.database import Database, lock_name
from handoff_common.errors import ApiError, FieldError, SettingError, invalid, not_found
from handoff_common.events import Counters, DeliveryData, DeliveryUsage
from handoff_common.ids import uuid7
from handoff_common.instants import from_ms
from handoff_common.log import Message
from handoff_common.minutes import month_of, next_month
from handoff_common.outbox import Outbox, enqueue
from handoff_common.settings import variable
from handoff_common.topics import DELIVERY

_SEEDED_BY = "first start"


@dataclass(frozen=True, slots=True)
class Supposed:
    """Hypothetical usage of one region. websocket_bytes: what the edge sends, to clients and to
    origins; delivery_bytes: other delivery."""

    region: str
    minutes: int
    websocket_bytes: int
    delivery_bytes: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """lines: what was asked for. base: the month without what is supposed, where both were
    given."""

    book: PriceBook
    terms: Terms
    lines: Sequence[Line]
    base: Sequence[Line] | None


class Pricing:
    def __init__(
        self, *, database: Database, outbox: Outbox, clock: Clock, settings: BillingSettings
    ) -> None:
        self._database = database
        self._outbox = outbox
        self._clock = clock
        self._settings = settings

    async def seed(self) -> None:
        """At the first start: the price book that holds for every customer without its own terms.

        Raises SettingError where the file of `price_book_file` is none.
        """
        async with self._database.transaction() as tx:
            # Workers may start together for the first time.
            await lock_name(tx, _SEEDED_BY)
            if await prices.read_terms(tx, DEFAULT_CUSTOMER):
                return
            now_ms = self._clock.now_ms()
            book = _first_book(self._settings.price_book_file, month_of(now_ms))
            await prices.add_book(tx, book, now_ms=now_ms, by=_SEEDED_BY)
            default = Terms(book.price_book_id, book.effective_ms)
            await prices.add_terms(tx, DEFAULT_CUSTOMER, default, now_ms=now_ms, by=_SEEDED_BY)

    # --- Price books ---

    async def books(self, price_book_id: str | None = None) -> list[PriceBook]:
        """Every version, of one book or of all, by id and version."""
        if price_book_id is not None and not pricebook.is_identifier(price_book_id):
            return []
        async with self._database.read() as tx:
            return await prices.read_books(tx, price_book_id)

    async def add_book(self, document: Any, *, by: str) -> PriceBook:
        """Store the next version of a book; the same content again gives the version that stands.

        Raises in_force (409) for a later version of a month that has begun, ApiError 422 for a
        document that cannot be used.
        """
        if isinstance(document, dict) and document.get("version") is not None:
            raise invalid([FieldError("version", "is given by this call; leave it out")])
        book = _checked(document)
        async with self._database.transaction() as tx:
            await invoices.lock_series(tx, self._settings.invoice_series)
            versions = await prices.read_books(tx, book.price_book_id)
            if versions:
                last = versions[-1]
                if replace(book, version=last.version) == last:
                    return last
                self._check_successor(last, book)
                book = replace(book, version=last.version + 1)
            await prices.add_book(tx, book, now_ms=self._clock.now_ms(), by=by)
        return book

    def _check_successor(self, last: PriceBook, book: PriceBook) -> None:
        current = month_of(self._clock.now_ms())
        if book.effective_ms <= current:
            raise in_force(
                f"price book {book.price_book_id!r} is in force in {month_text(book.effective_ms)};"
                f" a new version may be effective from {month_text(next_month(current))} on"
            )
        if book.currency != last.currency:
            # Customers' commitments and coupons are amounts of the book's currency.
            code = last.currency.code
            raise invalid(
                [
                    FieldError(
                        "currency",
                        f"is not that of version {last.version}, {code} with exponent "
                        f"{last.currency.exponent}; another currency is another price book",
                    )
                ]
            )

    # --- Terms ---

    async def terms_of(self, customer_id: str, month_ms: int) -> tuple[Given, PriceBook]:
        """The terms of a customer's month, and the book's version. Raises no_price_book (409)."""
        async with self._database.read() as tx:
            book, given = await prices.of(tx, customer_id, month_ms)
        return given, book

    async def history(self, owner: str) -> list[Given]:
        """The owner's terms in the order in which they were given."""
        async with self._database.read() as tx:
            return await prices.read_terms(tx, owner)

    async def set_terms(
        self,
        owner: str,
        document: Any,
        *,
        by: str,
        check: Callable[[Sequence[Given]], None] = lambda _: None,
    ) -> Given:
        """Give the owner (a customer, or DEFAULT_CUSTOMER) terms from a month on; the same terms
        again change nothing.

        From a month that has not begun always; from one that has begun only where the owner has no
        terms in force yet, and no invoice of it is final. Raises in_force (409) otherwise.
        check: looks at the owner's terms of now, and raises where the change was made for others.
        """
        agreed = _checked_terms(document)
        async with self._database.transaction() as tx:
            await invoices.lock_series(tx, self._settings.invoice_series)
            given = await prices.read_terms(tx, owner)
            check(given)
            if given and given[-1].terms == agreed:
                return given[-1]
            await self._check_begun(tx, owner, given, agreed)
            versions = await prices.read_books(tx, agreed.price_book_id)
            if pricebook.in_force(versions, agreed.effective_ms) is None:
                known = ", ".join(sorted({b.price_book_id for b in await prices.read_books(tx)}))
                raise invalid(
                    [
                        FieldError(
                            "price_book_id",
                            f"{agreed.price_book_id!r} has no version in force in "
                            f"{month_text(agreed.effective_ms)}; price books: {known}",
                        )
                    ]
                )
            await prices.add_terms(tx, owner, agreed, now_ms=self._clock.now_ms(), by=by)
            return (await prices.read_terms(tx, owner))[-1]

    async def _check_begun(self, tx: Tx, owner: str, given: Sequence[Given], agreed: Terms) -> None:
        current = month_of(self._clock.now_ms())
        if agreed.effective_ms > current:
            return
        month = month_text(agreed.effective_ms)
        later = f"new terms may be effective from {month_text(next_month(current))} on"
        if terms.in_force(given, current) is not None:
            raise in_force(f"terms are in force in {month}; {later}")
        customer = None if owner == DEFAULT_CUSTOMER else owner
        if await invoices.has_final_since(tx, customer, agreed.effective_ms):
            raise in_force(f"{month} or a later month has a final invoice; {later}")

    # --- Estimates ---

    async def estimate(
        self,
        *,
        customer_id: str | None,
        month_ms: int | None,
        supposed: Sequence[Supposed],
        price_book_id: str | None,
        book_document: Any,
        terms_document: Any,
    ) -> Estimate:
        """What usage would cost; nothing is stored.

        Usage: that of the customer's month, or what is supposed, or both added up. Prices: the book
        given by value or by id (its version of that month), else those of the customer's month.
        """
        at_ms = month_of(self._clock.now_ms()) if month_ms is None else month_ms
        async with self._database.read() as tx:
            book, given = await prices.of(tx, customer_id or DEFAULT_CUSTOMER, at_ms)
            agreed = given.terms
            if price_book_id is not None:
                if not pricebook.is_identifier(price_book_id):
                    raise not_found("price book", price_book_id)
                found = pricebook.in_force(await prices.read_books(tx, price_book_id), at_ms)
                if found is None:
                    raise not_found("price book", price_book_id)
                book = found
            usage: dict[UsageKey, Totals] = {}
            delivery: list[Delivered] = []
            if customer_id is not None and month_ms is not None:
                usage = await rows.read_usage(tx, customer_id, month_ms, detail="region")
                delivery = await rows.read_delivery(tx, customer_id, month_ms)
        if book_document is not None:
            book = _checked(book_document, "price_book")
        if terms_document is not None:
            agreed = _checked_terms(terms_document, "terms")
        more, delivered = _supposed(supposed, at_ms)
        lines = rate({**usage, **more}, [*delivery, *delivered], book, agreed)
        base = rate(usage, delivery, book, agreed) if month_ms is not None and supposed else None
        return Estimate(book, agreed, lines, base)

    # --- Delivery usage ---

    async def unpriced(self, months: Collection[tuple[str, int]]) -> set[tuple[str, int]]:
        """Of these (customer, month)s, those that no prices are in force for."""
        async with self._database.read() as tx:
            return {one for one in sorted(months) if await prices.find(tx, *one) is None}

    async def save_delivery(self, given: Sequence[tuple[str, Delivered]]) -> None:
        """Store other teams' (customer, row)s and publish them, in one transaction.

        A row is absolute: the same again changes nothing, another figure takes its place.
        """
        now_ms = self._clock.now_ms()
        async with self._database.transaction() as tx:
            # Revisions rise with every row, also past those that a lost database had given.
            customers = {customer_id for customer_id, _ in given}
            least = max(now_ms, await rows.latest_delivery_revision(tx, customers))
            last = await invoices.count_up(tx, "delivery", by=len(given), at_least=least)
            first = last - len(given) + 1
            data = [
                DeliveryData(
                    customer_id=customer_id,
                    region=row.region,
                    hour=from_ms(row.hour_ms),
                    source=row.source,
                    bytes=row.bytes,
                    revision=first + index,
                )
                for index, (customer_id, row) in enumerate(given)
            ]
            await rows.save_delivery(tx, data)
            months = {(customer_id, month_of(row.hour_ms)) for customer_id, row in given}
            await invoices.allocate_ids(tx, months)
            await corrections.mark_late(tx, months)
            await enqueue(
                tx, tables.outbox, [(DELIVERY.name, _delivery_message(d, now_ms)) for d in data]
            )
        await self._outbox.flushed(timeout=FLUSH_SECONDS)


def _first_book(path: Path | None, current_ms: int) -> PriceBook:
    if path is None:
        example = files("handoff_billing") / "books" / "example.json"
        return pricebook.parse(msgspec.json.decode(example.read_bytes()))
    name = variable("price_book_file")
    try:
        book = pricebook.parse(msgspec.json.decode(path.read_bytes()))
    except (OSError, ValueError, RecursionError, PriceBookInvalid) as error:
        raise SettingError(f"{name} = {str(path)!r}: not a price book: {error}") from None
    if book.effective_ms > current_ms:
        raise SettingError(
            f"{name} = {str(path)!r}: effective_from: {month_text(book.effective_ms)!r} leaves the "
            f"months before it without prices; allowed: {month_text(current_ms)} or earlier"
        )
    return book


def _checked(document: Any, path: str = "") -> PriceBook:
    try:
        return pricebook.parse(document)
    except PriceBookInvalid as error:
        raise _invalid(error, path) from None


def _checked_terms(document: Any, path: str = "") -> Terms:
    try:
        return terms.parse(document)
    except PriceBookInvalid as error:
        raise _invalid(error, path) from None


def _invalid(error: PriceBookInvalid, path: str) -> ApiError:
    return invalid(
        [
            FieldError(".".join(part for part in (path, e.property) if part), e.reason)
            for e in error.errors
        ]
    )


def _supposed(
    supposed: Iterable[Supposed], month_ms: int
) -> tuple[dict[UsageKey, Totals], list[Delivered]]:
    usage: dict[UsageKey, Totals] = {}
    delivery: list[Delivered] = []
    for index, one in enumerate(supposed):
        # A name that no service id has, so that it stands beside real rows.
        key = UsageKey(f"(supposed {index})", one.region, month_ms)
        usage[key] = Totals(one.minutes, Counters(resp_body_bytes=one.websocket_bytes))
        if one.delivery_bytes:
            name = f"(supposed {index})"
            delivery.append(Delivered(one.region, month_ms, name, one.delivery_bytes))
    return usage, delivery


def _delivery_message(data: DeliveryData, now_ms: int) -> Message:
    hour = data.hour.strftime("%Y-%m-%dT%HZ")
    event = DeliveryUsage(
        id=uuid7(),
        source=f"/billing/delivery/{data.source}",
        subject=data.customer_id,
        time=from_ms(now_ms),
        data=data,
    )
    return Message(f"{data.customer_id}/{data.region}/{hour}/{data.source}", encode(event))
