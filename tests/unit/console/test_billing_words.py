"""Holds, refused forms, contracts, terms and price books, in words and back."""

import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from msgspec.structs import replace

import handoff_billing
from handoff_billing import pricebook
from handoff_client import Conflict, FieldError, Invalid
from handoff_client.answer import json_of
from handoff_client.call import Reply
from handoff_client.customers import Contract
from handoff_client.prices import (
    Commitment,
    Coupon,
    Currency,
    Price,
    PriceBook,
    Pricing,
    Terms,
    Tier,
)
from handoff_console.attempts import CHANGED, BadField, errors_of
from handoff_console.formats import THIN, exact_money
from handoff_console.holds import ADVICE, advice
from handoff_console.pages.customers import (
    contract_state,
    for_websockets,
    terms_of,
    terms_of_month,
    typed_terms,
)
from handoff_console.pages.price_books import Band, NotJson, bands, document_of, read
from support.billing_values import price_books

DOCS = Path(__file__).parents[3] / "docs" / "billing.md"
NOW = datetime(2026, 11, 24, tzinfo=UTC)


def test_every_hold_is_explained() -> None:
    table = DOCS.read_text().partition("| hold | means |")[2].partition("\n\n")[0]
    documented = set(re.findall(r"`([a-z_]+)`", table)) - {"HANDOFF_INVOICE_GRACE_S"}
    assert documented == ADVICE.keys()
    source = (Path(handoff_billing.__file__).parent / "holds.py").read_text()
    assert set(re.findall(r'Hold\(\s*"([a-z_]+)"', source)) <= ADVICE.keys()
    assert advice("of a newer server").title == "Held"


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        ("0.30864175", "USD", "$0.30864175"),
        ("0.6", "USD", "$0.60"),
        ("-382.4", "EUR", "−€382.40"),
        ("1234567", "JPY", f"¥1{THIN}234{THIN}567"),
        ("1.234", "KWD", f"1.234{THIN}KWD"),
        ("0", "USD", "$0.00"),
        ("123456789012345678901234567890.123456789012", "USD", None),
    ],
)
def test_exact_money_keeps_every_digit(amount: str, currency: str, text: str | None) -> None:
    written = exact_money(Decimal(amount), currency)
    assert text is None or written == text
    digits = re.sub(r"[^0-9.−]", "", written).replace("−", "-")
    assert Decimal(digits) == Decimal(amount)


def refused(status: int, *errors: FieldError, kind: type[Invalid | Conflict] = Invalid) -> Invalid:
    return kind("", status=status, title="Refused", detail="why", errors=errors)  # type: ignore[return-value]


def test_errors_stand_at_their_fields() -> None:
    error = refused(422, FieldError("name", "is empty"), FieldError("terms.x", "is unknown"))
    assert errors_of(error, ["name"]) == {"name": "is empty", "": "terms.x: is unknown"}
    assert errors_of(refused(422, FieldError("name", "is empty")), ["name"]) == {"name": "is empty"}
    assert errors_of(refused(409, kind=Conflict), ["name"]) == {"": "Refused: why"}
    assert errors_of(refused(412, kind=Conflict), ["name"]) == {"": CHANGED}
    classic = Invalid("PUT", status=400, detail="port: is 0; allowed: 1 to 65535; name: is missing")
    assert errors_of(classic, ["name", "port"]) == {
        "port": "is 0; allowed: 1 to 65535",
        "name": "is missing",
    }
    assert errors_of(classic, ["name"]) == {"": classic.detail}
    assert errors_of(BadField("ends_at", "is no date"), ["ends_at"]) == {"ends_at": "is no date"}


def contract(starts: int, ends: int | None) -> Contract:
    return Contract(
        id="c",
        product="websockets",
        starts_at=datetime(2026, starts, 1, tzinfo=UTC),
        ends_at=None if ends is None else datetime(2026, ends, 1, tzinfo=UTC),
        created_at=NOW,
    )


@pytest.mark.parametrize(
    ("contracts", "state"),
    [
        ([], ("none", "warn")),
        ([contract(1, None)], ("in force", "ok")),
        ([contract(1, 12)], ("until 2026-12-01", "ok")),
        ([contract(1, 12), contract(2, None)], ("in force", "ok")),
        ([contract(1, 11)], ("ended", "warn")),
        ([contract(1, 11), contract(12, None)], ("from 2026-12-01", "")),
    ],
)
def test_contracts_in_a_word(contracts: list[Contract], state: tuple[str, str]) -> None:
    assert contract_state(contracts, NOW) == state


def test_a_contract_for_another_product_entitles_to_nothing() -> None:
    ours, other = contract(1, None), replace(contract(1, None), product="ngwaf")
    assert contract_state(for_websockets([other]), NOW) == ("none", "warn")
    assert for_websockets([other, ours]) == [ours]


def terms(month: str, discount: str | None = None, **agreed: Any) -> Terms:
    return Terms(
        price_book_id="b",
        effective_from=month,
        discount_percent=None if discount is None else Decimal(discount),
        created_at=NOW,
        created_by="",
        **{"monthly_minimum": None, "commitment": None, "coupon": None, "default": False} | agreed,
    )


def test_new_terms_begin_with_all_that_holds() -> None:
    """What is sent again unchanged is what holds already."""
    held = terms(
        "2026-10",
        "10",
        monthly_minimum=Decimal("1E+2"),
        commitment=Commitment(amount=Decimal("50.00"), overage_rate=Decimal("1.5")),
        coupon=Coupon(code="X", percent=Decimal(5), amount=None),
    )
    assert terms_of(typed_terms(held)) == {
        "price_book_id": "b",
        "discount_percent": "10",
        "monthly_minimum": "100",
        "commitment": {"amount": "50.00", "overage_rate": "1.5"},
        "coupon": {"code": "X", "percent": "5"},
    }
    assert terms_of(typed_terms(terms("2026-10"))) == {"price_book_id": "b"}


def test_the_terms_of_a_month_are_those_agreed_last_for_it() -> None:
    book = PriceBook(
        price_book_id="b",
        version=1,
        name="",
        effective_from="2026-01",
        currency=Currency(code="USD", exponent=2),
        prices={},
    )
    everyones = terms("2026-01", default=True)

    def of(*history: Terms) -> Terms:
        pricing = Pricing(
            customer_id="c", month="2026-11", terms=everyones, price_book=book, history=history
        )
        return terms_of_month(pricing, "2026-12")

    first, second, again = (terms("2026-10"), terms("2026-12", "1"), terms("2026-12", "2"))
    assert of() == everyones
    assert of(first) == first
    assert of(first, second, again) == again
    assert of(first, terms("2027-01", "3")) == first


def test_terms_leave_out_what_is_empty() -> None:
    typed = {"price_book_id": "b", "discount_percent": "", "coupon.code": "X", "coupon.amount": "5"}
    assert terms_of(typed) == {"price_book_id": "b", "coupon": {"code": "X", "amount": "5"}}


def test_bands_follow_each_other() -> None:
    tiers = (Tier(up_to=Decimal(10), unit_price=Decimal(3)), Tier(unit_price=Decimal(2)))
    assert [band[1:] for band in bands(Price(model="graduated", tiers=tiers))] == [
        (Decimal(0), Decimal(10), Decimal(3)),
        (Decimal(10), None, Decimal(2)),
    ]
    package = Price(model="package", package_size=Decimal(5), package_price=Decimal(9))
    assert [*bands(package)] == [Band("package", Decimal(0), Decimal(5), Decimal(9))]
    each = Price(model="per_unit", unit_price=Decimal(7))
    assert [*bands(each)] == [Band("unit", Decimal(0), None, Decimal(7))]


@given(price_books)
def test_a_version_may_be_uploaded_again(book: pricebook.PriceBook) -> None:
    document = pricebook.document(book)
    answered = json_of(PriceBook)(Reply(200, {}, json.dumps(document).encode()))
    expected = {name: value for name, value in document.items() if name != "version"}
    assert read(document_of(answered)) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1,}', "Line 1, column 9"),
        ('{\n "a" 1}', "Line 2, column 6"),
        ("[]", "is a JSON object"),
        ("", "Line 1, column 1"),
        ("[" * 100_000, "Not JSON"),
    ],
)
def test_what_is_no_json_says_where(text: str, said: str) -> None:
    with pytest.raises(NotJson, match=re.escape(said)):
        read(text)
