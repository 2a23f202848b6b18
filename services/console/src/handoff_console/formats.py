"""How quantities are written for people. Pure, exact: no floats."""

from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal

THIN = "\u202f"
"""Between groups of digits, and between a number and its unit."""
NONE = "–"
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_DECIMALS = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
"""Of the currencies that do not have 2, by ISO 4217."""
_EXPONENTS = {code: count for count, codes in _DECIMALS.items() for code in codes.split()}
_SYMBOLS = {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥"}


def number(value: int | Decimal | None) -> str:
    """12 345 678; a Decimal keeps its digits."""
    if value is None:
        return NONE
    text = f"{value:,f}" if isinstance(value, Decimal) else f"{value:,}"
    return text.replace(",", THIN)


def exponent(currency: str) -> int:
    """Decimals of an amount in a currency."""
    return _EXPONENTS.get(currency, 2)


def money(amount: Decimal | None, currency: str, digits: int | None = None) -> str:
    """$1 234.50, rounded as invoices are: ties away from zero. What is not zero but would read so
    has the digits that it needs, up to 8. digits: the currency's own where it is left out."""
    if amount is None:
        return NONE
    for places in range(exponent(currency) if digits is None else digits, 9):
        rounded = amount.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)
        if rounded or not amount:
            break
    else:
        rounded = amount
    symbol = _SYMBOLS.get(currency)
    text = number(abs(rounded))
    sign = "−" if rounded < 0 else ""
    return f"{sign}{symbol}{text}" if symbol else f"{sign}{text}{THIN}{currency}"


def exact_money(amount: Decimal | None, currency: str) -> str:
    """$0.30864175: every digit, and at least the decimals that the currency has."""
    if amount is None:
        return NONE
    # By text, and without `abs`: a context would round what has more digits than it.
    whole, _, part = f"{amount.copy_abs():f}".partition(".")
    part = part.rstrip("0").ljust(exponent(currency), "0")
    text = number(int(whole)) + (f".{part}" if part else "")
    symbol = _SYMBOLS.get(currency)
    sign = "−" if amount < 0 else ""
    return f"{sign}{symbol}{text}" if symbol else f"{sign}{text}{THIN}{currency}"


def size(count: int | None) -> str:
    """Bytes in decimal units, as bandwidth is billed: 1.24 MB."""
    if count is None:
        return NONE
    if count < 1_000:
        return f"{count}{THIN}B"
    scaled, rounded = Decimal(count), Decimal(count)
    for unit in _UNITS[1:]:
        scaled /= 1_000
        for places, below in ((2, 10), (1, 100), (0, 1_000)):
            # As it is rounded: 999 999 B are 1.00 MB, and not 1000 kB.
            rounded = scaled.quantize(Decimal(1).scaleb(-places), ROUND_HALF_EVEN)
            if rounded < below:
                return f"{rounded}{THIN}{unit}"
    return f"{rounded}{THIN}{_UNITS[-1]}"


def duration(ms: int | None) -> str:
    """3 d 4 h, 1 h 05 min, 2 min 03 s, 12.3 s, 840 ms."""
    if ms is None:
        return NONE
    seconds, rest = divmod(ms, 1_000)
    if seconds < 1:
        return f"{rest}{THIN}ms"
    if seconds < 60:
        return f"{seconds}.{rest // 100}{THIN}s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes}{THIN}min {seconds:02}{THIN}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}{THIN}h {minutes:02}{THIN}min"
    days, hours = divmod(hours, 24)
    return f"{days}{THIN}d {hours}{THIN}h"


def moment(at: datetime | None) -> str:
    """2026-11-24 15:37:02, in UTC."""
    return NONE if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def iso(at: datetime) -> str:
    """For the `datetime` attribute of a `time` element."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def month(at: datetime) -> str:
    """November 2026."""
    return f"{at.astimezone(UTC):%B %Y}"
