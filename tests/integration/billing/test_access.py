"""Roles and tenants: who sees what, and what nobody sees of another's."""

import asyncio
import json
import re

from handoff_common.http import encode_cursor
from support.billing_system import MINE, THEIRS, System, token

READING = [
    "/v1/invoices",
    "/v1/invoices/{id}",
    "/v1/invoices/{id}.csv",
    "/v1/invoices/{id}/lines/1/usage",
    "/v1/customers/mine/pricing",
    "/v1/customers/mine/forecast",
    "/v1/customers/mine/costs",
    "/billing/v3/invoices",
    "/billing/v3/invoices/month-to-date",
    "/billing/v3/usage-metrics",
    "/billing/v3/service-usage-metrics",
    "/billing/v3/service-usage-types",
]
OPERATING = [
    ("POST", "/v1/invoices/{id}/finalize"),
    ("POST", "/v1/price-books"),
    ("GET", "/v1/price-books"),
    ("GET", "/v1/price-books/example"),
    ("GET", "/v1/customers/default/pricing"),
    ("PUT", "/v1/customers/mine/pricing"),
    ("POST", "/v1/delivery-usage"),
]


async def own_draft(system: System) -> str:
    await system.use(1)
    await system.settled()
    return str((await system.draft())["invoice_id"])


async def test_billing_and_superuser_read_engineer_and_user_do_not(system: System) -> None:
    invoice_id = await own_draft(system)
    statuses = (("billing", 200), ("superuser", 200), ("engineer", 403), ("user", 403))
    for path in READING:
        for role, status in statuses:
            answer = await system.call("GET", path.format(id=invoice_id), as_=token(role))
            assert answer.status_code == status, (path, role, answer.text)


async def test_customers_do_not_operate(system: System) -> None:
    invoice_id = await own_draft(system)
    for method, path in OPERATING:
        for role in ("superuser", "billing", "engineer", "user"):
            answer = await system.call(method, path.format(id=invoice_id), as_=token(role), body={})
            assert answer.status_code == 403, (path, role, answer.text)


async def test_anothers_invoice_and_prices_are_not_found(system: System) -> None:
    invoice_id = await own_draft(system)
    for path in (*READING[1:7], "/v1/invoices/{id}/proof"):
        answer = await system.call(
            "GET", path.format(id=invoice_id), as_=token("superuser", THEIRS)
        )
        assert answer.status_code == 404, path
        assert answer.json()["title"] == "Record not found"


async def test_anothers_id_in_a_query_is_not_found(system: System) -> None:
    for path in (READING[0], *READING[7:-1]):
        answer = await system.call("GET", path, as_=token("billing"), customer_id=THEIRS)
        assert answer.status_code == 404, path


async def test_lists_have_only_ones_own(system: System) -> None:
    await system.use(1)
    await system.use(1, customer_id=THEIRS)
    await system.settled()
    mine = await system.get("/v1/invoices", as_=token("billing"))
    assert {x["customer_id"] for x in mine["data"]} == {MINE}
    every = await system.get("/v1/invoices")
    assert {x["customer_id"] for x in every["data"]} == {MINE, THEIRS}


async def test_without_a_token_there_is_nothing(system: System) -> None:
    answer = await system.http.get("/v1/invoices")
    assert answer.status_code == 401
    answer = await system.call("GET", "/billing/v3/invoices", as_="a guess")
    assert answer.status_code == 401


async def test_operators_name_a_customer_that_exists(system: System) -> None:
    answer = await system.call("GET", "/billing/v3/invoices/month-to-date")
    assert [e["property"] for e in answer.json()["errors"]] == ["customer_id"]
    for path in ("/billing/v3/invoices", "/v1/invoices", "/billing/v3/usage-metrics"):
        answer = await system.call("GET", path, customer_id="nobody")
        assert answer.status_code == 404, path
    answer = await system.call("GET", "/v1/customers/nobody/pricing")
    assert answer.status_code == 404


async def test_lists_are_paged(system: System) -> None:
    for month_ms in (-1, 800, 1600):
        await system.use(1, hour=month_ms)
    await system.settled()
    found, cursor = [], None
    while True:
        query = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = await system.get("/v1/invoices", as_=token("billing"), **query)
        assert len(page["data"]) <= 2
        found += [x["period_start"][:7] for x in page["data"]]
        cursor = page["meta"]["next_cursor"]
        if cursor is None:
            break
    assert found == ["2024-12", "2024-11", "2024-09"]
    drafts = await system.get("/v1/invoices", as_=token("billing"), status="final")
    assert drafts["data"] == []
    earlier = await system.get(
        "/v1/invoices", as_=token("billing"), before="2024-11", status="draft"
    )
    assert [x["period_start"][:7] for x in earlier["data"]] == ["2024-09"]
    answer = await system.call("GET", "/v1/invoices", as_=token("billing"), before="soon")
    assert [e["property"] for e in answer.json()["errors"]] == ["before"]


async def test_a_forged_cursor_is_refused(system: System) -> None:
    for path in ("/v1/invoices", "/billing/v3/invoices"):
        for cursor in ("x", encode_cursor(10**40, 10**40), encode_cursor(10**40)):
            answer = await system.call("GET", path, as_=token("billing"), cursor=cursor)
            assert answer.status_code == 400, (path, answer.text)


async def test_the_service_is_ready_and_says_what_it_does(system: System) -> None:
    async with asyncio.timeout(10):
        while (await system.http.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.01)
    document = (await system.http.get("/openapi.json")).json()
    assert "/v1/invoices/{invoice_id}/finalize" in document["paths"]
    parts = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert parts <= set(document["components"]["schemas"])
    assert "$defs" not in json.dumps(document)
    assert "handoff_projection" in (await system.http.get("/metrics")).text
