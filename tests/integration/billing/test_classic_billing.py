"""`/billing/v3`: fields and JSON types as clients of that API expect them."""

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from fastly.api_client import ApiClient
from fastly.configuration import Configuration
from fastly.model.eom_invoice_response import EomInvoiceResponse
from fastly.model.list_eom_invoices_response import ListEomInvoicesResponse
from fastly.model.mtd_invoice_response import MtdInvoiceResponse
from fastly.model.serviceusagemetrics import Serviceusagemetrics
from fastly.model.serviceusagetypes import Serviceusagetypes
from fastly.model.usagemetrics import Usagemetrics

from support.billing_system import MINE, NOVEMBER, System, token

BILLING = token("billing")


@pytest.fixture
def client() -> Iterator[ApiClient]:
    with ApiClient(Configuration()) as made:
        yield made


class Answer:
    def __init__(self, data: str) -> None:
        self.data = data


async def used(system: System) -> None:
    await system.use(1_234_567, resp_body_bytes=1_500_000_000)
    await system.use(2_000_000, region="usa", month_ms=NOVEMBER)
    await system.progress()
    await system.settled()


async def test_month_to_date(system: System, client: ApiClient) -> None:
    await used(system)
    answer = await system.call("GET", "/billing/v3/invoices/month-to-date", as_=BILLING)
    body = answer.json()
    assert body["customer_id"] == MINE
    assert body["invoice_id"].isdigit()
    assert body["billing_start_date"] == "2024-11-01T00:00:00Z"
    assert body["billing_end_date"] == "2024-11-30T23:59:59Z"
    assert body["monthly_transaction_amount"] == "0.50"
    [line] = body["transaction_line_items"]
    assert line == {
        "description": "WebSocket connection time, usa",
        "amount": 0.5,
        "rate": 0.25,
        "units": 2,
        "product_name": "WebSocket connection time",
        "product_group": "WebSockets",
        "product_line": "Network Services",
        "region": "usa",
        "usage_type": "million minutes",
    }
    client.deserialize(Answer(answer.text), (MtdInvoiceResponse,), True)


async def test_month_to_date_is_never_stale(system: System) -> None:
    path = "/billing/v3/invoices/month-to-date"
    assert (await system.get(path, as_=BILLING))["monthly_transaction_amount"] == "0.00"
    await used(system)
    assert (await system.get(path, as_=BILLING))["monthly_transaction_amount"] == "0.50"


async def test_final_invoices(system: System, client: ApiClient) -> None:
    await used(system)
    assert (await system.get("/billing/v3/invoices", as_=BILLING))["data"] == []
    final = (await system.finalize()).json()
    answer = await system.call("GET", "/billing/v3/invoices", as_=BILLING)
    listed = json.loads(answer.text, parse_float=Decimal)
    assert listed["meta"] == {"limit": 100, "total": 1, "sort": "-billing_start_date"}
    [invoice] = listed["data"]
    assert invoice["statement_number"] == final["number"]
    assert invoice["currency_code"] == "USD"
    assert invoice["invoice_posted_on"] == final["issued_at"]
    assert invoice["monthly_transaction_amount"] == Decimal("0.49")
    assert sum(x["amount"] for x in invoice["transaction_line_items"]) == Decimal("0.49")
    assert invoice["transaction_line_items"][0]["units"] == Decimal("1.234567")
    assert {x["credit_coupon_code"] for x in invoice["transaction_line_items"]} == {""}
    client.deserialize(Answer(answer.text), (ListEomInvoicesResponse,), True)
    one = await system.call("GET", f"/billing/v3/invoices/{final['invoice_id']}", as_=BILLING)
    assert json.loads(one.text, parse_float=Decimal) == invoice
    client.deserialize(Answer(one.text), (EomInvoiceResponse,), True)


async def test_money_is_written_digit_by_digit(system: System) -> None:
    await system.use(123_456_789_012_345_678)
    await system.settled()
    draft = await system.draft()
    assert draft["lines"][0]["exact"] == "30864197253.0864195"
    answer = await system.call("GET", "/v1/invoices", as_=BILLING, month="2024-10")
    assert answer.json()["data"][0]["total"] == "30864197253.09"
    await system.progress()
    await system.settled()
    final = (await system.finalize()).json()
    one = await system.call("GET", f"/billing/v3/invoices/{final['invoice_id']}")
    assert '"monthly_transaction_amount":30864197253.09' in one.text
    assert '"units":123456789012.345678' in one.text


async def test_a_draft_is_not_a_past_invoice(system: System) -> None:
    draft = await system.draft()
    for invoice_id in (draft["invoice_id"], "999", "none", "9" * 30):
        answer = await system.call("GET", f"/billing/v3/invoices/{invoice_id}", as_=BILLING)
        assert answer.status_code == 404, invoice_id


async def test_invoices_are_paged_and_bounded_by_dates(system: System) -> None:
    await system.progress()
    await system.settled()
    for month in ("2024-07", "2024-08", "2024-09", "2024-10"):
        assert (await system.finalize(month=month)).status_code == 200
    path, found = "/billing/v3/invoices", []
    query: dict[str, str] = {"limit": "3"}
    while True:
        page = await system.get(path, as_=BILLING, **query)
        found += [x["billing_start_date"][:7] for x in page["data"]]
        assert page["meta"]["total"] == 4
        if "next_cursor" not in page["meta"]:
            break
        query["cursor"] = page["meta"]["next_cursor"]
    assert found == ["2024-10", "2024-09", "2024-08", "2024-07"]
    some = await system.get(
        path, as_=BILLING, billing_start_date="2024-08-01", billing_end_date="2024-09-30"
    )
    assert [x["billing_start_date"][:7] for x in some["data"]] == ["2024-09", "2024-08"]


WRONG_QUERIES: list[tuple[str, dict[str, str], str]] = [
    ("invoices", {"limit": "0"}, "limit"),
    ("invoices", {"limit": "99999"}, "limit"),
    ("invoices", {"limit": "many"}, "limit"),
    ("invoices", {"cursor": "nonsense"}, "cursor"),
    ("invoices", {"billing_start_date": "soon"}, "billing_start_date"),
    ("usage-metrics", {"start_month": "2024-13"}, "start_month"),
    ("usage-metrics", {"end_month": "2099-01"}, "end_month"),
    ("usage-metrics", {"start_month": "2024-10", "end_month": "2024-09"}, "start_month"),
    ("usage-metrics", {"start_month": "2000-01"}, "start_month"),
    ("service-usage-metrics", {"product_id": "cdn_usage"}, "product_id"),
]


async def test_a_wrong_query_is_named(system: System) -> None:
    for path, query, place in WRONG_QUERIES:
        answer = await system.call("GET", f"/billing/v3/{path}", as_=BILLING, **query)
        assert answer.status_code in (400, 422), query
        assert [e["property"] for e in answer.json()["errors"]] == [place]


async def test_usage_metrics(system: System, client: ApiClient) -> None:
    await used(system)
    answer = await system.call(
        "GET",
        "/billing/v3/usage-metrics",
        as_=BILLING,
        start_month="2024-10",
        end_month="2024-11",
    )
    body = json.loads(answer.text, parse_float=Decimal)
    figures = {
        (x["month"], x["product_id"], x["region"]): (x["quantity"], x["raw_quantity"])
        for x in body["data"]
    }
    assert figures == {
        ("2024-10", "connection_minutes", "europe"): (Decimal("1.234567"), 1_234_567),
        ("2024-10", "delivery_bandwidth", "europe"): (Decimal("1.5"), 1_500_000_000),
        ("2024-11", "connection_minutes", "usa"): (2, 2_000_000),
    }
    assert {x["last_updated_at"] for x in body["data"]} == {"2024-11-01T00:00:00Z"}
    client.deserialize(Answer(answer.text), (Usagemetrics,), True)


async def test_service_usage_metrics(system: System, client: ApiClient) -> None:
    await used(system)
    path = "/billing/v3/service-usage-metrics"
    query = {"start_month": "2024-10", "end_month": "2024-11"}
    answer = await system.call("GET", path, as_=BILLING, **query)
    data = json.loads(answer.text, parse_float=Decimal)["data"]
    assert data["details"] == [
        {
            "customer_id": MINE,
            "service_id": "mine-chat",
            "service_name": "mine chat",
            "usage_units": Decimal("3.234567"),
            "raw_quantity": 3_234_567,
        }
    ]
    assert (data["start_time"], data["end_time"]) == (
        "2024-10-01T00:00:00Z",
        "2024-12-01T00:00:00Z",
    )
    client.deserialize(Answer(answer.text), (Serviceusagemetrics,), True)
    bytes_of = await system.get(path, as_=BILLING, **query, product_id="delivery_bandwidth")
    assert bytes_of["data"]["details"][0]["raw_quantity"] == 1_500_000_000
    other = await system.get(path, as_=BILLING, **query, service="none")
    assert other["data"]["details"] == []


async def test_service_usage_types(system: System, client: ApiClient) -> None:
    answer = await system.call("GET", "/billing/v3/service-usage-types", as_=BILLING)
    types: Any = answer.json()["data"]
    assert [x["product_id"] for x in types] == ["connection_minutes", "delivery_bandwidth"]
    client.deserialize(Answer(answer.text), (Serviceusagetypes,), True)
