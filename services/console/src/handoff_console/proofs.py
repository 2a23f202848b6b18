"""Checks a final invoice against its own proof document, here and now. Pure.

What an invoice says is worth something only where it can be computed again: the SHA-256 of the
document's RFC 8785 form is the content hash, that of the link's form the chain hash; usage adds up
to what lines count, prices times units to lines, lines to the total. Lines that correct earlier
invoices are only added up. That the usage in the document is what the log has is `handoff
verify-invoice`'s to prove.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal, localcontext
from typing import Any, NamedTuple

import msgspec
import rfc8785

from handoff_client.invoices import DeliveryRow, Invoice, Proof, UsageRow
from handoff_console.formats import iso

_ABSENT = "(nothing)"
_DIGITS = 100
"""More than any sum has: nothing is rounded."""
_BILLED = ("resp_header_bytes", "resp_body_bytes", "bereq_header_bytes", "bereq_body_bytes")
_USAGE, _DELIVERY = (tuple(kind.__struct_fields__) for kind in (UsageRow, DeliveryRow))
Row = Mapping[str, str]
"""A row of usage or delivery: column → text, as the document has it."""


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
            "The lines of this page are those of the document, with their prices and units",
            _lines(
                (
                    line.number,
                    line.raw_quantity,
                    [(tier.quantity, tier.unit_price, tier.exact) for tier in line.tiers],
                    line.exact,
                    line.amount,
                )
                for line in invoice.lines
            ),
            _tried(lambda: _lines(_document_lines(document))),
        ),
        Check(
            "Units times prices add up to the exact amount of each line that has prices",
            _numbered((line.number, _amount(line.exact)) for line in invoice.lines if line.tiers),
            _tried(lambda: _numbered(_priced(document))),
        ),
        Check(
            "Usage and delivery add up to what each line of this month counts",
            _numbered(
                (line.number, str(line.raw_quantity))
                for line in invoice.lines
                if line.kind in COUNTING
            ),
            _tried(
                lambda: _numbered((number, str(count)) for number, count, _ in _behind(document))
            ),
        ),
        Check(
            "The rows that are given behind each of these lines are those of the document",
            _numbered(_given(invoice, proof)),
            _tried(
                lambda: _numbered(
                    (number, _fingerprint(rows)) for number, _, rows in _behind(document)
                )
            ),
        ),
    )


COUNTING = frozenset({"usage", "outage"})
"""Kinds of lines that count rows of the invoice's own month."""


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


Counted = tuple[int, int, Sequence[tuple[Decimal, Decimal, Decimal]], Decimal, Decimal]
"""Of a line: number, raw quantity, (units, price, exact amount) of each price, exact, amount."""


def _document_lines(document: Mapping[str, Any]) -> list[Counted]:
    return [
        (
            line["number"],
            int(line["raw_quantity"]),
            [
                (Decimal(tier["quantity"]), Decimal(tier["unit_price"]), Decimal(tier["exact"]))
                for tier in line["tiers"]
            ],
            Decimal(line["exact"]),
            Decimal(line["amount"]),
        )
        for line in document["lines"]
    ]


def _lines(lines: Iterable[Counted]) -> str:
    """As a text that is equal for equal numbers, however they are written."""
    said = []
    for number, raw, tiers, exact, amount in lines:
        parts = "".join(
            f"{_amount(units)} × {_amount(price)} = {_amount(part)}, "
            for units, price, part in tiers
        )
        said.append(f"{number}: {raw}, {parts}{_amount(exact)} → {_amount(amount)}")
    return "; ".join(said) or _ABSENT


def _numbered(found: Iterable[tuple[int, str]]) -> str:
    return "; ".join(f"{number}: {text}" for number, text in found) or _ABSENT


def _priced(document: Mapping[str, Any]) -> list[tuple[int, str]]:
    """Line → its units times their prices, added up."""
    with localcontext(prec=_DIGITS):
        return [
            (number, _amount(sum((units * price for units, price, _ in tiers), Decimal(0))))
            for number, _, tiers, _, _ in _document_lines(document)
            if tiers
        ]


def _behind(document: Mapping[str, Any]) -> list[tuple[int, int, list[Row]]]:
    """Of each line that counts rows of its month: its number, what they add up to, the rows."""
    lines = [line for line in document["lines"] if line["kind"] in COUNTING]
    if not lines:
        # A correction that was issued alone has no month of its own.
        return []
    usage, delivery = (_table(document, name) for name in ("usage", "delivery"))
    found = []
    for line in lines:
        rows = [(_count(line, row), _only(_USAGE, row)) for row in usage if _is_of(line, row)]
        if line["product"] == "delivery_bandwidth":
            rows += [
                (int(row["bytes"]), _only(_DELIVERY, row)) for row in delivery if _is_of(line, row)
            ]
        counted = [(count, row) for count, row in rows if count]
        found.append(
            (line["number"], sum(count for count, _ in counted), [row for _, row in counted])
        )
    return found


def _table(document: Mapping[str, Any], name: str) -> list[Row]:
    table = document[name]
    return [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]


def _only(names: Sequence[str], row: Row) -> Row:
    """A release that is newer may have more columns than this one knows."""
    return {name: row[name] for name in names}


def _is_of(line: Mapping[str, Any], row: Row) -> bool:
    return bool(row["region"] == line["region"])


def _count(line: Mapping[str, Any], row: Row) -> int:
    """What a usage row adds to a line."""
    if line["kind"] == "outage":
        return int(row["lost"])
    if line["product"] == "connection_minutes":
        return int(row["minutes"])
    return sum(int(row[name]) for name in _BILLED)


def _given(invoice: Invoice, proof: Proof) -> list[tuple[int, str]]:
    """Line → fingerprint of the rows that the proof lists behind it."""
    counting = {line.number for line in invoice.lines if line.kind in COUNTING}
    return [
        (line.number, _fingerprint([*map(_texts, line.usage), *map(_texts, line.delivery)]))
        for line in proof.lines
        if line.number in counting
    ]


def _texts(row: UsageRow | DeliveryRow) -> Row:
    fields = msgspec.structs.asdict(row) | {"hour": iso(row.hour)}
    return {name: str(value) for name, value in fields.items()}


def _fingerprint(rows: Sequence[Row]) -> str:
    """Equal for the same rows, in whatever order they and their columns are."""
    text = "\n".join(sorted(repr(sorted(row.items())) for row in rows))
    return f"{len(rows)} rows {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _amount(amount: Decimal) -> str:
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _tried(compute: Callable[[], str]) -> str:
    """What is computed, or why it cannot be."""
    try:
        return compute()
    except (
        KeyError,
        TypeError,
        ValueError,
        ArithmeticError,
        AttributeError,
        RecursionError,
    ) as error:
        # rfc8785's errors are ValueErrors.
        return f"cannot be computed: {type(error).__name__}: {error}"
