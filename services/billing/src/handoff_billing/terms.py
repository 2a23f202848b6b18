"""A customer's terms: which price book, and what is agreed on top of it. Pure.

Terms are effective from the start of a UTC month until the customer's next terms are. Amounts are
in the currency of the price book.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol, TypeVar

from handoff_billing.fields import Fields
from handoff_billing.instants import month_text
from handoff_billing.money import text
from handoff_billing.pricebook import IDENTIFIER, is_identifier


@dataclass(frozen=True, slots=True)
class Commitment:
    """The customer has agreed to `amount` a month: less usage is topped up to it, and what goes
    beyond it is charged at `overage_rate` times its price (1: the same price)."""

    amount: Decimal
    overage_rate: Decimal


@dataclass(frozen=True, slots=True)
class Coupon:
    """Takes off a percentage or an amount, one of the two, never more than there is to pay."""

    code: str
    percent: Decimal | None = None
    amount: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    price_book_id: str
    effective_ms: int
    discount_percent: Decimal | None = None
    monthly_minimum: Decimal | None = None
    commitment: Commitment | None = None
    coupon: Coupon | None = None


def parse(value: object) -> Terms:
    """Terms from decoded JSON.

    Raises PriceBookInvalid, which names every wrong field, its value and what is allowed.
    """
    fields = Fields(value)
    book_id = fields.text("price_book_id", longest=64, allowed=IDENTIFIER, test=is_identifier)
    effective_ms = fields.month("effective_from")
    discount = fields.decimal("discount_percent", positive=True, highest=100, optional=True)
    minimum = fields.decimal("monthly_minimum", positive=True, optional=True)
    commitment = _commitment(fields)
    coupon = _coupon(fields)
    fields.done()
    if book_id is None or effective_ms is None:
        return fields.require(None)
    return fields.require(Terms(book_id, effective_ms, discount, minimum, commitment, coupon))


def document(terms: Terms) -> dict[str, Any]:
    """The terms as JSON values: what `parse` reads, and what an invoice holds by value."""
    commitment, coupon = terms.commitment, terms.coupon
    return {
        "price_book_id": terms.price_book_id,
        "effective_from": month_text(terms.effective_ms),
        "discount_percent": _or_none(terms.discount_percent),
        "monthly_minimum": _or_none(terms.monthly_minimum),
        "commitment": None
        if commitment is None
        else {"amount": text(commitment.amount), "overage_rate": text(commitment.overage_rate)},
        "coupon": None
        if coupon is None
        else {
            "code": coupon.code,
            "percent": _or_none(coupon.percent),
            "amount": _or_none(coupon.amount),
        },
    }


class _Effective(Protocol):
    @property
    def effective_ms(self) -> int: ...


E = TypeVar("E", bound=_Effective)


def in_force(given: Sequence[E], month_ms: int) -> E | None:
    """Of the terms (or whatever bears them), those of the month: effective last, and of those the
    last given."""
    found: E | None = None
    for one in given:
        if one.effective_ms <= month_ms and (
            found is None or one.effective_ms >= found.effective_ms
        ):
            found = one
    return found


def _commitment(fields: Fields) -> Commitment | None:
    inner = fields.nested("commitment", "an object with amount", optional=True)
    if inner is None or not inner.is_object:
        return None
    amount = inner.decimal("amount", positive=True)
    rate = inner.decimal("overage_rate", highest=1000, optional=True)
    inner.done()
    return None if amount is None else Commitment(amount, Decimal(1) if rate is None else rate)


def _coupon(fields: Fields) -> Coupon | None:
    inner = fields.nested("coupon", "an object with code, and percent or amount", optional=True)
    if inner is None or not inner.is_object:
        return None
    code = inner.text("code", longest=64)
    given = [name for name in ("percent", "amount") if inner.gives(name)]
    percent = inner.decimal("percent", positive=True, highest=100, optional=True)
    amount = inner.decimal("amount", positive=True, optional=True)
    inner.done()
    if len(given) != 1:
        inner.wrong("", " and ".join(given) or "neither", "one of percent and amount")
    return None if code is None else Coupon(code, percent, amount)


def _or_none(value: Decimal | None) -> str | None:
    return None if value is None else text(value)
