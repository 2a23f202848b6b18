"""What a month is expected to come to, and what each service has in it, over the API."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from handoff_billing.settings import BillingSettings
from handoff_common.instants import from_ms
from handoff_common.minutes import HOUR_MS, month_bounds
from support.billing_system import MINE, NOVEMBER, System, token

FORECAST, COSTS = "/v1/customers/mine/forecast", "/v1/customers/mine/costs"
GIGABYTE = 1_000_000_000
BOOK: dict[str, Any] = {
    "price_book_id": "late",
    "name": "Late",
    "effective_from": "2024-01",
    "currency": {"code": "USD", "exponent": 2},
    "prices": {
        "connection_minutes": {"*": {"model": "per_unit", "unit_price": "0.5"}},
        "delivery_bandwidth": {"*": {"model": "per_unit", "unit_price": "0.2"}},
    },
}


async def deliver(system: System, count: int, hour: str) -> None:
    row = {"customer_id": MINE, "region": "europe", "hour": hour, "source": "cdn", "bytes": count}
    answer = await system.call("POST", "/v1/delivery-usage", body={"data": [row]})
    assert answer.status_code == 200, answer.text


async def november_5(system: System, hours: range, minutes: int = 10_000_000) -> None:
    """The same usage in each of these hours of November, vouched for through the 4th."""
    for hour in hours:
        await system.use(minutes, hour=hour, month_ms=NOVEMBER)
    await system.progress(through=from_ms(NOVEMBER + 96 * HOUR_MS))
    await system.settled()


def adds_up(costs: Any) -> bool:
    parts = [one["amount"] for one in costs["data"]] + [costs["unassigned"]["amount"]]
    of_unassigned = [one["amount"] for one in costs["unassigned"]["parts"]]
    return sum(map(Decimal, parts)) == Decimal(costs["total"]) and sum(
        map(Decimal, of_unassigned)
    ) == Decimal(costs["unassigned"]["amount"])


# --- Forecasts ---


async def test_the_current_month_goes_on_as_it_began(system: System) -> None:
    await november_5(system, range(92, 96))
    # An hour that is not complete yet; less than was expected of the rest.
    await system.use(1_000_000, hour=96, month_ms=NOVEMBER)
    await system.settled()
    found = await system.get(FORECAST, as_=token("billing"))
    assert found == {
        "customer_id": MINE,
        "month": "2024-11",
        "currency": "USD",
        "price_book_id": "example",
        "price_book_version": 1,
        "so_far": {
            "minutes": 41_000_000,
            "websocket_bytes": 0,
            "delivery_bytes": 0,
            "amount": "10.25",
        },
        "expected": {
            "minutes": 10_000_000 * (30 * 24 - 92),
            "websocket_bytes": 0,
            "delivery_bytes": 0,
            "amount": "1570",
        },
        "method": "mean",
        "through": "2024-11-05T00:00:00Z",
    }
    draft = await system.draft(month="2024-11")
    assert draft["total"] == found["so_far"]["amount"]


async def test_a_week_of_last_month_says_how_this_one_goes_on(system: System) -> None:
    """A gigabyte of each kind at the start of Mondays: 21 and 28 October, then 4, 11, 18, 25."""
    for hour in (20 * 24, 27 * 24):
        await system.use(1, hour=hour, resp_body_bytes=GIGABYTE)
    await deliver(system, 2 * GIGABYTE, "2024-10-28T00:00:00Z")
    await system.progress()
    await system.settled()
    found = await system.get(FORECAST)
    assert (found["method"], found["through"]) == ("weekly", "2024-11-01T00:00:00Z")
    assert found["so_far"] == {
        "minutes": 0,
        "websocket_bytes": 0,
        "delivery_bytes": 0,
        "amount": "0",
    }
    assert found["expected"] == {
        "minutes": 4,
        "websocket_bytes": 4 * GIGABYTE,
        "delivery_bytes": 8 * GIGABYTE,
        "amount": "1.44",
    }


async def test_a_months_terms_hold_for_what_is_expected(system: System) -> None:
    agreed = {"price_book_id": "example", "effective_from": "2024-11", "monthly_minimum": "2000"}
    answer = await system.call("PUT", "/v1/customers/mine/pricing", body=agreed)
    assert answer.status_code == 200, answer.text
    await november_5(system, range(92, 96))
    found = await system.get(FORECAST)
    assert (found["so_far"]["amount"], found["expected"]["amount"]) == ("2000", "2000")


async def test_a_month_without_usage(system: System) -> None:
    found = await system.get(FORECAST)
    assert found["method"] == "no_history"
    assert found["so_far"] == found["expected"]
    assert found["so_far"]["amount"] == "0"


async def test_a_past_month_comes_to_its_invoice_draft_or_final(system: System) -> None:
    await system.use(4_000_000, resp_body_bytes=GIGABYTE)
    await deliver(system, 3 * GIGABYTE, "2024-10-05T00:00:00Z")
    await system.progress()
    await system.settled()
    draft = await system.draft()
    before = await system.get(FORECAST, month="2024-10")
    assert before["so_far"] == before["expected"]
    assert before["expected"] == {
        "minutes": 4_000_000,
        "websocket_bytes": GIGABYTE,
        "delivery_bytes": 3 * GIGABYTE,
        "amount": draft["total"],
    }
    assert (before["method"], before["through"]) == ("complete", "2024-11-01T00:00:00Z")
    assert (await system.finalize()).status_code == 200
    assert await system.get(FORECAST, month="2024-10") == before
    await system.use(9_000_000, hour=1)
    await system.settled()
    assert await system.get(FORECAST, month="2024-10") == before


async def test_a_forecast_gives_no_month_an_invoice(system: System) -> None:
    await system.get(FORECAST, month="2021-03")
    await system.get(COSTS, month="2021-03")
    listed = await system.get("/v1/invoices", as_=token("billing"))
    assert [one["period_start"][:7] for one in listed["data"]] == ["2024-11"]


@pytest.mark.parametrize("path", [FORECAST, COSTS])
async def test_a_month_that_has_not_begun_is_refused(system: System, path: str) -> None:
    for month in ("2024-12", "soon", "2024-13"):
        answer = await system.call("GET", path, month=month)
        assert answer.status_code == 422
        [error] = answer.json()["errors"]
        assert error["property"] == "month"
        assert "at most 2024-11" in error["reason"] and month in error["reason"]


@pytest.mark.parametrize("what", ["forecast", "costs"])
async def test_only_customers_have_any(system: System, what: str) -> None:
    for customer_id in ("nobody", "default"):
        answer = await system.call("GET", f"/v1/customers/{customer_id}/{what}")
        assert answer.status_code == 404


async def test_without_prices_usage_is_shown_and_no_amount(tmp_path: Path) -> None:
    (tmp_path / "book.json").write_text(json.dumps(BOOK))
    system = System(tmp_path, settings=BillingSettings(price_book_file=tmp_path / "book.json"))
    await system.start()
    await system.people()
    try:
        await system.use(7, month_ms=month_bounds(2019, 10)[0], resp_body_bytes=100)
        await system.settled()
        found = await system.get(FORECAST, month="2019-10")
        assert (found["price_book_id"], found["price_book_version"]) == (None, None)
        assert found["expected"] == {
            "minutes": 7,
            "websocket_bytes": 100,
            "delivery_bytes": 0,
            "amount": None,
        }
        costs = await system.get(COSTS, month="2019-10")
        [service] = costs["data"]
        assert (service["minutes"], service["amount"]) == (7, None)
        assert (costs["total"], costs["unassigned"]["amount"]) == (None, None)
    finally:
        await system.stop()


# --- Costs ---


async def test_a_line_is_shared_out_to_the_last_cent(system: System) -> None:
    """Three services of a third each in a line of 1.00, and a bandwidth line of which other
    delivery has three quarters."""
    for service_id in ("chat", "game", "news"):
        await system.use(1_333_334, service_id=service_id, hour=3)
    await system.use(0, service_id="chat", hour=4, bereq_body_bytes=GIGABYTE)
    await deliver(system, 3 * GIGABYTE, "2024-10-05T00:00:00Z")
    await system.use(1_000_000, service_id="news", region="usa")
    await system.progress()
    await system.settled()
    draft = await system.get(COSTS, as_=token("billing"), month="2024-10")
    assert draft == {
        "customer_id": MINE,
        "month": "2024-10",
        "status": "draft",
        "invoice_number": None,
        "currency": "USD",
        "price_book_id": "example",
        "price_book_version": 1,
        "data": [
            {
                "service_id": "chat",
                "minutes": 1_333_334,
                "websocket_bytes": GIGABYTE,
                "amount": "0.46",
            },
            {"service_id": "game", "minutes": 1_333_334, "websocket_bytes": 0, "amount": "0.33"},
            {"service_id": "news", "minutes": 2_333_334, "websocket_bytes": 0, "amount": "0.58"},
        ],
        "unassigned": {
            "delivery_bytes": 3 * GIGABYTE,
            "amount": "0.36",
            "parts": [{"kind": "delivery", "amount": "0.36"}],
        },
        "total": "1.73",
    }
    assert adds_up(draft)
    final = (await system.finalize()).json()
    after = await system.get(COSTS, month="2024-10")
    assert after == draft | {"status": "final", "invoice_number": final["number"]}
    assert after["total"] == final["totals"]["total"]


async def test_corrections_and_terms_belong_to_no_service(system: System) -> None:
    await system.use(4_000_000)
    await system.progress()
    await system.settled()
    assert (await system.finalize()).status_code == 200
    agreed = {"price_book_id": "example", "effective_from": "2024-11", "discount_percent": "10"}
    answer = await system.call("PUT", "/v1/customers/mine/pricing", body=agreed)
    assert answer.status_code == 200, answer.text
    await system.use(2_000_000, hour=1)
    await system.use(8_000_000, month_ms=NOVEMBER)
    await system.settled()
    costs = await system.get(COSTS)
    assert [one["amount"] for one in costs["data"]] == ["2"]
    assert costs["unassigned"]["parts"] == [
        {"kind": "discount", "amount": "-0.2"},
        {"kind": "correction", "amount": "0.5"},
    ]
    assert adds_up(costs)
    assert costs["total"] == (await system.draft(month="2024-11"))["total"]


# --- From a line to its connections ---


async def in_pages(system: System, path: str, limit: int) -> list[Any]:
    rows: list[Any] = []
    cursor: str | None = None
    while True:
        query = {"limit": str(limit)} | ({"cursor": cursor} if cursor else {})
        page = await system.get(path, **query)
        rows += page["data"]
        cursor = page["meta"]["next_cursor"]
        if cursor is None:
            return rows


async def test_a_row_behind_a_line_names_its_connections(system: System) -> None:
    await system.use(5, hour=743, resp_body_bytes=7)
    await deliver(system, 3, "2024-10-31T23:00:00Z")
    await system.settled()
    draft = await system.draft()
    rows = {}
    for line in draft["lines"]:
        path = f"/v1/invoices/{draft['invoice_id']}/lines/{line['number']}/usage"
        whole = (await system.get(path))["data"]
        for limit in (1, len(whole)):
            assert await in_pages(system, path, limit) == whole
        for row in whole:
            rows[line["product"], row["kind"]] = row
    assert rows["delivery_bandwidth", "delivery"]["connections"] is None
    for product in ("connection_minutes", "delivery_bandwidth"):
        found = urlsplit(rows[product, "usage"]["connections"])
        assert found.path == "/v1/connections"
        assert {name: value for name, [value] in parse_qs(found.query).items()} == {
            "customer_id": MINE,
            "service_id": "mine-chat",
            "region": "europe",
            "from": "2024-10-31T23:00:00Z",
            "to": "2024-11-01T00:00:00Z",
        }
