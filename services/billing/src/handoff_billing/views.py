"""Answers under `/v1`, made of what the ledger and the pricing have."""

from collections.abc import Mapping, Sequence
from typing import Any

from handoff_billing import terms
from handoff_billing.holds import Hold
from handoff_billing.instants import month_text
from handoff_billing.invoice import line_document, link_document, totals_document
from handoff_billing.ledger import Aftermath, Outlook, Shares, Statement
from handoff_billing.money import ZERO, exact, text
from handoff_billing.pricing import Estimate
from handoff_billing.proof import connections_query
from handoff_billing.rating import total
from handoff_billing.store.invoices import Final
from handoff_billing.store.prices import Given
from handoff_common.instants import rfc3339
from handoff_common.minutes import next_month


def summary(statement: Statement) -> dict[str, Any]:
    final, month_ms = statement.final, statement.month.month_ms
    return {
        "invoice_id": str(statement.month.invoice_id),
        "kind": "correction" if statement.month.alone else "month",
        "status": "draft" if final is None else "final",
        "number": None if final is None else final.number,
        "customer_id": statement.month.customer_id,
        "customer_name": statement.customer_name,
        "period_start": rfc3339(month_ms),
        "period_end": rfc3339(next_month(month_ms)),
        "currency": statement.currency,
        "total": statement.totals["total"],
        "issued_at": None if final is None else rfc3339(final.issued_ms),
    }


def invoice(statement: Statement, held: Sequence[Hold], after: Aftermath | None) -> dict[str, Any]:
    month = statement.month
    return {
        **summary(statement),
        "price_book_id": statement.price_book_id,
        "price_book_version": statement.price_book_version,
        "minutes": statement.minutes,
        "websocket_bytes": statement.websocket_bytes,
        "lines": [line(x, month.customer_id, month.month_ms) for x in statement.lines],
        "totals": {"corrections": "0", **statement.totals},
        "holds": [hold(x) for x in held],
        "late_usage": None if after is None else _late(after),
        "corrected_by": []
        if after is None
        else [{"number": number, "amount": amount} for number, amount in after.billed],
        "final": None if statement.final is None else _final(statement.final),
    }


def line(
    document: Mapping[str, Any], customer_id: str | None, month_ms: int | None
) -> dict[str, Any]:
    """A line document with its counts as integers, what it corrects or null, and where its
    connections are listed."""
    share = document["websocket_raw_quantity"]
    known = customer_id is not None and month_ms is not None
    return {
        "corrects": None,
        **document,
        "raw_quantity": int(document["raw_quantity"]),
        "websocket_raw_quantity": None if share is None else int(share),
        "connections": connections_query(customer_id, month_ms, document) if known else None,  # type: ignore[arg-type]
    }


def hold(held: Hold) -> dict[str, Any]:
    return {"code": held.code, "detail": held.detail, "forceable": held.forceable}


def given_terms(given: Given) -> dict[str, Any]:
    return {
        **terms.document(given.terms),
        "default": given.default,
        "created_at": rfc3339(given.created_ms),
        "created_by": given.created_by,
    }


def estimate(made: Estimate, customer_id: str | None, month_ms: int | None) -> dict[str, Any]:
    base = None if made.base is None else total(made.base)
    with exact():
        difference = None if base is None else text(total(made.lines) - base)
    return {
        "currency": made.book.currency.code,
        "price_book_id": made.book.price_book_id,
        "price_book_version": made.book.version,
        "lines": [line(line_document(x), customer_id, month_ms) for x in made.lines],
        "totals": {"corrections": "0", **totals_document(made.lines)},
        "month_total": None if base is None else text(base),
        "difference": difference,
    }


def forecast(made: Outlook) -> dict[str, Any]:
    return {
        **_whose(made.so_far),
        "so_far": _figures(made.so_far, made.delivery_bytes),
        "expected": _figures(made.expected, made.expected_delivery_bytes),
        "method": made.method,
        "through": rfc3339(made.through_ms),
    }


def _figures(statement: Statement, delivery_bytes: int) -> dict[str, Any]:
    return {
        "minutes": statement.minutes,
        "websocket_bytes": statement.websocket_bytes,
        "delivery_bytes": delivery_bytes,
        "amount": _priced(statement, statement.totals["total"]),
    }


def costs(made: Shares) -> dict[str, Any]:
    statement, unassigned = made.statement, made.costs.unassigned
    with exact():
        left = sum(unassigned.values(), ZERO)
    return {
        **_whose(statement),
        "status": "draft" if statement.final is None else "final",
        "invoice_number": None if statement.final is None else statement.final.number,
        "data": [
            {**one._asdict(), "amount": _priced(statement, text(one.amount))}
            for one in made.costs.services
        ],
        "unassigned": {
            "delivery_bytes": made.delivery_bytes,
            "amount": _priced(statement, text(left)),
            "parts": [
                {"kind": kind, "amount": text(amount)} for kind, amount in unassigned.items()
            ],
        },
        "total": _priced(statement, statement.totals["total"]),
    }


def _whose(statement: Statement) -> dict[str, Any]:
    return {
        "customer_id": statement.month.customer_id,
        "month": month_text(statement.month.month_ms),
        "currency": statement.currency,
        "price_book_id": statement.price_book_id,
        "price_book_version": statement.price_book_version,
    }


def _priced(statement: Statement, amount: str) -> str | None:
    """None where nothing prices the month: what it costs is not known, not nothing."""
    return None if statement.price_book_id is None else amount


def link(final: Final) -> dict[str, Any]:
    """What the chain hash is the hash of."""
    return link_document(
        previous=final.previous_chain_hash,
        number=final.number,
        issued_at_ms=final.issued_ms,
        positions=final.positions,
        content_hash=final.content_hash,
    )


def _late(after: Aftermath) -> dict[str, Any]:
    return {
        "amount": after.late.amount,
        "lines": [{**x, "raw_quantity": int(x["raw_quantity"])} for x in after.late.lines],
        "next_month": None if after.next_ms is None else month_text(after.next_ms),
    }


def _final(final: Final) -> dict[str, Any]:
    reason = final.forced_reason
    return {
        "content_hash": final.content_hash,
        "previous_chain_hash": final.previous_chain_hash,
        "chain_hash": final.chain_hash,
        "positions": final.positions,
        "through": {slice_: rfc3339(ms) for slice_, ms in final.through_ms.items()},
        "finalized_by": final.finalized_by,
        "forced": None if reason is None else {"reason": reason, "overridden": final.overridden},
    }
