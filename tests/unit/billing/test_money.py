"""Exact arithmetic, texts and the one rounding rule."""

from decimal import Decimal, FloatOperation, Inexact, InvalidOperation, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handoff_billing import money

decimals = st.decimals(-(10**14), 10**14, allow_nan=False, places=8)


@pytest.mark.parametrize(
    ("value", "exponent", "amount"),
    [
        ("0.30864175", 2, "0.31"),
        ("0.305", 2, "0.31"),
        ("-0.305", 2, "-0.31"),
        ("0.304999999999", 2, "0.30"),
        ("0.5", 0, "1"),
        ("-0.5", 0, "-1"),
        ("1.5", 0, "2"),
        ("2.5", 0, "3"),
        ("0.0005", 3, "0.001"),
        ("-0.004", 2, "0.00"),
    ],
)
def test_ties_are_rounded_away_from_zero(value: str, exponent: int, amount: str) -> None:
    assert str(money.rounded(Decimal(value), exponent)) == amount


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("0.30", "0.3"),
        ("1200", "1200"),
        ("1.2E+3", "1200"),
        ("1E-7", "0.0000001"),
        ("-0.00", "0"),
        ("0", "0"),
        ("100.0", "100"),
        ("-12.50", "-12.5"),
    ],
)
def test_texts_have_no_exponent_and_no_trailing_zeros(value: str, text: str) -> None:
    assert money.text(Decimal(value)) == text


@given(decimals, st.integers(0, 6))
def test_equal_decimals_have_equal_texts(value: Decimal, zeros: int) -> None:
    with money.exact():
        wider = value.quantize(Decimal(1).scaleb(-8 - zeros))
    assert money.text(wider) == money.text(value)
    assert money.parse(money.text(value)) == value


@given(decimals, st.integers(0, 4))
def test_rounding_moves_by_half_a_unit_at_most_and_settles(value: Decimal, exponent: int) -> None:
    amount = money.rounded(value, exponent)
    assert abs(amount - value) * 2 <= Decimal(1).scaleb(-exponent)
    assert money.rounded(amount, exponent) == amount


@pytest.mark.parametrize(
    "text", ["", "1e3", "01", ".5", "5.", "+1", " 1", "1,5", "NaN", "Infinity", "٣", "1" * 16]
)
def test_what_is_no_fixed_point_decimal_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="decimal string"):
        money.parse(text)


def test_a_float_cannot_enter_a_computation() -> None:
    with money.exact(), pytest.raises(FloatOperation):
        Decimal(1) + Decimal(0.1)  # noqa: RUF032  (what must be refused)
    with money.exact(), pytest.raises(FloatOperation):
        _ = Decimal("1") < 0.5


def test_lost_digits_raise_instead_of_passing() -> None:
    with money.exact(), pytest.raises(Inexact):
        Decimal(1) / Decimal(3)
    with money.exact(), pytest.raises(InvalidOperation):
        Decimal("Infinity") - Decimal("Infinity")


def test_results_do_not_depend_on_the_context_around() -> None:
    with localcontext() as context:
        context.prec = 3
        assert money.scaled(1_234_567, 6) == Decimal("1.234567")
        assert money.percent_of(Decimal("1234.56"), Decimal("12.5")) == Decimal("154.32")
        assert money.rounded(Decimal("123456.785"), 2) == Decimal("123456.79")


@given(st.integers(0, 2**63 - 1), st.sampled_from([6, 9]))
def test_counts_become_units_without_loss(count: int, power: int) -> None:
    with money.exact():
        assert money.scaled(count, power) * 10**power == count


def test_amounts_are_shown_with_all_their_decimals() -> None:
    assert money.shown(Decimal("0.3"), 2) == "0.30"
    assert money.shown(Decimal("12"), 0) == "12"
