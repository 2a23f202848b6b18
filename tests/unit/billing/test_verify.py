"""What an invoice is checked against besides usage: delivery rows; and what is no document."""

import json
from typing import Any

import pytest

from handoff_billing.invoice import Subject, canonical, content_document
from handoff_billing.rating import rate
from handoff_billing.usage import Delivered
from handoff_billing.verify import ABSENT, Logged, check_delivery, delivery_months, verify
from handoff_common.minutes import HOUR_MS
from support.billing_values import OCTOBER, book, terms

ROWS = [
    Delivered("europe", OCTOBER, "cdn", 10),
    Delivered("usa", OCTOBER + HOUR_MS, "cdn", 20),
]
LOGGED = {(r.region, r.hour_ms, r.source): Logged(5 + at, r.bytes) for at, r in enumerate(ROWS)}


def content(rows: list[Delivered] = ROWS) -> str:
    lines = rate({}, rows, book(), terms())
    subject = Subject("customer", "Customer", OCTOBER)
    return canonical(content_document(subject, book(), terms(), {}, rows, lines))


def test_rows_of_the_log_are_proved() -> None:
    assert check_delivery(content(), LOGGED, 6) == (2, 0, None)
    assert check_delivery(content([]), {}, 0) == (0, 0, None)
    zero = {("asia", OCTOBER, "cdn"): Logged(3, 0)}
    assert check_delivery(content(), LOGGED | zero, 6) == (2, 0, None), "no bytes, no row"


def test_what_came_later_proves_nothing_and_disproves_nothing() -> None:
    europe = ("europe", OCTOBER, "cdn")
    assert check_delivery(content(), LOGGED | {europe: Logged(7, 11)}, 6) == (1, 1, None)
    asia = {("asia", OCTOBER, "cdn"): Logged(7, 9)}
    assert check_delivery(content(), LOGGED | asia, 6) == (2, 0, None)
    # A release that did not write the revision: what differs may be later.
    assert check_delivery(content(), LOGGED | asia | {europe: Logged(7, 11)}, None) == (1, 1, None)


@pytest.mark.parametrize(
    ("logged", "path", "expected", "found"),
    [
        ({("europe", OCTOBER, "cdn"): Logged(5, 11)}, "europe.2026-10-01T00", '"11"', '"10"'),
        ({("asia", OCTOBER, "cdn"): Logged(4, 9)}, "asia.2026-10-01T00", '"9"', ABSENT),
        ({("europe", OCTOBER, "cdn"): Logged(5, 0)}, "europe.2026-10-01T00", ABSENT, '"10"'),
        ({("europe", OCTOBER, "cdn"): None}, "europe.2026-10-01T00", ABSENT, '"10"'),
    ],
    ids=["another figure", "left out", "taken back", "invented"],
)
def test_rows_that_the_log_does_not_bear_out_are_named(
    logged: dict[Any, Any], path: str, expected: str, found: str
) -> None:
    rows = {key: row for key, row in (LOGGED | logged).items() if row is not None}
    difference = check_delivery(content(), rows, 6).difference
    assert difference is not None
    assert difference.path == f"delivery.{path}:00:00Z.cdn"
    assert (difference.expected, difference.found) == (expected, found)


@pytest.mark.parametrize("depth", [200, 500, 900, 2_000, 100_000])
@pytest.mark.parametrize("place", ["itself", "a field"])
def test_a_document_nested_too_deep_is_no_invoice(depth: int, place: str) -> None:
    deep = "[" * depth + "]" * depth
    if place == "a field":
        deep = json.dumps(json.loads(content()) | {"extra": 0}).replace(
            '"extra": 0', '"extra": ' + deep
        )
    assert not verify(deep, {}).ok
    assert check_delivery(deep, LOGGED, 6).difference is None
    assert delivery_months(deep) in (set(), {OCTOBER})


def test_the_period_is_read_or_not_there() -> None:
    assert delivery_months(content()) == {OCTOBER}
    for broken in ("{", "[]", '{"period": 7}', "null"):
        assert delivery_months(broken) == set()
