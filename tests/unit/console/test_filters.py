"""Filters of connections as query strings: links, forms and invoices write the same."""

from datetime import UTC, datetime
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handoff_common.events import CLOSE_CODES, Reason
from handoff_console import ends
from handoff_console.filters import BadFilter, Filters, field, filters_of

TEXTS = st.none() | st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1)
TIMES = st.none() | st.datetimes(datetime(1971, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC))


def test_a_link_of_an_invoice_line() -> None:
    query = "service_id=s1&region=usa&from=2026-11-01T00%3A00%3A00Z&to=2026-12-01T00%3A00%3A00Z"
    found = filters_of(dict(parse_qsl(query)))
    assert found == Filters(
        "s1",
        None,
        "usa",
        None,
        datetime(2026, 11, 1, tzinfo=UTC),
        datetime(2026, 12, 1, tzinfo=UTC),
    )
    assert found.query() == query and found.ranged and found.given
    assert field(found.to) == "2026-12-01T00:00"


def test_an_empty_form_asks_for_all() -> None:
    found = filters_of({"service_id": "", "state": " ", "from": "", "else": "what"})
    assert found == Filters() and not found.given and found.query() == ""


@given(
    TEXTS, st.sampled_from([None, "open", "closed"]), st.sampled_from([None, *Reason]), TIMES, TEXTS
)
def test_a_query_is_read_as_it_was_written(
    service_id: str | None,
    state: str | None,
    reason: Reason | None,
    from_: datetime | None,
    at: str | None,
) -> None:
    held = Filters(service_id, state, None, reason, from_, None, at)  # type: ignore[arg-type]
    assert filters_of(dict(parse_qsl(held.query()))) == held
    assert not filters_of(dict(parse_qsl(held.query(at=None)))).at


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("state", "half"),
        ("reason", "bored"),
        ("from", "soon"),
        ("from", "2026-13-01"),
        ("service_id", "x" * 201),
    ],
)
def test_what_cannot_be_asked_for_is_named(name: str, value: str) -> None:
    with pytest.raises(BadFilter) as caught:
        filters_of({name: value})
    assert caught.value.name == name


def test_every_end_has_words() -> None:
    for reason in Reason:
        assert ends.title(reason) and ends.explained(reason)
    for code in {1000, *CLOSE_CODES.values()}:
        assert "(" in ends.close_code(code)
    assert ends.close_code(4001) == "4001 (the application's own)"
    assert ends.close_code(None) == "none" and ends.close_code(2000) == "2000"
    assert ends.title("melted_down") == "melted down", "of a later release"
