"""How a line's amount is explained: lines as billing's own rater makes them."""

from decimal import Decimal, localcontext

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handoff_billing import views
from handoff_billing.invoice import line_document
from handoff_billing.pricebook import Graduated, Package, PerUnit, Price, Tier, Volume
from handoff_billing.rating import rate
from handoff_client.invoices import Line
from handoff_console.formats import THIN
from handoff_console.lines import explain
from support.billing_values import book, prices, terms, used

TIERS = (Tier(Decimal(1), Decimal("0.30")), Tier(None, Decimal("0.25")))


def line_of(minutes: int, price: Price) -> Line:
    [line, *_] = rate(used(minutes), [], book(price), terms())
    return msgspec.convert(views.line(line_document(line), None, None), Line)


@given(st.integers(1, 10**9), prices)
def test_the_steps_add_up_to_the_exact_amount(minutes: int, price: Price) -> None:
    line = line_of(minutes, price)
    explained = explain(line, "USD")
    with localcontext(prec=100):
        assert sum((step.exact for step in explained.steps), Decimal(0)) == line.exact
        assert all(step.quantity * step.unit_price == step.exact for step in explained.steps)
    assert explained.rounded == (line.exact != line.amount)


@pytest.mark.parametrize(
    ("minutes", "price", "sentence"),
    [
        (1_234_567, PerUnit(Decimal("0.25")), "1.234567 million minutes at $0.25"),
        (
            2_500_000,
            Graduated(TIERS),
            "2.5 million minutes: first 1 at $0.30, next 1.5 at $0.25",
        ),
        (500_000, Graduated(TIERS), "0.5 million minutes at $0.30"),
        (
            2_500_000,
            Volume(TIERS),
            "2.5 million minutes, all, since more than 1: at $0.25 each",
        ),
        (
            500_000,
            Volume(TIERS),
            "0.5 million minutes, all, since not more than 1: at $0.30 each",
        ),
        (
            2_500_000,
            Package(Decimal(1), Decimal("0.75")),
            "2.5 million minutes: 3 packages at $0.75; one that is begun counts whole",
        ),
        (
            1_234_567_000_000,
            PerUnit(Decimal("0.000125")),
            f"1{THIN}234{THIN}567 million minutes at $0.000125",
        ),
    ],
)
def test_the_sentence(minutes: int, price: Price, sentence: str) -> None:
    assert explain(line_of(minutes, price), "USD").sentence == sentence


def test_a_line_that_has_no_prices_is_not_explained() -> None:
    *_, line = rate(used(1_000_000), [], book(), terms(monthly_minimum=Decimal(5)))
    made = msgspec.convert(views.line(line_document(line), None, None), Line)
    assert made.kind == "minimum"
    assert explain(made, "USD") == ("", (), False)
