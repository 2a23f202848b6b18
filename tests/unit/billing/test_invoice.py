"""The content document, its hashes, its proof and its verification."""

import csv
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from random import Random
from typing import Any

import msgspec
import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from handoff_billing.instants import instant_ms
from handoff_billing.invoice import (
    NO_CHAIN,
    Subject,
    canonical,
    chain_hash,
    content_document,
    content_hash,
    line_document,
    link_document,
    number_of,
)
from handoff_billing.pricebook import PriceBook
from handoff_billing.proof import (
    connections_query,
    delivery_of,
    delivery_row,
    rows_behind,
    usage_of,
    usage_row,
)
from handoff_billing.rating import rate
from handoff_billing.render import invoice_csv
from handoff_billing.terms import Coupon, Terms
from handoff_billing.usage import Delivered, Totals, UsageKey, summed
from handoff_billing.verify import ABSENT, check_links, first_difference, verify
from handoff_common.events import InvoiceData
from handoff_common.instants import rfc3339
from support.billing_values import (
    NOVEMBER,
    OCTOBER,
    agreed_terms,
    book,
    delivered,
    deliveries,
    price_books,
    terms,
    usages,
    used,
)

SUBJECT = Subject("customer", "Exämple & Söhne", OCTOBER)


def content(
    usage: Mapping[UsageKey, Totals],
    delivery: list[Delivered],
    prices: PriceBook,
    agreed: Terms,
) -> str:
    usage = summed(usage.items())
    lines = rate(usage, delivery, prices, agreed)
    return canonical(content_document(SUBJECT, prices, agreed, usage, delivery, lines))


def numbers(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [n for inner in value.values() for n in numbers(inner)]
    if isinstance(value, list):
        return [n for inner in value for n in numbers(inner)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


@settings(max_examples=50)
@given(usages, deliveries, price_books, agreed_terms)
def test_the_document_has_no_floats_and_only_ascii_keys(
    usage: dict[UsageKey, Totals], delivery: list[Delivered], prices: PriceBook, agreed: Terms
) -> None:
    text = content(usage, delivery, prices, agreed)
    document = json.loads(text, parse_float=pytest.fail)
    assert all(0 <= n < 2**31 for n in numbers(document))
    assert all(key.isascii() for key in document)
    assert rfc8785.dumps(document).decode() == text


@settings(max_examples=40)
@given(
    usages,
    deliveries,
    price_books,
    agreed_terms,
    st.randoms(use_true_random=False),
    st.integers(1, 6),
)
def test_neither_order_nor_slices_change_the_hash(
    usage: dict[UsageKey, Totals],
    delivery: list[Delivered],
    prices: PriceBook,
    agreed: Terms,
    random: Random,
    slices: int,
) -> None:
    rows: list[tuple[UsageKey, Totals]] = []
    for key, counted in usage.items():
        rest = counted
        for _ in range(slices - 1):
            part = Totals(random.randint(0, rest.minutes), lost=random.randint(0, rest.lost))
            rows.append((key, part))
            rest = replace_totals(rest, part)
        rows.append((key, rest))
    rows.append((UsageKey("gone", "usa", OCTOBER), Totals()))
    random.shuffle(rows)
    shuffled = random.sample(delivery, len(delivery))
    again = summed(rows)
    lines = rate(again, shuffled, prices, agreed)
    mixed = dict(random.sample(list(again.items()), len(again)))
    document = content_document(SUBJECT, prices, agreed, mixed, shuffled, lines)
    expected = content_hash(content(usage, delivery, prices, agreed))
    assert content_hash(canonical(document)) == expected


def replace_totals(whole: Totals, part: Totals) -> Totals:
    return whole._replace(minutes=whole.minutes - part.minutes, lost=whole.lost - part.lost)


@settings(max_examples=40)
@given(usages, deliveries, price_books, agreed_terms)
def test_what_was_rated_verifies_from_its_own_document(
    usage: dict[UsageKey, Totals], delivery: list[Delivered], prices: PriceBook, agreed: Terms
) -> None:
    text = content(usage, delivery, prices, agreed)
    outside = {UsageKey("service", "usa", NOVEMBER): Totals(5), **usage}
    found = verify(text, outside)
    assert found.ok
    assert found.content_hash == found.rebuilt_hash == hashlib.sha256(text.encode()).hexdigest()
    document = msgspec.json.decode(text)
    assert usage_of(document) == summed(usage.items())
    assert delivery_of(document) == sorted(row for row in delivery if row.bytes)


def changed(change: Any) -> str:
    usage = used(1_234_567, sent=10**9)
    document = msgspec.json.decode(content(usage, [delivered(5)], book(), terms()))
    change(document)
    return canonical(document)


def set_at(path: str, value: Any) -> Any:
    def change(document: Any) -> None:
        *parents, last = path.split(".")
        for part in parents:
            document = document[int(part) if isinstance(document, list) else part]
        document[int(last) if isinstance(document, list) else last] = value

    return change


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("lines.0.amount", "0.3", '"0.31"'),
        ("lines.0.exact", "0.31", '"0.30864175"'),
        ("totals.total", "0.4", '"0.41"'),
        ("usage.rows.0.3", "1234568", '"1234567"'),
        ("credits", ["1"], ABSENT),
        ("colour", "red", ABSENT),
    ],
)
def test_the_first_difference_is_named(path: str, value: Any, expected: str) -> None:
    found = verify(changed(set_at(path, value)), used(1_234_567, sent=10**9))
    assert not found.ok
    assert found.difference is not None
    assert found.difference.path.startswith(path)
    assert found.difference.expected == expected
    assert found.rebuilt_hash != found.content_hash


@pytest.mark.parametrize(
    ("path", "value", "place"),
    [
        ("document", "other.v9", "document"),
        ("rater_version", 99, "rater_version"),
        ("price_book.name", "", "name"),
        ("terms.effective_from", "soon", "effective_from"),
        ("period", {}, "period"),
        ("delivery", {"rows": [["europe", "later", "cdn", "1"]]}, "delivery"),
    ],
)
def test_a_document_that_cannot_be_read_says_where(path: str, value: Any, place: str) -> None:
    found = verify(changed(set_at(path, value)), {})
    assert (found.ok, found.rebuilt_hash) == (False, "")
    assert found.difference is not None
    assert found.difference.path == place


def test_what_is_not_canonical_or_not_json_does_not_verify() -> None:
    usage = used(1)
    text = content(usage, [], book(), terms())
    spaced = json.dumps(json.loads(text), ensure_ascii=False)
    difference = verify(spaced, usage).difference
    assert difference is not None
    assert "RFC 8785" in difference.expected
    for broken in ("{", "[]", '"text"'):
        assert not verify(broken, usage).ok


def test_missing_usage_is_found() -> None:
    text = content(used(5, hour=1) | used(7, hour=2), [], book(), terms())
    difference = verify(text, used(5, hour=1)).difference
    assert difference is not None
    assert difference.path == "usage.rows.1"


def test_true_is_not_one() -> None:
    assert first_difference({"a": 1}, {"a": True}) is not None
    assert first_difference({"a": [1, 2]}, {"a": [1, 2]}) is None


def test_a_float_is_refused() -> None:
    with pytest.raises(ValueError, match="float"):
        canonical({"a": [1, {"b": 0.5}]})


def invoice(number: int, previous: str) -> InvoiceData:
    text = content(used(number), [], book(), terms())
    issued = datetime(2026, 11, 2, tzinfo=UTC)
    link = link_document(
        previous=previous,
        number=number_of("INV", 2026, number),
        issued_at_ms=int(issued.timestamp()) * 1000,
        positions={"0": number},
        content_hash=content_hash(text),
    )
    return InvoiceData(
        invoice_id=str(number),
        number=link["number"],
        customer_id="customer",
        issued_at=issued,
        content=text,
        content_hash=content_hash(text),
        chain_hash=chain_hash(link),
        previous_chain_hash=previous,
        positions={"0": number},
        through={},
    )


def chain() -> list[InvoiceData]:
    made: list[InvoiceData] = []
    for number in range(1, 4):
        made.append(invoice(number, made[-1].chain_hash if made else NO_CHAIN))
    return made


def test_a_chain_of_invoices_is_whole() -> None:
    assert check_links(chain()) is None
    assert check_links(chain()[1:]) is None
    assert check_links([]) is None


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (lambda c: c.pop(1), "INV-2026-000003.previous_chain_hash"),
        (
            lambda c: c.__setitem__(1, msgspec.structs.replace(c[1], content=c[0].content)),
            "INV-2026-000002.content_hash",
        ),
        (
            lambda c: c.__setitem__(1, msgspec.structs.replace(c[1], positions={"0": 9})),
            "INV-2026-000002.chain_hash",
        ),
    ],
)
def test_a_chain_that_was_changed_is_not_whole(change: Any, path: str) -> None:
    made = chain()
    change(made)
    difference = check_links(made)
    assert difference is not None
    assert difference.path == path


def test_each_line_has_its_rows_and_they_add_up_to_it() -> None:
    usage = used(5, hour=1, sent=100) | used(7, hour=2, lost=2) | used(9, region="usa")
    lines = rate(usage, [delivered(50)], book(), terms(monthly_minimum=Decimal(1)))
    for line in map(line_document, lines):
        rows, others = rows_behind(line, usage, [delivered(50), delivered(3, region="usa")])
        if line["product"] == "connection_minutes" and line["kind"] == "usage":
            assert sum(t.minutes for _, t in rows) == int(line["raw_quantity"])
        elif line["kind"] == "usage" and line["region"] == "europe":
            assert sum(t.priced_bytes for _, t in rows) == 100
            assert sum(row.bytes for row in others) == 50
        elif line["kind"] == "outage":
            assert sum(t.lost for _, t in rows) == 2
        elif line["kind"] == "minimum":
            assert (rows, others) == ([], [])


def test_a_line_names_the_query_that_lists_its_connections() -> None:
    usage_line, minimum = map(
        line_document, rate(used(5), [], book(), terms(monthly_minimum=Decimal(1)))
    )
    assert connections_query("c", OCTOBER, usage_line) == (
        "/v1/connections?customer_id=c&region=europe"
        "&from=2026-10-01T00%3A00%3A00Z&to=2026-11-01T00%3A00%3A00Z"
    )
    assert connections_query("c", OCTOBER, minimum) is None


def test_rows_are_shown_with_integers() -> None:
    [(key, counted)] = used(5, sent=7, hour=2).items()
    row = usage_row(key, counted)
    assert (row["hour"], row["minutes"], row["resp_body_bytes"]) == ("2026-10-01T02:00:00Z", 5, 7)
    assert delivery_row(delivered(9))["bytes"] == 9


def test_the_csv_cannot_become_a_formula_and_has_every_decimal() -> None:
    agreed = terms(coupon=Coupon("=1+1", amount=Decimal("0.05")))
    lines = [line_document(x) for x in rate(used(1_200_000), [], book(), agreed)]
    head = {"customer_name": "+SUM(A1)", "invoice_id": "1"}
    rows = list(csv.DictReader(io.StringIO(invoice_csv(head, lines, currency="USD", exponent=2))))
    assert [row["amount"] for row in rows] == ["0.30", "-0.05"]
    assert {row["customer_name"] for row in rows} == {"'+SUM(A1)"}
    assert rows[1]["coupon_code"] == "'=1+1"
    assert rows[0]["unit_price"] == "0.25"


def test_an_instant_needs_a_time_zone() -> None:
    assert instant_ms("2026-10-01T02:00:00+02:00") == OCTOBER
    with pytest.raises(ValueError, match="time zone"):
        instant_ms("2026-10-01T00:00:00")
    assert rfc3339(OCTOBER + 5) == "2026-10-01T00:00:00.005Z"


def test_the_name_of_the_customer_is_in_the_hash_as_it_is() -> None:
    prices, agreed = book(), terms()
    document = content_document(SUBJECT, prices, agreed, {}, [], ())
    other = content_document(replace(SUBJECT, customer_name="Example"), prices, agreed, {}, [], ())
    assert "Exämple & Söhne" in canonical(document)
    assert content_hash(canonical(document)) != content_hash(canonical(other))


def test_a_known_document_keeps_its_hash() -> None:
    """What is final stays provable: a change of this hash is a new rater version."""
    text = content(used(1_234_567, sent=10**9, lost=1), [delivered(5)], book(), terms())
    assert content_hash(text) == KNOWN_HASH


KNOWN_HASH = "07ba9c66824ef9ea3394cd6f40a62333a5e0dac99c1da8ea71904fb6f0e9253d"
