"""Exact decimal arithmetic and the one rounding rule. Pure.

Every computation of money happens inside `exact()`: a context in which a float, an inexact result,
an overflow or an invalid operation raises instead of passing silently. The only place where digits
may be lost is `rounded`, once per invoice line, ties away from zero.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import (
    ROUND_HALF_UP,
    Clamped,
    Context,
    Decimal,
    DivisionByZero,
    FloatOperation,
    Inexact,
    InvalidOperation,
    Overflow,
    Subnormal,
    Underflow,
    localcontext,
)

PRECISION = 100
"""Significant digits. The largest product (19 digits of a 63-bit count times a price of
MAX_INTEGER_DIGITS + MAX_FRACTION_DIGITS times two percentages) needs fewer."""

MAX_INTEGER_DIGITS = 15
MAX_FRACTION_DIGITS = 12
"""What `parse` takes on either side of the point."""

_TRAPS = [
    Clamped,
    DivisionByZero,
    FloatOperation,
    Inexact,
    InvalidOperation,
    Overflow,
    Subnormal,
    Underflow,
]
_EXACT = Context(prec=PRECISION, rounding=ROUND_HALF_UP, traps=_TRAPS)
_ROUNDING = Context(
    prec=PRECISION, rounding=ROUND_HALF_UP, traps=[t for t in _TRAPS if t is not Inexact]
)
_FIXED_POINT = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?", re.ASCII)

ZERO = Decimal(0)


@contextmanager
def exact() -> Iterator[None]:
    """The context in which money is computed: nothing is lost without an exception."""
    with localcontext(_EXACT):
        yield


def parse(text: str) -> Decimal:
    """A fixed-point decimal string, without exponent: `-12.5`, `0.000001`.

    Raises ValueError, saying what is allowed.
    """
    if not _FIXED_POINT.fullmatch(text):
        raise ValueError("a decimal string such as '0.25', without exponent")
    whole, _, fraction = text.lstrip("-").partition(".")
    if len(whole) > MAX_INTEGER_DIGITS or len(fraction) > MAX_FRACTION_DIGITS:
        raise ValueError(
            f"a decimal string of at most {MAX_INTEGER_DIGITS} digits before the point "
            f"and {MAX_FRACTION_DIGITS} after it"
        )
    return Decimal(text)


def read(text: str) -> Decimal:
    """An amount as `text` has written it, however large. Raises ValueError."""
    if not _FIXED_POINT.fullmatch(text):
        raise ValueError(f"{text!r} is not a decimal string such as '0.25'")
    return Decimal(text)


def text(value: Decimal) -> str:
    """Fixed-point, no exponent, no trailing zeros, zero without a sign: `0.3`, `1200`, `0`.

    Equal decimals have equal texts, whatever their scale.
    """
    fixed = format(value, "f")
    if "." in fixed:
        fixed = fixed.rstrip("0").rstrip(".")
    return "0" if fixed == "-0" else fixed


def shown(value: Decimal, exponent: int) -> str:
    """An amount of a currency with all its decimals, as a person reads it: `0.30`."""
    return format(rounded(value, exponent), "f")


def rounded(value: Decimal, exponent: int) -> Decimal:
    """To `exponent` decimals, ties away from zero; never a negative zero.

    >>> rounded(Decimal("0.30864175"), 2), rounded(Decimal("-0.125"), 2)
    (Decimal('0.31'), Decimal('-0.13'))
    """
    amount = value.quantize(Decimal((0, (1,), -exponent)), context=_ROUNDING)
    return amount.copy_abs() if amount.is_zero() else amount


def scaled(count: int, power: int) -> Decimal:
    """`count / 10**power`, exactly: counted minutes or bytes in priced units."""
    return Decimal(count).scaleb(-power, context=_EXACT)


def percent_of(value: Decimal, percent: Decimal) -> Decimal:
    """`value * percent / 100`, exactly."""
    return _EXACT.multiply(value, percent).scaleb(-2, context=_EXACT)
