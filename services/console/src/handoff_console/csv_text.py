"""CSV as RFC 4180 has it, safe to open in a spreadsheet. Pure."""

from collections.abc import Iterable, Sequence
from decimal import Decimal

Cell = str | int | Decimal | None
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_of(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """Numbers are exact; None is an empty cell. A text that a spreadsheet would take for a formula
    gets an apostrophe in front; lines end with CR LF."""
    lines = [",".join(_cell(cell) for cell in line) for line in (header, *rows)]
    return "".join(f"{line}\r\n" for line in lines)


def _cell(value: Cell) -> str:
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, int):
        return str(value)
    text = f"'{value}" if value.startswith(_FORMULA) else value
    if any(sign in text for sign in ',"\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text
