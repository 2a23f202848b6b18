"""How calls are made of arguments, and how answers are read."""

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handoff_client import (
    BadArgument,
    backends,
    billing_v3,
    connections,
    customers,
    domains,
    history,
    limits,
    prices,
    raw,
    services,
    stats,
    usage,
)
from handoff_client.answer import next_page
from handoff_client.call import Call, Reply
from support.client_operations import Operation, operations


def reply(body: Any, headers: dict[str, str] | None = None) -> Reply:
    return Reply(200, headers or {}, json.dumps(body).encode())


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_part_of_a_path_stays_one_part(name: str) -> None:
    if name in (".", ".."):
        return
    path = domains.get("s", 3, name).path
    head, _, last = path.rpartition("/")
    assert head == "/service/s/version/3/domain" and unquote(last) == name
    assert not set(last) & set("?#%/ ") - {"%"}


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_part_that_would_make_it_another_path_is_refused(name: str) -> None:
    with pytest.raises(BadArgument, match="service_id is"):
        services.delete(name)


@pytest.mark.parametrize("etag", ["é", '"a"\r\nX: y', "\x00"])
def test_an_etag_that_no_header_can_bear_is_refused(etag: str) -> None:
    with pytest.raises(BadArgument, match="if_match is"):
        limits.put("s", if_match=etag)


def test_half_of_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(BadArgument, match="the body is"):
        prices.add_book({"name": "\ud800"})
    with pytest.raises(BadArgument, match="service_id is"):
        services.get("\ud800")


def test_an_instant_without_a_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match=r"from is .* without a time zone"):
        connections.listing(from_=datetime(2026, 11, 1))
    with pytest.raises(ValueError, match=r"starts_at is .* without a time zone"):
        customers.create_contract("c", datetime(2026, 11, 1))


@pytest.mark.parametrize(("year", "hours"), [(1, 14), (9999, -14)])
def test_an_instant_that_utc_does_not_have_is_refused(year: int, hours: int) -> None:
    at = datetime(year, 1 if year == 1 else 12, 1 if year == 1 else 31, 12)
    with pytest.raises(BadArgument, match="starts_at is"):
        customers.create_contract("c", at.replace(tzinfo=timezone(timedelta(hours=hours))))


def test_instants_are_sent_in_utc() -> None:
    at = datetime(2026, 11, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert ("from", "2026-11-01T00:00:00Z") in usage.listing(from_=at).first.query
    assert b'"starts_at":"2026-11-01T00:00:00Z"' in (customers.create_contract("c", at).body or b"")


def test_what_is_left_out_is_not_sent_and_none_is_null() -> None:
    assert customers.change("c", name="n").body == b'{"name":"n"}'
    assert customers.change_contract("c", "k", ends_at=None).body == b'{"ends_at":null}'
    assert backends.update("s", 1, "b", port=443).body == b'{"port":443}'
    assert connections.listing(state="open").first.query == (("state", "open"),)
    assert limits.put("s", max_connections=5, if_match='"t"').headers == (("If-Match", '"t"'),)


@pytest.mark.parametrize("operation", operations(), ids=lambda one: f"{one.name}")
def test_no_operation_leaves_a_brace_in_its_path(operation: Operation) -> None:
    assert "{" not in operation.call.path
    assert operation.call.template.count("/") == operation.call.path.count("/")


SUMMARY = {
    "customer_id": "c",
    "invoice_id": "1",
    "billing_start_date": "2026-11-01T00:00:00Z",
    "billing_end_date": "2026-11-30T23:59:59Z",
    "currency_code": "USD",
    "transaction_line_items": [],
}


@given(st.decimals(allow_nan=False, allow_infinity=False), st.booleans())
def test_money_is_what_the_digits_say(amount: Decimal, as_text: bool) -> None:
    digits = f'"{amount}"' if as_text else f"{amount}"
    body = json.dumps(SUMMARY)[:-1] + f',"monthly_transaction_amount":{digits}}}'
    found = billing_v3.month_to_date().decode(Reply(200, {}, body.encode()))
    assert found.monthly_transaction_amount == amount


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(min_size=1).map("new_".__add__), json_values, max_size=5))
def test_fields_of_a_newer_server_are_passed_over(more: dict[str, Any]) -> None:
    known = {**SUMMARY, "monthly_transaction_amount": 1}
    read = billing_v3.month_to_date().decode
    assert read(reply(known | more)) == read(reply(known))


@given(st.sampled_from(sorted(SUMMARY)))
def test_a_field_that_is_missing_is_named(name: str) -> None:
    body = {**SUMMARY, "monthly_transaction_amount": 1}
    del body[name]
    with pytest.raises(ValueError, match=f"`{name}`"):
        billing_v3.month_to_date().decode(reply(body))


def test_a_page_of_each_kind_of_list_names_the_next() -> None:
    entry = history.every()
    page = entry.first.decode(reply({"data": [], "meta": {"limit": 1, "next_cursor": "c2"}}))
    assert page.next == "c2" and entry.page("c2").query == (("cursor", "c2"),)
    with pytest.raises(ValueError, match="next_cursor"):
        entry.first.decode(reply({"data": [], "meta": {"limit": 1}}))
    assert billing_v3.listing().first.decode(reply({"data": [], "meta": {}})).next is None
    link = '</service?page=1>; rel="prev", </service?direction=x&page=3>; rel="next"'
    assert services.listing().first.decode(reply([], {"link": link})).next == "3"


@given(st.text())
def test_no_link_header_breaks_a_page(link: str) -> None:
    found = next_page(link)
    assert found is None or isinstance(found, str)


def test_statistics_name_their_periods() -> None:
    row = dict.fromkeys(stats.StatsRow.__struct_encode_fields__, 0) | {
        "start_time": 1_795_536_000,
        "service_id": None,
    }
    body: dict[str, Any] = {"status": "success", "meta": {}, "msg": None, "data": [row]}
    [found] = stats.aggregate().decode(reply(body))
    assert found.start == datetime(2026, 11, 24, 16, tzinfo=UTC)


def test_headers_are_there_for_who_asks() -> None:
    call: Call[Any] = raw.request("PUT", "/service/s")
    headers = {
        "content-type": "application/json",
        "etag": '"t"',
        "x-handoff-warning": "shield",
        "x-handoff-ignored": "a, b",
        "idempotent-replayed": "true",
        "x-request-id": "r",
    }
    found = call.with_headers().decode(Reply(200, headers, b'{"a": 1.5}'))
    assert found.value == {"a": 1.5}
    assert (found.etag, found.warning, found.ignored) == ('"t"', "shield", ("a", "b"))
    assert found.replayed and found.request_id == "r"
    assert call.decode(Reply(204, {}, b"")) is None
    assert call.decode(Reply(200, {"content-type": "text/csv"}, b"a,b")) == "a,b"
