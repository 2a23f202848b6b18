"""Errors of billing, each with its code.

HandoffError
├── PriceBookInvalid      a price book or terms cannot be used; names every field
└── ApiError
    ├── invoice_held      409: what holds a month open, one entry per reason
    ├── in_force          409: prices or terms of a month that has begun cannot change
    ├── no_price_book     409: no price book is in force for a month
    ├── not_final         409: a draft has no proof and cannot be corrected
    ├── next_invoice      409: a correction goes on the next invoice, not on one of its own
    └── nothing_to_correct 409: all usage of a final month is billed
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


def not_final(invoice_id: int | str) -> ApiError:
    detail = f"invoice {invoice_id} is a draft; finalize it first"
    return ApiError(409, "not_final", "Not final", detail)


def next_invoice(number: str, month: str) -> ApiError:
    return ApiError(
        409,
        "next_invoice",
        "Goes on the next invoice",
        f"what came late for {number} stands on the customer's invoice of {month} and is billed "
        "with it; an invoice is issued alone only where there is no next one in its currency",
    )


def nothing_to_correct(number: str, why: str) -> ApiError:
    return ApiError(
        409, "nothing_to_correct", "Nothing to correct", f"{number} needs no correction: {why}"
    )
