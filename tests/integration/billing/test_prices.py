"""Price books, customers' terms, estimates, and delivery usage of other teams."""

import json
from pathlib import Path
from typing import Any

import pytest

from handoff_billing.settings import BillingSettings
from handoff_common.errors import SettingError
from handoff_common.minutes import month_bounds
from handoff_common.topics import DELIVERY
from support.billing_system import MINE, System, token
from support.databases import drop_databases

DOUBLE: dict[str, Any] = {
    "price_book_id": "double",
    "name": "Double",
    "effective_from": "2024-01",
    "currency": {"code": "USD", "exponent": 2},
    "prices": {
        "connection_minutes": {"*": {"model": "per_unit", "unit_price": "0.5"}},
        "delivery_bandwidth": {"*": {"model": "per_unit", "unit_price": "0.2"}},
    },
}


async def add_double(system: System, **changes: Any) -> Any:
    return await system.call("POST", "/v1/price-books", body=DOUBLE | changes)


async def set_terms(system: System, customer_id: str = MINE, **terms: Any) -> Any:
    body = {"price_book_id": "double", "effective_from": "2024-12", **terms}
    return await system.call("PUT", f"/v1/customers/{customer_id}/pricing", body=body)


async def test_a_fresh_system_bills_by_the_example(system: System) -> None:
    books = (await system.get("/v1/price-books"))["data"]
    assert [(b["price_book_id"], b["version"]) for b in books] == [("example", 1)]
    pricing = await system.get("/v1/customers/mine/pricing", as_=token("billing"))
    assert pricing["terms"]["default"] is True
    assert pricing["price_book"]["price_book_id"] == "example"
    assert pricing["history"] == []


async def test_a_book_gets_versions_of_months_to_come(system: System) -> None:
    first = await add_double(system)
    assert (first.status_code, first.json()["version"]) == (201, 1)
    same = await add_double(system)
    assert same.json()["version"] == 1
    for month in ("2024-01", "2024-10", "2024-11"):
        late = await add_double(system, effective_from=month, name="Changed")
        assert late.status_code == 409, month
        assert late.json()["type"] == "urn:handoff:error:in_force"
        assert "2024-12" in late.json()["detail"]
    second = await add_double(system, effective_from="2024-12", name="Changed")
    assert second.json()["version"] == 2
    versions = (await system.get("/v1/price-books/double"))["data"]
    assert [(b["version"], b["name"]) for b in versions] == [(1, "Double"), (2, "Changed")]


async def test_a_book_keeps_its_currency_and_gets_its_version(system: System) -> None:
    await add_double(system)
    euro = {"code": "EUR", "exponent": 2}
    answer = await add_double(system, effective_from="2025-01", currency=euro)
    assert [e["property"] for e in answer.json()["errors"]] == ["currency"]
    answer = await add_double(system, version=7)
    assert [e["property"] for e in answer.json()["errors"]] == ["version"]


async def test_a_wrong_book_is_refused_with_every_mistake(system: System) -> None:
    answer = await add_double(system, name="", colour="red")
    assert answer.status_code == 422
    assert {e["property"] for e in answer.json()["errors"]} == {"name", "colour"}
    answer = await system.call("POST", "/v1/price-books", body=[1])
    assert answer.status_code == 400
    assert (await system.call("GET", "/v1/price-books/none")).status_code == 404


async def test_terms_begin_with_a_month_to_come(system: System) -> None:
    await add_double(system)
    given = await set_terms(system, discount_percent="10")
    assert given.status_code == 200, given.text
    assert given.json()["terms"]["discount_percent"] == "10"
    assert given.json()["terms"]["created_by"] == "operator@mine"
    now = await system.get("/v1/customers/mine/pricing")
    assert now["terms"]["price_book_id"] == "example"
    december = await system.get("/v1/customers/mine/pricing", month="2024-12")
    assert december["terms"]["price_book_id"] == "double"
    await set_terms(system, discount_percent="10")
    assert len((await system.get("/v1/customers/mine/pricing"))["history"]) == 1


async def test_first_terms_may_begin_in_a_month_that_is_not_final(system: System) -> None:
    await add_double(system)
    await system.use(4_000_000)
    await system.settled()
    assert (await system.draft())["total"] == "1"
    assert (await set_terms(system, effective_from="2024-10")).status_code == 200
    assert (await system.draft())["total"] == "2"
    again = await set_terms(system, effective_from="2024-11", discount_percent="5")
    assert (again.status_code, again.json()["title"]) == (409, "Already in force")


async def test_terms_never_reach_into_a_final_month(system: System) -> None:
    await add_double(system)
    await system.progress()
    await system.settled()
    await system.finalize()
    for month, status in (("2024-09", 409), ("2024-10", 409), ("2024-11", 200)):
        answer = await set_terms(system, effective_from=month)
        assert answer.status_code == status, (month, answer.text)


async def test_wrong_terms_are_named(system: System) -> None:
    answer = await set_terms(system, price_book_id="none", discount_percent="5")
    assert "price books: example" in answer.json()["errors"][0]["reason"]
    answer = await set_terms(system, discount_percent="500")
    assert [e["property"] for e in answer.json()["errors"]] == ["discount_percent"]
    assert (await set_terms(system, "nobody")).status_code == 404
    answer = await system.call("GET", "/v1/customers/mine/pricing", month="soon")
    assert [e["property"] for e in answer.json()["errors"]] == ["month"]


async def test_the_terms_of_everyone_change_too(system: System) -> None:
    await add_double(system)
    assert (await set_terms(system, "default", effective_from="2024-11")).status_code == 409
    assert (await set_terms(system, "default")).status_code == 200
    december = await system.get("/v1/customers/mine/pricing", month="2024-12")
    assert (december["terms"]["price_book_id"], december["terms"]["default"]) == ("double", True)


async def test_terms_made_from_an_old_reading_are_refused(system: System) -> None:
    await add_double(system)
    path = "/v1/customers/mine/pricing"

    async def put(tag: str, **terms: Any) -> Any:
        body = {"price_book_id": "double", "effective_from": "2024-12", **terms}
        headers = {"fastly-key": "operator", "if-match": tag}
        return await system.http.put(path, json=body, headers=headers)

    read = (await system.call("GET", path)).headers["etag"]
    assert (await system.call("GET", path, month="2024-12")).headers["etag"] == read
    first = await put(read)
    assert first.status_code == 200 and first.headers["etag"] != read
    late = await put(read, discount_percent="10")
    assert late.status_code == 412
    assert late.json()["type"] == "urn:handoff:error:precondition_failed"
    assert len((await system.get(path))["history"]) == 1, "nothing was changed"
    again = await put(first.headers["etag"], discount_percent="10")
    assert again.status_code == 200 and len(again.json()["history"]) == 2


async def test_agreed_terms_show_on_the_invoice(system: System) -> None:
    await add_double(system)
    await set_terms(
        system,
        effective_from="2024-10",
        discount_percent="10",
        coupon={"code": "WELCOME", "amount": "0.5"},
        monthly_minimum="10",
    )
    await system.use(4_000_000)
    await system.progress()
    await system.settled()
    final = (await system.finalize()).json()
    assert [(x["kind"], x["amount"]) for x in final["lines"]] == [
        ("usage", "2"),
        ("discount", "-0.2"),
        ("coupon", "-0.5"),
        ("minimum", "8.7"),
    ]
    assert final["totals"] == {
        "usage": "2",
        "adjustments": "8",
        "corrections": "0",
        "total": "10",
    }
    invoice = await system.get(f"/billing/v3/invoices/{final['invoice_id']}")
    codes = [x["credit_coupon_code"] for x in invoice["transaction_line_items"]]
    assert codes == ["", "", "WELCOME", ""]


async def test_an_own_price_book_at_the_first_start(tmp_path: Path) -> None:
    (tmp_path / "book.json").write_text(json.dumps(DOUBLE))
    system = System(tmp_path, settings=BillingSettings(price_book_file=tmp_path / "book.json"))
    await system.start()
    await system.people()
    try:
        pricing = await system.get("/v1/customers/mine/pricing")
        assert pricing["price_book"]["price_book_id"] == "double"
        answer = await system.call("GET", "/v1/customers/mine/pricing", month="2023-12")
        assert answer.json()["type"] == "urn:handoff:error:no_price_book"
    finally:
        await system.stop()


async def test_a_first_price_book_must_price_the_current_month(tmp_path: Path) -> None:
    (tmp_path / "book.json").write_text(json.dumps(DOUBLE | {"effective_from": "2024-12"}))
    system = System(tmp_path, settings=BillingSettings(price_book_file=tmp_path / "book.json"))
    try:
        with pytest.raises(SettingError, match=r"effective_from.*allowed: 2024-11 or earlier"):
            await system.start()
    finally:
        await system.stop()


async def test_a_month_without_prices_is_shown_and_held(tmp_path: Path) -> None:
    """Connections of such a month may have been metered; no other month suffers from it."""
    (tmp_path / "book.json").write_text(json.dumps(DOUBLE))
    system = System(tmp_path, settings=BillingSettings(price_book_file=tmp_path / "book.json"))
    await system.start()
    await system.people()
    try:
        await system.use(7, month_ms=month_bounds(2019, 10)[0], resp_body_bytes=100)
        await system.progress()
        await system.settled()
        for who in ("operator", token("billing")):
            listed = await system.get("/v1/invoices", as_=who)
            assert {one["period_start"][:7]: one["total"] for one in listed["data"]}["2019-10"] == (
                "0"
            )
        draft = await system.draft(month="2019-10")
        assert (draft["minutes"], draft["websocket_bytes"], draft["lines"]) == (7, 100, [])
        assert (draft["price_book_id"], draft["currency"]) == (None, DOUBLE["currency"]["code"])
        holds = {hold["code"]: hold["forceable"] for hold in draft["holds"]}
        assert holds["no_price_book"] is False
        refused = await system.finalize(month="2019-10", force=True, reason="must be")
        assert refused.status_code == 409
        assert "no_price_book" in {one["property"] for one in refused.json()["errors"]}
        csv = await system.call("GET", f"/v1/invoices/{draft['invoice_id']}.csv")
        assert csv.status_code == 200 and len(csv.text.splitlines()) == 1
    finally:
        await system.stop()


async def test_delivery_of_a_month_without_prices_is_refused(system: System) -> None:
    row = {"customer_id": MINE, "region": "usa", "source": "cdn", "bytes": 1}
    body = {"data": [row | {"hour": f"{year}-10-05T00:00:00Z"} for year in (2024, 2019)]}
    answer = await system.call("POST", "/v1/delivery-usage", body=body)
    assert answer.status_code == 422
    assert [e["property"] for e in answer.json()["errors"]] == ["data.1.hour"]
    assert "has no price book in force" in answer.text
    months = {one["period_start"][:7] for one in (await system.get("/v1/invoices"))["data"]}
    assert "2019-10" not in months, "all rows are taken or none"


@pytest.mark.parametrize("content", [None, "{", '{"name": "x"}', "[" * 100_000, "9" * 5_000])
async def test_a_wrong_first_price_book_stops_the_start(
    tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "book.json"
    if content is not None:
        path.write_text(content)
    system = System(tmp_path, settings=BillingSettings(price_book_file=path))
    try:
        with pytest.raises(SettingError, match=r"HANDOFF_PRICE_BOOK_FILE.*book\.json"):
            await system.start()
    finally:
        await system.stop()


# --- Estimates ---------------------------------------------------------------------------------


async def estimate(system: System, *, as_: str = "operator", **body: Any) -> Any:
    return await system.call("POST", "/v1/estimates", as_=as_, body=body)


async def test_supposed_usage_is_of_a_region_that_there_is(system: System) -> None:
    answer = await estimate(system, usage=[{"region": "usa"}, {"region": "zz", "minutes": 1}])
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert error["property"] == "usage.1.region"
    assert "'zz' is not one of" in error["reason"] and "usa" in error["reason"]


async def test_supposed_usage_is_priced(system: System) -> None:
    usage = [{"region": "europe", "minutes": 1_234_567, "websocket_bytes": 10**9}]
    made = (await estimate(system, as_=token("billing"), usage=usage)).json()
    assert made["totals"]["total"] == "0.43"
    assert (made["month_total"], made["difference"]) == (None, None)
    other = (await estimate(system, usage=usage, price_book=DOUBLE)).json()
    assert other["totals"]["total"] == "0.82"


async def test_a_preview_adds_to_the_month_so_that_tiers_count(system: System) -> None:
    month = {"customer_id": MINE, "month": "2024-10"}
    await system.call(
        "POST",
        "/v1/delivery-usage",
        body={"data": [row(bytes=10_000 * 10**9)]},
    )
    made = (
        await estimate(system, **month, usage=[{"region": "europe", "websocket_bytes": 10**12}])
    ).json()
    assert (made["month_total"], made["difference"]) == ("1200", "80")
    assert made["totals"]["total"] == "1280"
    past = (await estimate(system, **month)).json()
    assert past["totals"]["total"] == "1200"
    assert past["month_total"] is None


async def test_a_past_month_with_another_book_and_terms(system: System) -> None:
    await add_double(system)
    await system.use(4_000_000)
    await system.settled()
    month = {"customer_id": MINE, "month": "2024-10"}
    by_id = await estimate(system, **month, price_book_id="double")
    assert by_id.json()["totals"]["total"] == "2"
    terms = {"price_book_id": "double", "effective_from": "2024-10", "discount_percent": "50"}
    agreed = await estimate(system, **month, price_book_id="double", terms=terms)
    assert agreed.json()["totals"]["total"] == "1"
    assert (await system.draft())["total"] == "1"


async def test_an_engineer_may_preview_but_not_see_a_month(system: System) -> None:
    usage = [{"minutes": 10**6}]
    assert (await estimate(system, as_=token("engineer"), usage=usage)).status_code == 200
    assert (await estimate(system, as_=token("engineer"), month="2024-10")).status_code == 403
    assert (await estimate(system, as_=token("user"), usage=usage)).status_code == 403


WRONG_ESTIMATES: list[tuple[dict[str, Any], str]] = [
    ({}, "usage"),
    ({"month": "2024-10"}, "customer_id"),
    ({"month": "2030-10", "customer_id": MINE}, "month"),
    ({"usage": [{"minutes": -1}]}, "usage.0.minutes"),
    ({"usage": [{"minutes": 1.5}]}, "usage.0.minutes"),
    ({"usage": [{"hours": 1}]}, "usage.0.hours"),
    ({"usage": [{}], "price_book": {}}, "price_book.price_book_id"),
    ({"usage": [{}], "terms": {"x": 1}}, "terms.price_book_id"),
    ({"usage": [{}], "customer_id": "nobody"}, "customer_id"),
    ({"usage": [{}], "price_book_id": "x", "price_book": DOUBLE}, "price_book_id"),
]


async def test_a_wrong_estimate_is_named(system: System) -> None:
    for body, place in WRONG_ESTIMATES:
        answer = await estimate(system, **body)
        assert answer.status_code == 422, answer.text
        assert place in [e["property"] for e in answer.json()["errors"]]


async def test_customers_do_not_learn_of_others_books(system: System) -> None:
    await add_double(system)
    usage = [{"minutes": 1}]
    own = await estimate(system, as_=token("billing"), usage=usage, price_book_id="example")
    assert own.status_code == 200
    answer = await estimate(system, as_=token("billing"), usage=usage, price_book_id="double")
    assert answer.status_code == 404


# --- Delivery usage ----------------------------------------------------------------------------


def row(**changes: Any) -> dict[str, Any]:
    plain = {
        "customer_id": MINE,
        "region": "europe",
        "hour": "2024-10-03T05:00:00Z",
        "source": "cdn",
        "bytes": 10**9,
    }
    return plain | changes


async def send(system: System, *rows: dict[str, Any]) -> Any:
    return await system.call("POST", "/v1/delivery-usage", body={"data": list(rows)})


async def test_delivery_is_absolute_and_shares_its_line_with_websockets(system: System) -> None:
    await system.use(resp_body_bytes=500_000_000)
    await system.settled()
    for count in (3 * 10**9, 10**9, 10**9):
        answer = await send(system, row(bytes=count), row(source="video", bytes=5 * 10**8))
        assert answer.json() == {"accepted": 2}
    [line] = (await system.draft())["lines"]
    assert line["raw_quantity"] == 2 * 10**9
    assert line["websocket_raw_quantity"] == 500_000_000
    assert line["exact"] == "0.24"
    page = await system.get(f"/v1/invoices/{(await system.draft())['invoice_id']}/lines/1/usage")
    assert [x["kind"] for x in page["data"]] == ["usage", "delivery", "delivery"]


async def test_delivery_is_in_the_log_and_survives_the_database(system: System) -> None:
    await send(system, row(bytes=3 * 10**9))
    await send(system, row(bytes=2 * 10**9))
    ends = await system.log.ends(DELIVERY.name)
    assert sum(end for _, end in ends.values()) == 2
    await system.stop()
    await drop_databases(system.folder)
    await system.start()
    assert [x["raw_quantity"] for x in (await system.draft())["lines"]] == [2 * 10**9]
    await send(system, row(bytes=10**9))
    assert [x["raw_quantity"] for x in (await system.draft())["lines"]] == [10**9]


async def test_wrong_delivery_is_named_and_nothing_is_taken(system: System) -> None:
    answer = await send(
        system,
        row(),
        row(),
        row(region="moon"),
        row(hour="2024-10-03T05:30:00Z"),
        row(hour="2030-10-03T05:00:00Z"),
        row(customer_id="nobody"),
    )
    assert answer.status_code == 422
    assert [e["property"] for e in answer.json()["errors"]] == [
        "data.1",
        "data.2.region",
        "data.3.hour",
        "data.4.hour",
        "data.5.customer_id",
    ]
    assert (await system.draft())["lines"] == []
    for wrong in (
        {"bytes": -1},
        {"bytes": "5"},
        {"hour": "2024-10-03T05:00:00"},
        {"source": "a b"},
    ):
        answer = await send(system, row(**wrong))
        assert answer.status_code == 422, wrong
    assert (await send(system)).status_code == 422
