"""Errors of billing, each with its code.

HandoffError
├── PriceBookInvalid      a price book or terms cannot be used; names every field
└── ApiError
    ├── invoice_held      409: what holds a month open, one entry per reason
    ├── in_force          409: prices or terms of a month that has begun cannot change
    └── no_price_book     409: no price book is in force for a month
"""

from collections.abc import Sequence

from handoff_common.errors import ApiError, FieldError, HandoffError


class PriceBookInvalid(HandoffError):
    """`errors` names each wrong field, its value and what is allowed."""

    code = "price_book_invalid"

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__("; ".join(f"{e.property}: {e.reason}" for e in errors))
        self.errors = tuple(errors)


def in_force(detail: str) -> ApiError:
    return ApiError(409, "in_force", "Already in force", detail)


def no_price_book(customer_id: str, month: str) -> ApiError:
    return ApiError(
        409,
        "no_price_book",
        "No price book",
        f"customer {customer_id!r} has no price book in force in {month}",
    )


def invoice_held(detail: str, reasons: Sequence[FieldError]) -> ApiError:
    """`reasons`: code of the hold and what it is about."""
    return ApiError(409, "invoice_held", "Invoice held", detail, reasons)
