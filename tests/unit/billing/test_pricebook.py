"""Price books and terms read from JSON: what is right comes back, what is wrong is named."""

import json
from importlib.resources import files
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings

from handoff_billing import pricebook, terms
from handoff_billing.errors import PriceBookInvalid
from handoff_billing.instants import month_ms, month_text
from handoff_billing.pricebook import PriceBook
from handoff_billing.terms import Terms
from support.billing_values import agreed_terms, book, price_books


def document(**changes: Any) -> dict[str, Any]:
    return pricebook.document(book()) | changes


def wrong(value: Any, read: Any = pricebook.parse) -> dict[str, str]:
    with pytest.raises(PriceBookInvalid) as raised:
        read(value)
    return {e.property: e.reason for e in raised.value.errors}


@settings(max_examples=50)
@given(price_books)
def test_a_book_written_and_read_is_the_same(prices: PriceBook) -> None:
    written = json.loads(json.dumps(pricebook.document(prices)))
    assert pricebook.parse(written) == prices


@settings(max_examples=50)
@given(agreed_terms)
def test_terms_written_and_read_are_the_same(agreed: Terms) -> None:
    assert terms.parse(json.loads(json.dumps(terms.document(agreed)))) == agreed


def test_the_shipped_example_is_a_price_book() -> None:
    raw = (files("handoff_billing") / "books" / "example.json").read_bytes()
    example = pricebook.parse(msgspec.json.decode(raw))
    assert example.price_book_id == "example"
    assert month_text(example.effective_ms) == "2020-01"
    assert pricebook.document(example) == msgspec.json.decode(raw)


@pytest.mark.parametrize(
    ("changes", "place", "says"),
    [
        ({"name": None}, "name", "is missing"),
        ({"name": ""}, "name", "1 to 200"),
        ({"name": "\ud800"}, "name", "printable"),
        ({"name": "a\x00b"}, "name", "printable"),
        ({"price_book_id": "Not This"}, "price_book_id", "'Not This'"),
        ({"effective_from": "2026-13"}, "effective_from", "'2026-13'"),
        ({"effective_from": "2026-11-15"}, "effective_from", "UTC month"),
        ({"version": 0}, "version", "0 is not an integer from 1"),
        ({"version": True}, "version", "True"),
        ({"colour": "red"}, "colour", "not a field"),
        ({"currency": {"code": "usd", "exponent": 2}}, "currency.code", "'usd'"),
        ({"currency": {"code": "USD", "exponent": 9}}, "currency.exponent", "from 0 to 4"),
        ({"currency": "USD"}, "currency", "an object"),
        ({"prices": []}, "prices", "an object"),
    ],
)
def test_a_wrong_field_is_named_with_its_value_and_what_is_allowed(
    changes: dict[str, Any], place: str, says: str
) -> None:
    assert says in wrong(document(**changes))[place]


def minutes_priced(price: Any, **regions: Any) -> dict[str, Any]:
    prices = pricebook.document(book())["prices"]
    return document(prices=prices | {"connection_minutes": {"*": price, **regions}})


PER_UNIT = {"model": "per_unit", "unit_price": "1"}


@pytest.mark.parametrize(
    ("price", "place", "says"),
    [
        ({"model": "free"}, "model", "per_unit, graduated, volume, package"),
        ({"model": "free", "unit_price": "1"}, "model", "'free'"),
        ({"model": "per_unit"}, "unit_price", "is missing"),
        ({"model": "per_unit", "unit_price": 0.25}, "unit_price", "a decimal string"),
        ({"model": "per_unit", "unit_price": "-1"}, "unit_price", "from 0"),
        ({"model": "per_unit", "unit_price": "1e3"}, "unit_price", "without exponent"),
        ({**PER_UNIT, "tiers": []}, "tiers", "not a field"),
        (
            {"model": "package", "package_size": "0", "package_price": "1"},
            "package_size",
            "above 0",
        ),
        ({"model": "graduated"}, "tiers", "is missing"),
        ({"model": "graduated", "tiers": []}, "tiers", "1 to 100"),
        ({"model": "volume", "tiers": "all"}, "tiers", "a list"),
        ({"model": "volume", "tiers": ["all"]}, "tiers.0", "an object"),
        (
            {"model": "volume", "tiers": [{"up_to": "5", "unit_price": "1"}]},
            "tiers.0.up_to",
            "null, as the last",
        ),
        (
            {"model": "graduated", "tiers": [{"unit_price": "1"}, {"unit_price": "1"}]},
            "tiers.0.up_to",
            "above 0",
        ),
        (
            {
                "model": "graduated",
                "tiers": [
                    {"up_to": "5", "unit_price": "1"},
                    {"up_to": "5", "unit_price": "1"},
                    {"up_to": None, "unit_price": "1"},
                ],
            },
            "tiers.1.up_to",
            "above 5",
        ),
        ("cheap", "", "an object"),
        (None, "", "is missing"),
    ],
)
def test_a_wrong_price_is_named(price: Any, place: str, says: str) -> None:
    path = ".".join(part for part in ("prices.connection_minutes.*", place) if part)
    assert says in wrong(minutes_priced(price))[path]


def test_a_product_needs_a_default_price_and_known_regions() -> None:
    prices = document()["prices"] | {"connection_minutes": {"europa": PER_UNIT}}
    found = wrong(document(prices=prices))
    assert "is missing" in found["prices.connection_minutes.*"]
    assert "europe" in found["prices.connection_minutes.europa"]
    assert "unknown" not in document()["prices"]
    found = wrong(document(prices={"connection_minutes": {"*": PER_UNIT}, "gold": {}}))
    assert set(found) == {"prices.delivery_bandwidth", "prices.gold"}


def test_every_mistake_is_told_at_once() -> None:
    assert set(wrong({"effective_from": "now", "colour": 1})) == {
        "price_book_id",
        "name",
        "effective_from",
        "currency",
        "prices",
        "colour",
    }


def test_what_is_no_object_is_refused() -> None:
    assert "an object" in wrong(["a", "list"])[""]


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"price_book_id": None}, "price_book_id"),
        ({"effective_from": None}, "effective_from"),
        ({"discount_percent": "101"}, "discount_percent"),
        ({"discount_percent": "0"}, "discount_percent"),
        ({"monthly_minimum": 5}, "monthly_minimum"),
        ({"commitment": {}}, "commitment.amount"),
        ({"commitment": {"amount": "1", "overage_rate": "1001"}}, "commitment.overage_rate"),
        ({"commitment": "all"}, "commitment"),
        ({"coupon": {"percent": "5"}}, "coupon.code"),
        ({"coupon": {"code": "X"}}, "coupon"),
        ({"coupon": {"code": "X", "percent": "5", "amount": "5"}}, "coupon"),
        ({"coupon": {"code": "X", "percent": "500"}}, "coupon.percent"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_wrong_terms_are_named(changes: dict[str, Any], place: str) -> None:
    plain = {"price_book_id": "test", "effective_from": "2026-10"}
    assert set(wrong({**plain, **changes}, terms.parse)) == {place}


def test_the_version_effective_last_prices_a_month() -> None:
    def version(number: int, month: str) -> PriceBook:
        return pricebook.parse(document(version=number, effective_from=month))

    versions = [version(1, "2026-01"), version(2, "2026-06"), version(3, "2026-06")]
    found = [
        pricebook.in_force(versions, month_ms(month))
        for month in ("2025-12", "2026-01", "2026-05", "2026-06", "2030-01")
    ]
    assert [one and one.version for one in found] == [None, 1, 1, 3, 3]


def test_the_terms_given_last_hold_for_a_month() -> None:
    given_terms = [
        Terms("first", month_ms("2026-01")),
        Terms("second", month_ms("2026-03")),
        Terms("third", month_ms("2026-03")),
        Terms("fourth", month_ms("2026-02")),
    ]
    found = [terms.in_force(given_terms, month_ms(m)) for m in ("2025-12", "2026-02", "2026-03")]
    assert [one and one.price_book_id for one in found] == [None, "fourth", "third"]


@pytest.mark.parametrize(
    "text", ["2026-1", "26-01", "2026-00", "9999-01", "1969-12", "２０２６-01"]
)
def test_what_is_no_month_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a UTC month"):
        month_ms(text)
