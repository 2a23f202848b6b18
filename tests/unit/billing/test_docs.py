"""docs/billing.md says what the code does: its example book and its worked example."""

import json
import re
from dataclasses import replace
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from handoff_billing import holds, issuing, pricebook, terms
from handoff_billing.rating import rate, total
from handoff_billing.terms import Terms
from support.billing_values import OCTOBER, delivered, used

DOCS = Path(__file__).parents[3] / "docs" / "billing.md"


@pytest.fixture(scope="module")
def text() -> str:
    return DOCS.read_text()


def blocks(text: str) -> list[Any]:
    return [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]


def shipped() -> Any:
    return json.loads((files("handoff_billing") / "books" / "example.json").read_text())


def test_the_example_book_is_the_shipped_one(text: str) -> None:
    assert shipped() in blocks(text)


def test_the_terms_shown_are_terms(text: str) -> None:
    [shown] = [block for block in blocks(text) if "monthly_minimum" in block]
    assert terms.parse(shown).coupon is not None


def test_the_worked_example_comes_out(text: str) -> None:
    book, agreed = pricebook.parse(shipped()), Terms("example", OCTOBER)
    usage = used(1_234_567, sent=1_500_000_000)
    lines = rate(usage, [delivered(12 * 10**12)], book, agreed)
    shown = [(str(line.exact.normalize()), str(line.amount)) for line in lines]
    assert shown == [("0.30864175", "0.31"), ("1360.12", "1360.12")]
    assert str(total(lines)) == "1360.43"
    for figure in ("0.30864175", "1360.12", "1360.43", "12001.5", "−136.043", "1224.39"):
        assert figure in text
    discounted = rate(
        usage, [delivered(12 * 10**12)], book, replace(agreed, discount_percent=Decimal(10))
    )
    assert str(total(discounted)) == "1224.39"


def test_every_hold_is_documented(text: str) -> None:
    code = Path(holds.__file__).read_text() + Path(issuing.__file__).read_text()
    names = set(re.findall(r'Hold\(\s*"(\w+)"', code))
    assert len(names) > 10
    assert {name for name in names if f"`{name}`" not in text} == set()
