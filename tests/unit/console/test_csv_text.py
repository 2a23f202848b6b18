"""CSV that any reader reads back, and no spreadsheet runs."""

import csv
import io
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from handoff_console.csv_text import csv_of

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline=""), strict=True))


def test_lines_end_and_quotes_double_as_rfc_4180_has_it() -> None:
    assert csv_of(["a", "b"], [['say "hi", all', "two\r\nlines"], ["plain", None]]) == (
        'a,b\r\n"say ""hi"", all","two\r\nlines"\r\nplain,\r\n'
    )


@given(st.lists(st.lists(TEXTS, min_size=2, max_size=2), max_size=5))
def test_texts_come_back_and_none_is_a_formula(rows: list[list[str]]) -> None:
    for line, given_ in zip(read(csv_of(["a", "b"], rows))[1:], rows, strict=True):
        for cell, text in zip(line, given_, strict=True):
            assert cell in (text, f"'{text}")
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))


@given(st.integers(), st.decimals(allow_nan=False, allow_infinity=False, places=12))
def test_numbers_are_exact_and_no_texts(number: int, decimal: Decimal) -> None:
    [_, line] = read(csv_of(["n", "d"], [[number, decimal]]))
    assert int(line[0]) == number
    assert Decimal(line[1]) == decimal and "e" not in line[1].lower()
