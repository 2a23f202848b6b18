"""Checks a final invoice against its own proof document, here and now. Pure.

What an invoice says is worth something only where it can be computed again: the SHA-256 of the
document's RFC 8785 form is the content hash, that of the link's form the chain hash. That the
usage in the document is what the log has is `handoff verify-invoice`'s to prove.
"""

import hashlib
from collections.abc import Callable, Mapping
from decimal import Decimal, localcontext
from typing import Any, NamedTuple

import rfc8785

from handoff_client.invoices import Invoice, Proof

_ABSENT = "(nothing)"
_DIGITS = 100
"""More than any sum has: nothing is rounded."""


class Check(NamedTuple):
    """One thing that was computed here. what: that is claimed. expected: as it is claimed. found:
    as it was computed."""

    what: str
    expected: str
    found: str

    @property
    def ok(self) -> bool:
        return self.expected == self.found


def verify(invoice: Invoice, proof: Proof) -> tuple[Check, ...]:
    """Every check of an invoice; all of them are ok where it is what it says. Never raises: what
    cannot be computed is a check that fails.

    invoice: a final one.
    """
    final = invoice.final
    if final is None:
        return (Check("The invoice is final", "final", invoice.status),)
    document, link = proof.document, proof.link
    return (
        Check(
            "SHA-256 of the canonical document is the content hash",
            final.content_hash,
            _tried(lambda: _sha256(document)),
        ),
        Check(
            "SHA-256 of the link is the chain hash",
            final.chain_hash,
            _tried(lambda: _sha256(link)),
        ),
        Check(
            "The link names this invoice: number, content, the invoice before it, log positions",
            _said(
                invoice.number,
                final.content_hash,
                final.previous_chain_hash,
                {name: str(at) for name, at in final.positions.items()},
            ),
            _tried(lambda: _bound(link)),
        ),
        Check(
            "The document's lines add up to the total of this page",
            _amount(invoice.total),
            _tried(lambda: _amount(_sum_of_lines(document))),
        ),
        Check(
            "The lines of this page are those of the document",
            _lines((line.number, line.exact, line.amount) for line in invoice.lines),
            _tried(lambda: _lines(_document_lines(document))),
        ),
    )


def _sha256(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(rfc8785.dumps(dict(value))).hexdigest()


def _bound(link: Mapping[str, Any]) -> str:
    return _said(
        link["number"], link["content_hash"], link["previous_chain_hash"], link["positions"]
    )


def _said(number: str | None, content: str, previous: str, positions: Mapping[str, str]) -> str:
    at = ", ".join(f"{name}: {offset}" for name, offset in sorted(positions.items()))
    return f"{number} · {content[:12]}… · {previous[:12]}… · {at or _ABSENT}"


def _sum_of_lines(document: Mapping[str, Any]) -> Decimal:
    with localcontext(prec=_DIGITS):
        return sum((Decimal(line["amount"]) for line in document["lines"]), Decimal(0))


def _document_lines(document: Mapping[str, Any]) -> list[tuple[int, Decimal, Decimal]]:
    return [
        (line["number"], Decimal(line["exact"]), Decimal(line["amount"]))
        for line in document["lines"]
    ]


def _lines(lines: Any) -> str:
    """As a text that is equal for equal numbers, however they are written."""
    said = [f"{number}: {_amount(exact)} → {_amount(amount)}" for number, exact, amount in lines]
    return "; ".join(said) or _ABSENT


def _amount(amount: Decimal) -> str:
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _tried(compute: Callable[[], str]) -> str:
    """What is computed, or why it cannot be."""
    try:
        return compute()
    except (KeyError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        # rfc8785's errors are ValueErrors.
        return f"cannot be computed: {type(error).__name__}: {error}"
