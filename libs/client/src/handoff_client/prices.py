"""Price books, customers' pricing, estimates, and other teams' delivery."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, TypedDict

from msgspec import UNSET, Struct, UnsetType

from handoff_client.answer import Answer, Instant, json_of, listing
from handoff_client.call import Call, Listing, Repeat, call
from handoff_client.invoices import Line, Totals

EVERYONE = "default"
"""In place of a customer's id: the terms of all who have none of their own."""

_PRICING = "/v1/customers/{customer_id}/pricing"


class Currency(Answer, frozen=True, kw_only=True):
    """exponent: decimals of an amount."""

    code: str
    exponent: int


class Tier(Answer, frozen=True, kw_only=True):
    """up_to: inclusive, None in the last tier."""

    up_to: Decimal | None = None
    unit_price: Decimal


class Price(Answer, frozen=True, kw_only=True):
    """model: `per_unit` has unit_price; `graduated` and `volume` have tiers; `package` has
    package_size and package_price."""

    model: str
    unit_price: Decimal | None = None
    tiers: tuple[Tier, ...] | None = None
    package_size: Decimal | None = None
    package_price: Decimal | None = None


class PriceBook(Answer, frozen=True, kw_only=True):
    """One version of a book. prices: product → billing region, or `*` for every other → price.
    effective_from: a UTC month."""

    price_book_id: str
    version: int
    name: str
    effective_from: str
    currency: Currency
    prices: dict[str, dict[str, Price]]


class Commitment(Answer, frozen=True, kw_only=True):
    """overage_rate: times the price for what goes beyond the amount."""

    amount: Decimal
    overage_rate: Decimal


class Coupon(Answer, frozen=True, kw_only=True):
    """One of percent and amount."""

    code: str
    percent: Decimal | None
    amount: Decimal | None


class Terms(Answer, frozen=True, kw_only=True):
    """default: nothing was agreed with this customer, these hold for all such."""

    price_book_id: str
    effective_from: str
    discount_percent: Decimal | None
    monthly_minimum: Decimal | None
    commitment: Commitment | None
    coupon: Coupon | None
    default: bool
    created_at: Instant
    created_by: str


class Pricing(Answer, frozen=True, kw_only=True):
    """What prices a month. history: the customer's own terms as they were given."""

    customer_id: str
    month: str
    terms: Terms
    price_book: PriceBook
    history: tuple[Terms, ...]


class Estimate(Answer, frozen=True, kw_only=True):
    """month_total, difference: the month without what is supposed, and what that adds; None unless
    both a month and usage were given."""

    currency: str
    price_book_id: str
    price_book_version: int
    lines: tuple[Line, ...]
    totals: Totals
    month_total: Decimal | None
    difference: Decimal | None


class Accepted(Answer, frozen=True, kw_only=True):
    """accepted: rows."""

    accepted: int


class SupposedUsage(Struct, frozen=True, kw_only=True):
    """websocket_bytes: sent by the edge, to clients and to origins. delivery_bytes: other."""

    region: str = "usa"
    minutes: int = 0
    websocket_bytes: int = 0
    delivery_bytes: int = 0


class Delivery(TypedDict):
    """Absolute for this customer, region, hour and source: sending it again does no harm."""

    customer_id: str
    region: str
    hour: datetime
    source: str
    bytes: int


def books() -> Listing[PriceBook]:
    """Every version of every price book; operators only."""
    return listing("/v1/price-books", PriceBook)


def book_versions(price_book_id: str) -> Listing[PriceBook]:
    """The versions of one; operators only."""
    return listing("/v1/price-books/{price_book_id}", PriceBook, price_book_id=price_book_id)


def add_book(document: Mapping[str, Any]) -> Call[PriceBook]:
    """A new book, or the next version of one, from a month that has not begun; operators only.
    document: JSON as docs/billing.md has it; decimals are sent as text. The same again answers with
    the version that stands. Conflict: `in_force`."""
    return call("POST", "/v1/price-books", json_of(PriceBook), body=document, repeat=Repeat.FREELY)


def pricing(customer_id: str, *, month: str | None = None) -> Call[Pricing]:
    """What prices a customer's month, the current one where none is named. `with_headers()` gives
    the `etag` for `set_terms`."""
    query = {"month": month}
    return call("GET", _PRICING, json_of(Pricing), query=query, customer_id=customer_id)


def set_terms(
    customer_id: str, terms: Mapping[str, Any], *, if_match: str | None = None
) -> Call[Pricing]:
    """Give a customer (or EVERYONE) terms from a month on; operators only."""
    return call(
        "PUT", _PRICING, json_of(Pricing), body=terms, if_match=if_match, customer_id=customer_id
    )


def estimate(
    *,
    customer_id: str | UnsetType = UNSET,
    month: str | UnsetType = UNSET,
    usage: Sequence[SupposedUsage] = (),
    price_book_id: str | UnsetType = UNSET,
    price_book: Mapping[str, Any] | UnsetType = UNSET,
    terms: Mapping[str, Any] | UnsetType = UNSET,
) -> Call[Estimate]:
    """What usage would cost: a month's, what is supposed, or their sum. Nothing is stored."""
    return call(
        "POST",
        "/v1/estimates",
        json_of(Estimate),
        body={
            "customer_id": customer_id,
            "month": month,
            "usage": list(usage),
            "price_book_id": price_book_id,
            "price_book": price_book,
            "terms": terms,
        },
        repeat=Repeat.FREELY,
    )


def report_delivery(rows: Sequence[Delivery]) -> Call[Accepted]:
    """Delivery bytes that another system sent, 1 to 1000 rows: all are taken or none."""
    body = {"data": list(rows)}
    return call("POST", "/v1/delivery-usage", json_of(Accepted), body=body, repeat=Repeat.FREELY)
