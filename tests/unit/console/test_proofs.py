"""A proof that is what it says, and every way in which it is not."""

from collections.abc import Iterator
from copy import deepcopy
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from handoff_billing.invoice import (
    NO_CHAIN,
    Subject,
    canonical,
    chain_hash,
    content_document,
    content_hash,
    link_document,
)
from handoff_billing.pricebook import Graduated, Tier
from handoff_billing.proof import delivery_row, rows_in, usage_row
from handoff_billing.rating import rate
from handoff_client.invoices import Invoice, Proof
from handoff_console.proofs import verify
from support.billing_values import NOVEMBER, OCTOBER, book, delivered, terms, used

NUMBER = "INV-2026-000007"
TIERS = (Tier(Decimal(1), Decimal("0.30")), Tier(None, Decimal("0.25")))


def made() -> tuple[Invoice, Proof]:
    usage = used(3_000_000, sent=5_000_000_000, lost=2)
    delivery = [delivered(2_000_000_000)]
    prices, agreed = book(Graduated(TIERS)), terms(discount_percent=Decimal(10))
    lines = rate(usage, delivery, prices, agreed)
    subject = Subject("customer", "Exämple & <Söhne>", OCTOBER)
    document = content_document(subject, prices, agreed, usage, delivery, lines)
    content = canonical(document)
    link = link_document(
        previous=NO_CHAIN,
        number=NUMBER,
        issued_at_ms=NOVEMBER,
        positions={"0": 17, "1": 4},
        content_hash=content_hash(content),
    )
    hashes = {"content_hash": content_hash(content), "chain_hash": chain_hash(link)}
    invoice = {
        "invoice_id": "7",
        "kind": "month",
        "status": "final",
        "number": NUMBER,
        "customer_id": "customer",
        "customer_name": "Exämple & <Söhne>",
        "period_start": "2026-10-01T00:00:00Z",
        "period_end": "2026-11-01T00:00:00Z",
        "currency": "USD",
        "total": document["totals"]["total"],
        "issued_at": "2026-11-01T00:00:00Z",
        "price_book_id": "test",
        "price_book_version": 1,
        "minutes": 3_000_000,
        "websocket_bytes": 5_000_000_000,
        "lines": [
            {
                **line,
                "raw_quantity": int(line["raw_quantity"]),
                "websocket_raw_quantity": None,
                "corrects": None,
                "connections": None,
            }
            for line in document["lines"]
        ],
        "totals": {"corrections": "0", **document["totals"]},
        "holds": [],
        "late_usage": None,
        "corrected_by": [],
        "final": {
            **hashes,
            "previous_chain_hash": NO_CHAIN,
            "positions": {"0": 17, "1": 4},
            "through": {},
            "finalized_by": "operator",
            "forced": None,
        },
    }
    proof = {
        "invoice_id": "7",
        "number": NUMBER,
        "document": msgspec.json.decode(content),
        **hashes,
        "link": link,
        "lines": [
            {
                "number": line["number"],
                "connections": None,
                "usage": [usage_row(key, totals) for key, totals in used_by],
                "delivery": [delivery_row(row) for row in delivered_for],
            }
            for line in document["lines"]
            for used_by, delivered_for in [rows_in(document, line)]
        ],
    }
    return msgspec.convert(invoice, Invoice), msgspec.convert(proof, Proof)


def test_what_is_as_it_says() -> None:
    checks = verify(*made())
    assert len(checks) == 8
    assert all(check.ok for check in checks), checks


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from leaves(inner, (*path, index))
    else:
        yield path


def with_leaf(value: Any, path: tuple[Any, ...], leaf: Any) -> Any:
    changed = deepcopy(value)
    at = changed
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = leaf
    return changed


@pytest.mark.parametrize("leaf", ["9.99", None, 5, 1.5, [], {}])
def test_no_leaf_of_the_document_or_the_link_may_differ(leaf: Any) -> None:
    invoice, proof = made()
    for name in ("document", "link"):
        held = getattr(proof, name)
        for path in leaves(held):
            changed = with_leaf(held, path, leaf)
            if changed == held:
                continue
            checks = verify(invoice, replace(proof, **{name: changed}))
            assert not all(check.ok for check in checks), path


def test_what_the_page_shows_must_be_what_is_proved() -> None:
    invoice, proof = made()
    assert invoice.final is not None
    last = replace(invoice.lines[-1], amount=invoice.lines[-1].amount + 1)
    for other in (
        replace(invoice, total=invoice.total + Decimal("0.01")),
        replace(invoice, number="INV-2026-000008"),
        replace(invoice, lines=invoice.lines[:-1]),
        replace(invoice, lines=(*invoice.lines[:-1], last)),
        replace(invoice, final=replace(invoice.final, content_hash="0" * 64)),
        replace(invoice, final=replace(invoice.final, chain_hash="0" * 64)),
        replace(invoice, final=replace(invoice.final, previous_chain_hash="1" * 64)),
        replace(invoice, final=replace(invoice.final, positions={"0": 18, "1": 4})),
    ):
        assert not all(check.ok for check in verify(other, proof)), other


def wrong(invoice: Invoice, proof: Proof) -> list[str]:
    return [check.what.partition(" ")[0] for check in verify(invoice, proof) if not check.ok]


def test_a_price_that_does_not_give_the_amount_is_found() -> None:
    """Also where every hash was made again to fit."""
    invoice, proof = made()
    first = proof.document["lines"][0]["tiers"][0] | {"unit_price": "0.31"}
    document = with_leaf(proof.document, ("lines", 0, "tiers", 0), first)
    hashed = content_hash(canonical(document))
    assert invoice.final is not None
    link = proof.link | {"content_hash": hashed}
    final = replace(invoice.final, content_hash=hashed, chain_hash=chain_hash(link))
    tiers = (replace(invoice.lines[0].tiers[0], unit_price=Decimal("0.31")),)
    line = replace(invoice.lines[0], tiers=(*tiers, *invoice.lines[0].tiers[1:]))
    lied = replace(invoice, final=final, lines=(line, *invoice.lines[1:]))
    assert wrong(lied, replace(proof, document=document, link=link)) == ["Units"]


def test_rows_that_are_not_behind_a_line_are_found() -> None:
    invoice, proof = made()
    numbers = {line.kind + line.product: line.number - 1 for line in invoice.lines}
    assert {"usageconnection_minutes", "usagedelivery_bandwidth", "outageconnection_minutes"} < (
        numbers.keys()
    )
    for number in numbers.values():
        held = proof.lines[number]
        if not held.usage:
            continue
        more = replace(held, usage=(replace(held.usage[0], opened=99), *held.usage[1:]))
        for other in (more, replace(held, usage=())):
            lines = (*proof.lines[:number], other, *proof.lines[number + 1 :])
            assert wrong(invoice, replace(proof, lines=lines)) == ["The"], number
    assert wrong(invoice, replace(proof, lines=())) == ["The"]


def test_usage_that_does_not_add_up_to_a_line_is_found() -> None:
    invoice, proof = made()
    minutes = proof.document["usage"]["columns"].index("minutes")
    for path, leaf in (
        (("usage", "rows", 0, minutes), "3000001"),
        (("delivery", "rows"), []),
        (("usage", "rows"), []),
    ):
        document = with_leaf(proof.document, path, leaf)
        assert "Usage" in wrong(invoice, replace(proof, document=document)), path


def test_a_document_that_is_none_fails_loudly() -> None:
    invoice, proof = made()
    checks = verify(invoice, replace(proof, document={}, link={}))
    assert not any(check.ok for check in checks)
    assert any("cannot be computed: KeyError" in check.found for check in checks)


def test_a_draft_has_no_proof() -> None:
    invoice, proof = made()
    [check] = verify(replace(invoice, final=None, status="draft"), proof)
    assert not check.ok
