"""How quantities read."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handoff_console import formats

N = formats.THIN


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("0", "$0.00"),
        ("1234.5", f"$1{N}234.50"),
        ("-3.1", "−$3.10"),
        ("0.0004", "$0.0004"),
        ("0.00000000004", "$0.00000000004"),
        ("0.0049", "$0.005"),
        ("0.005", "$0.01"),
        ("2.675", "$2.68"),
        ("0.125", "$0.13"),
        ("-0.125", "−$0.13"),
    ],
)
def test_money(amount: str, text: str) -> None:
    assert formats.money(Decimal(amount), "USD") == text


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        ("1234", "JPY", f"¥1{N}234"),
        ("0.4", "JPY", "¥0.4"),
        ("1234.5", "JPY", f"¥1{N}235"),
        ("1.23456", "KWD", f"1.235{N}KWD"),
        ("1", "CLF", f"1.0000{N}CLF"),
    ],
)
def test_money_has_the_decimals_of_its_currency(amount: str, currency: str, text: str) -> None:
    assert formats.money(Decimal(amount), currency) == text


def test_money_of_a_currency_without_a_sign() -> None:
    assert formats.money(Decimal("12"), "CHF") == f"12.00{N}CHF"
    assert formats.money(None, "USD") == "–"


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**12), max_value=10**12))
def test_money_never_reads_as_nothing_where_there_is_something(amount: Decimal) -> None:
    text = formats.money(amount, "USD")
    digits = {c for c in text if c.isdigit()}
    assert (digits == {"0"}) == (amount == 0)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, f"0{N}B"),
        (999, f"999{N}B"),
        (1_000, f"1.00{N}kB"),
        (12_345, f"12.3{N}kB"),
        (123_456_789, f"123{N}MB"),
        (9_996, f"10.0{N}kB"),
        (999_499, f"999{N}kB"),
        (999_500, f"1.00{N}MB"),
        (999_999, f"1.00{N}MB"),
        (10**21, f"1000{N}EB"),
    ],
)
def test_size(count: int, text: str) -> None:
    assert formats.size(count) == text


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (840, f"840{N}ms"),
        (12_399, f"12.3{N}s"),
        (123_000, f"2{N}min 03{N}s"),
        (3_900_000, f"1{N}h 05{N}min"),
        (273_600_000, f"3{N}d 4{N}h"),
    ],
)
def test_duration(ms: int, text: str) -> None:
    assert formats.duration(ms) == text


def test_moments_are_utc() -> None:
    at = datetime(2026, 12, 1, 0, 30, tzinfo=timezone(timedelta(hours=2)))
    assert formats.moment(at) == "2026-11-30 22:30:00"
    assert formats.iso(at) == "2026-11-30T22:30:00Z"
    assert formats.month(at) == "November 2026"
    assert formats.moment(datetime(2026, 1, 2, tzinfo=UTC)) == "2026-01-02 00:00:00"
