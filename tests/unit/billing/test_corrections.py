"""Late usage as corrections: the month adds up exactly, however often and however it changes."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handoff_billing.corrections import (
    Carried,
    Correction,
    LineKey,
    billed_by,
    carried_forward,
    changes,
    complete,
)
from handoff_billing.invoice import (
    NO_CHAIN,
    Subject,
    canonical,
    content_document,
    content_hash,
    line_document,
    totals_document,
)
from handoff_billing.money import ZERO
from handoff_billing.pricebook import Package, PriceBook
from handoff_billing.proof import (
    billed_of,
    connections_query,
    corrected_by,
    late_usage,
    month_behind,
    rows_in,
)
from handoff_billing.rating import Line, rate, total
from handoff_billing.render import invoice_csv
from handoff_billing.terms import Commitment, Terms
from handoff_billing.usage import Delivered, Totals, Usage, UsageKey, summed
from handoff_billing.verify import check_billed, check_delivery, delivery_months, verify
from handoff_common.events import InvoiceData
from handoff_common.minutes import HOUR_MS, next_month
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

OWN = "INV-2026-000001"
DECEMBER = next_month(NOVEMBER)


@dataclass
class Books:
    """The invoices of one customer as billing would issue them: October's, then one a month."""

    prices: PriceBook = field(default_factory=book)
    agreed: Terms = field(default_factory=terms)
    issued: list[InvoiceData] = field(default_factory=list)
    logged: dict[UsageKey, Totals] = field(default_factory=dict)
    month_ms: int = OCTOBER

    def correction(self, usage: Usage, delivery: Sequence[Delivered] = ()) -> Correction:
        """October with these rows, after all that was issued."""
        every = [billed_by(msgspec.json.decode(d.content), d.number, OWN) for d in self.issued]
        return Correction(
            OCTOBER,
            self.prices,
            self.agreed,
            1,
            summed(usage.items()),
            list(delivery),
            [one for one in every if one.number == OWN or one.lines],
        )

    def issue(
        self,
        usage: Usage,
        delivery: Sequence[Delivered] = (),
        *,
        corrections: Sequence[Correction] = (),
        carried: Sequence[Carried] = (),
        alone: bool = False,
    ) -> dict[str, Any]:
        """The next month's invoice (alone: one beside it): its document."""
        inside = summed(usage.items())
        subject = Subject("customer", "Example", OCTOBER if alone else self.month_ms)
        rated = () if alone else rate(inside, delivery, self.prices, self.agreed)
        lines = complete(rated, corrections, carried, alone=alone)
        document = content_document(
            subject,
            self.prices,
            self.agreed,
            inside,
            delivery,
            lines,
            corrections=corrections,
            carried=carried,
            alone=alone,
        )
        content = canonical(document)
        self.logged |= inside
        self.issued.append(
            InvoiceData(
                invoice_id=str(len(self.issued) + 1),
                number=f"INV-2026-{len(self.issued) + 1:06d}",
                customer_id="customer",
                issued_at=datetime(2026, 11, 2 + len(self.issued), tzinfo=UTC),
                content=content,
                content_hash=content_hash(content),
                chain_hash="",
                previous_chain_hash=NO_CHAIN,
                positions={},
                through={},
            )
        )
        self.month_ms = self.month_ms if alone else next_month(self.month_ms)
        return document

    def proved(self, index: int = -1) -> bool:
        data = self.issued[index]
        return verify(data.content, self.logged).ok and check_billed(data, self.issued) is None


def amounts(lines: Iterable[Line]) -> dict[LineKey, Decimal]:
    return {LineKey(x.kind, x.product, x.region): x.amount for x in lines if x.amount}


def billed_in_all(books: Books) -> dict[LineKey, Decimal]:
    """All rounded amounts for October, over all invoices, line by line."""
    found: dict[LineKey, Decimal] = {}
    for data in books.issued:
        for key, figures in billed_by(json.loads(data.content), data.number, OWN).lines.items():
            found[key] = found.get(key, ZERO) + figures.amount
    return {key: amount for key, amount in found.items() if amount}


@settings(max_examples=60)
@given(st.lists(st.tuples(usages, deliveries), min_size=2, max_size=4), price_books, agreed_terms)
def test_all_that_was_billed_is_the_final_usage_rated_once(
    states: list[tuple[dict[UsageKey, Totals], list[Delivered]]], prices: PriceBook, agreed: Terms
) -> None:
    """Whatever the month was in between, up or down, line by line."""
    books = Books(prices, agreed)
    books.issue(*states[0])
    for usage, delivery in states[1:]:
        correction = books.correction(usage, delivery)
        books.issue({}, corrections=[correction] if changes(correction) else [])
    usage, delivery = states[-1]
    final = rate(summed(usage.items()), delivery, prices, agreed)
    assert billed_in_all(books) == amounts(final)
    assert changes(books.correction(usage, delivery)) == {}, "and it is billed"


@settings(max_examples=40)
@given(usages, usages, usages, deliveries, price_books, agreed_terms)
def test_a_correction_verifies_from_its_document_and_the_usage(
    before: dict[UsageKey, Totals],
    after: dict[UsageKey, Totals],
    current: dict[UsageKey, Totals],
    delivery: list[Delivered],
    prices: PriceBook,
    agreed: Terms,
) -> None:
    books = Books(prices, agreed)
    books.issue(before, delivery)
    november = {key._replace(hour_ms=NOVEMBER): totals for key, totals in current.items()}
    correction = books.correction(after)
    books.issue(november, corrections=[correction] if changes(correction) else [])
    books.logged = dict(summed([*after.items(), *november.items()]))
    assert books.proved()
    numbers = json.loads(books.issued[-1].content, parse_float=pytest.fail)
    document = msgspec.json.decode(books.issued[-1].content)
    assert numbers == document
    if changes(correction):
        assert billed_of(document["corrections"][0]) == correction.billed


@settings(max_examples=40)
@given(st.lists(usages, min_size=2, max_size=5), price_books, agreed_terms)
def test_no_invoice_is_negative_and_nothing_is_lost_by_carrying(
    states: list[dict[UsageKey, Totals]], prices: PriceBook, agreed: Terms
) -> None:
    books = Books(prices, agreed)
    sums = [total(())]
    left: list[Carried] = []
    month = ZERO
    for number, usage in enumerate(states):
        correction = books.correction(usage) if number else None
        found = [correction] if correction is not None and changes(correction) else []
        document = books.issue(usage if not number else {}, corrections=found, carried=left)
        # What each later month owes by itself: a minimum, or nothing.
        month += total(rate({}, (), prices, agreed)) if number else ZERO
        sums.append(Decimal(document["totals"]["total"]))
        assert sums[-1] >= 0
        amount = carried_forward(document["lines"])
        data = books.issued[-1]
        left = [Carried(data.number, OCTOBER, amount)] if amount else []
    last = total(rate(summed(states[-1].items()), (), prices, agreed))
    assert sum(sums) - sum(one.amount for one in left) == last + month


def late(books: Books, usage: Usage, delivery: Sequence[Delivered] = ()) -> list[dict[str, Any]]:
    lines = complete((), [books.correction(usage, delivery)], ())
    return [line_document(line) for line in lines]


def test_a_correction_names_its_invoice_and_what_changed() -> None:
    books = Books()
    books.issue(used(4_000_000, sent=10**9))
    [minutes, bandwidth] = late(books, used(6_000_000, sent=10**9), [delivered(2 * 10**9)])
    assert minutes["corrects"] == {
        "invoice": OWN,
        "period_start": "2026-10-01T00:00:00Z",
        "kind": "usage",
    }
    assert minutes["description"] == (
        f"Correction of {OWN}, 2026-10: WebSocket connection time, europe"
    )
    assert (minutes["kind"], minutes["product"]) == ("correction", "connection_minutes")
    assert (minutes["raw_quantity"], minutes["quantity"]) == ("2000000", "2")
    assert (minutes["exact"], minutes["amount"], minutes["unit"]) == (
        "0.5",
        "0.5",
        "million minutes",
    )
    assert (bandwidth["amount"], bandwidth["websocket_raw_quantity"]) == ("0.2", "0")
    assert (bandwidth["raw_quantity"], bandwidth["quantity"]) == ("2000000000", "2")


def test_less_usage_is_given_back() -> None:
    books = Books()
    books.issue(used(4_000_000) | used(1_000_000, region="usa"))
    lines = late(books, used(2_000_000))
    assert [(x["region"], x["raw_quantity"], x["amount"]) for x in lines[:2]] == [
        ("europe", "-2000000", "-0.5"),
        ("usa", "-1000000", "-0.25"),
    ]
    assert (lines[2]["kind"], lines[2]["amount"]) == ("carried_forward", "0.75")


def test_the_whole_month_is_rated_again_with_its_true_ups() -> None:
    agreed = terms(monthly_minimum=Decimal(100), discount_percent=Decimal(10))
    books = Books(agreed=agreed)
    books.issue(used(4_000_000))
    lines = late(books, used(804_000_000))
    assert [(x["corrects"]["kind"], x["amount"]) for x in lines] == [
        ("usage", "200"),
        ("discount", "-20"),
        ("minimum", "-99.1"),
    ]
    agreed = terms(commitment=Commitment(Decimal(100), Decimal(2)))
    books = Books(agreed=agreed)
    books.issue(used(4_000_000))
    lines = late(books, used(804_000_000))
    assert [(x["corrects"]["kind"], x["amount"]) for x in lines] == [
        ("usage", "200"),
        ("commitment_true_up", "-99"),
        ("commitment_overage", "101"),
    ]


def test_an_outage_that_was_none_is_taken_back_at_no_charge() -> None:
    books = Books()
    books.issue(used(5, lost=1))
    [line] = late(books, used(5))
    assert line["corrects"]["kind"] == "outage"
    assert (line["raw_quantity"], line["unit"], line["amount"]) == ("-1", "connections", "0")


def test_prices_of_today_do_not_matter() -> None:
    """A begun package was billed: as long as it is not full, more costs nothing."""
    books = Books(book(Package(Decimal(1), Decimal("0.75"))))
    books.issue(used(1))
    assert late(books, used(1_000_000))[0]["amount"] == "0"
    assert late(books, used(1_000_001))[0]["amount"] == "0.75"


def test_the_order_of_lines() -> None:
    agreed = terms(monthly_minimum=Decimal(1))
    books = Books(agreed=agreed)
    books.issue(used(8_000_000))
    lines = complete(
        rate(used(1), (), book(), agreed),
        [books.correction(used(4_000_000))],
        [Carried("INV-2026-000009", OCTOBER, Decimal(7))],
    )
    assert [x.kind for x in lines] == [
        "usage",
        "minimum",
        "correction",
        "carried_over",
        "carried_forward",
    ]
    assert [x.number for x in lines] == [1, 2, 3, 4, 5]
    assert totals_document(lines) == {
        "usage": "0",
        "adjustments": "1",
        "corrections": "-1",
        "total": "0",
    }


def test_a_month_is_corrected_on_an_invoice_alone_that_may_be_a_credit_note() -> None:
    books = Books()
    books.issue(used(8_000_000))
    books.logged = {}
    correction = books.correction(used(4_000_000))
    document = books.issue({}, corrections=[correction], alone=True)
    assert document["document"] == "handoff.correction.v1"
    assert (document["totals"]["total"], document["usage"]["rows"]) == ("-1", [])
    books.logged = dict(used(4_000_000))
    assert books.proved(), "although October has usage, it is not billed as this invoice's own"
    assert changes(books.correction(used(4_000_000))) == {}
    assert delivery_months(books.issued[-1].content) == {OCTOBER}


def test_late_usage_is_what_no_invoice_has_billed_yet() -> None:
    books = Books()
    books.issue(used(4_000_000))
    now = used(6_000_000) | used(1_000_000, region="usa")
    found = late_usage(books.correction(now, [delivered(10**10)]))
    assert found.amount == "1.75"
    assert {(x["product"], x["region"]): (x["raw_quantity"], x["amount"]) for x in found.lines} == {
        ("connection_minutes", "europe"): ("2000000", "0.5"),
        ("connection_minutes", "usa"): ("1000000", "0.25"),
        ("delivery_bandwidth", "europe"): ("10000000000", "1"),
    }
    books.issue({}, corrections=[books.correction(now)])
    after = books.correction(now)
    assert (late_usage(after).amount, list(late_usage(after).lines)) == ("0", [])
    assert corrected_by(after) == [("INV-2026-000002", "0.75")]


def corrected() -> Books:
    """October, November that corrects it, December that corrects it once more and takes over what
    November had left."""
    books = Books()
    books.issue(used(8_000_000))
    delivery = [delivered(10**9)]
    books.issue(
        {UsageKey("service", "europe", NOVEMBER): Totals(5)},
        corrections=[books.correction(used(2_000_000, hour=3), delivery)],
    )
    left = carried_forward(json.loads(books.issued[-1].content)["lines"])
    books.issue(
        {},
        corrections=[books.correction(used(4_000_000, hour=3))],
        carried=[Carried("INV-2026-000002", NOVEMBER, left)],
    )
    return books


def test_every_invoice_of_a_chain_of_corrections_is_proved() -> None:
    books = corrected()
    for index, october in ((0, used(8_000_000)), (1, used(2_000_000, hour=3))):
        books.logged = {**october, UsageKey("service", "europe", NOVEMBER): Totals(5)}
        assert books.proved(index)
    books.logged = dict(used(4_000_000, hour=3))
    assert books.proved(2)


def changed(books: Books, path: str, value: Any) -> Books:
    document = msgspec.json.decode(books.issued[-1].content)
    *parents, last = path.split(".")
    place = document
    for part in parents:
        place = place[int(part) if isinstance(place, list) else part]
    place[int(last) if isinstance(place, list) else last] = value
    books.issued[-1] = msgspec.structs.replace(books.issued[-1], content=canonical(document))
    return books


@pytest.mark.parametrize(
    ("path", "value", "place"),
    [
        ("corrections.0.usage.rows.0.3", "4000001", "corrections.0.usage.rows.0.3"),
        ("corrections.0.lines.0.amount", "2", "corrections.0.lines.0.amount"),
        ("lines.0.amount", "0.6", "lines.0.amount"),
        ("lines.0.corrects.invoice", "INV-2026-000002", "lines.0.corrects.invoice"),
        ("corrections.0.rater_version", 9, "corrections.0.rater_version"),
        ("corrections.0.rater_version", True, "corrections.0.rater_version"),
        ("corrections.0.price_book.name", "", "corrections.0.name"),
        ("corrections.0.period", {}, "corrections.0"),
        ("corrections.0.billed", [], "corrections.0"),
        ("corrections.0.billed.0.lines.0.amount", "much", "corrections.0"),
        ("corrections.0.billed.0.lines.0.amount", f"1{'0' * 120}.1", "corrections"),
        ("corrections.0.billed.0.lines.0.kind", "gift", "corrections.0"),
        ("corrections.0.billed.0.invoice", "INV-2026-000003", "corrections.0"),
        ("corrections.0", 5, "corrections.0"),
        ("corrections", {}, "corrections"),
        ("carried", {}, "carried"),
        ("carried.0", 5, "carried"),
        ("carried.0.amount", "1e3", "carried"),
    ],
)
def test_a_changed_correction_is_found_from_the_usage(path: str, value: Any, place: str) -> None:
    books = changed(corrected(), path, value)
    found = verify(books.issued[-1].content, used(4_000_000, hour=3))
    assert not found.ok
    assert found.difference is not None
    assert found.difference.path == place


@pytest.mark.parametrize(
    ("path", "value", "place"),
    [
        ("corrections.0.invoice", "INV-2026-000009", "corrections.0.invoice"),
        ("corrections.0.invoice", "INV-2026-000003", "corrections.0.invoice"),
        ("corrections.0.terms.discount_percent", "50", "corrections.0.terms.discount_percent"),
        (
            "corrections.0.price_book.prices.connection_minutes.*.unit_price",
            "0.2",
            "corrections.0.price_book.prices.connection_minutes.*.unit_price",
        ),
        (
            "corrections.0.billed.0.lines.0.amount",
            "1",
            "corrections.0.billed.0.lines.0.amount",
        ),
        ("corrections.0.billed.1.lines", [], "corrections.0.billed.1.lines.0"),
        ("carried.0.amount", "3", "carried.0.amount"),
        ("carried.0.invoice", "INV-2026-000001", "carried.0.amount"),
    ],
)
def test_a_correction_of_what_was_not_billed_is_found_from_the_invoices(
    path: str, value: Any, place: str
) -> None:
    """Even where the document is right in itself."""
    books = changed(corrected(), path, value)
    found = check_billed(books.issued[-1], books.issued)
    assert found is not None
    assert found.path == f"INV-2026-000003.{place}"


def test_what_was_carried_forward_is_taken_over_once() -> None:
    books = corrected()
    again = msgspec.structs.replace(books.issued[-1], number="INV-2026-000004")
    found = check_billed(again, [*books.issued, again])
    assert found is not None, "000003 took it, and corrected October"
    carried = json.loads(again.content)
    del carried["corrections"]
    again = msgspec.structs.replace(again, content=canonical(carried))
    found = check_billed(again, [*books.issued, again])
    assert found is not None
    assert (found.path, found.expected) == ("INV-2026-000004.carried.0.amount", '"0"')


def test_invoices_of_others_and_later_ones_do_not_count() -> None:
    books = corrected()
    other = msgspec.structs.replace(books.issued[1], customer_id="other")
    found = check_billed(books.issued[2], [books.issued[0], other])
    assert found is not None
    assert found.path == "INV-2026-000003.corrections.0.billed.1"
    moved = msgspec.structs.replace(books.issued[1], number="ALT-2026-000001")
    assert check_billed(books.issued[1], [books.issued[0], moved, *books.issued[2:]]) is None
    older = msgspec.structs.replace(books.issued[0], content="[]")
    found = check_billed(books.issued[1], [older])
    assert found is not None
    assert "invoices that can be read" in found.expected


def test_delivery_rows_of_corrected_months_are_compared_too() -> None:
    content = corrected().issued[1].content
    assert delivery_months(content) == {OCTOBER, NOVEMBER}
    found = check_delivery(content, {}, 1)
    assert found.difference is not None
    assert found.difference.path.startswith("delivery.europe.2026-10-01T00:00:00Z")


def test_the_rows_and_connections_behind_a_correction_are_the_old_months() -> None:
    document = json.loads(corrected().issued[1].content)
    by_kind: Mapping[str, Any] = {
        x["product"]: x for x in document["lines"] if x["kind"] == "correction"
    }
    minutes, bandwidth = by_kind["connection_minutes"], by_kind["delivery_bandwidth"]
    [(key, totals)], _ = rows_in(document, minutes)
    assert (key.hour_ms, totals.minutes) == (OCTOBER + 3 * HOUR_MS, 2_000_000)
    assert rows_in(document, bandwidth)[1] == [delivered(10**9)]
    assert month_behind(minutes, NOVEMBER)[0] == OCTOBER
    query = connections_query("c", NOVEMBER, minutes)
    assert query is not None
    assert "from=2026-10-01" in query
    forward = document["lines"][-1]
    assert forward["kind"] == "carried_forward"
    assert rows_in(document, forward) == ([], [])
    assert connections_query("c", NOVEMBER, forward) is None


def test_the_csv_names_what_is_corrected() -> None:
    lines = json.loads(corrected().issued[1].content)["lines"]
    rows = invoice_csv({}, lines, currency="USD", exponent=2).splitlines()
    assert rows[0].endswith("corrects_invoice,corrects_period_start,corrects_kind")
    assert rows[1].endswith(",,,")
    assert rows[2].endswith(f"{OWN},2026-10-01T00:00:00Z,usage")


def test_a_document_without_corrections_is_as_it_was_before_there_were_any() -> None:
    books = Books()
    document = books.issue(used(5))
    assert {"corrections", "carried"}.isdisjoint(document)
    assert set(document["totals"]) == {"usage", "adjustments", "total"}
    assert all("corrects" not in line for line in document["lines"])
