"""An operator looks as one customer of many, and at what belongs to none."""

import html
import secrets
from datetime import UTC, datetime, timedelta

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from handoff_console.pages.services import PER_PAGE
from support.console import Visitor, visitor
from support.embedded import Embedded, Tenant, make_customer, make_tenant
from support.parts.waiting import eventually

pytestmark = [pytest.mark.timeout(120), pytest.mark.xdist_group("console-looks")]


async def look_as(someone: Visitor, customer_id: str) -> None:
    answer = await someone.post("/customer-shown", customer_id=customer_id, next="/services")
    assert answer.status_code == 303, answer.text


async def test_the_services_of_others_take_no_place_in_a_customers_list(
    system: Embedded, tenant: Tenant
) -> None:
    whose = await make_customer(system, "Many services")
    names = [f"service {number}" for number in range(PER_PAGE + 1)]
    async with system.api() as api:
        for name in names:
            await api.call("POST", "/service", {"name": name, "type": "vcl", "customer_id": whose})
    late = await make_tenant(system, origin_port=9, enable=False)
    async with visitor(system) as operator:
        await operator.sign_in(system.operator_token)
        await look_as(operator, late.customer_id)
        page = (await operator.get("/services")).text
        assert late.domain in page and "No services yet" not in page
        assert tenant.domain not in page and "service 7" not in page
        assert late.domain in (await operator.get("/usage")).text
        await look_as(operator, whose)
        page = (await operator.get("/services")).text
        assert page.count('<td class="name">') == PER_PAGE and names[-1] not in page
        assert '<a href="/services?page=2">More services</a>' in page
        page = (await operator.get("/services?page=2")).text
        assert names[-1] in page and page.count('<td class="name">') == 1


async def test_who_looks_as_nobody_is_led_to_the_customers_and_back(
    system: Embedded, tenant: Tenant
) -> None:
    async with visitor(system) as operator:
        await operator.sign_in(system.operator_token)
        answer = await operator.get("/usage?by=month")
        assert answer.status_code == 409
        assert 'href="/customers?next=/usage%3Fby%3Dmonth"' in answer.text
        answer = await operator.get("/customers?next=/usage%3Fby%3Dmonth")
        assert '<input type="hidden" name="next" value="/usage?by=month">' in answer.text
        answer = await operator.get("/customers?next=//evil.example")
        assert 'name="next"' not in answer.text
        answer = await operator.post(
            "/customer-shown", customer_id=tenant.customer_id, next="/usage?by=month"
        )
        assert answer.headers["location"] == "/usage?by=month"


async def test_refusals_of_no_service_are_shown_to_whoever_looks_as_nobody(
    system: Embedded, tenant: Tenant
) -> None:
    unknown = f"{secrets.token_hex(4)}.example.com"
    for domain in (unknown, tenant.domain):
        with pytest.raises(InvalidStatus):
            async with connect(
                f"ws://{domain}/", host="127.0.0.1", port=system.edge_port, proxy=None
            ):
                pass
    async with visitor(system) as operator:
        await operator.sign_in(system.operator_token)

        async def counted() -> str | None:
            page = (await operator.get("/connections/refused?span=hour")).text
            return page if "unknown_domain" in page and tenant.domain in page else None

        page = await eventually(counted, "the refusals are counted")
        assert "not_enabled" in page and "of everyone" in page
        assert f'href="/services/{tenant.service_id}"' not in page, "it is about one customer"
        assert "/connections/refused" in (await operator.get("/operations")).text
        await look_as(operator, tenant.customer_id)
        page = (await operator.get("/connections/refused?span=hour")).text
        assert "not_enabled" in page and "unknown_domain" not in page


async def test_drafts_of_every_month_that_has_ended_are_shown(
    system: Embedded, tenant: Tenant
) -> None:
    first = datetime.now(UTC).replace(day=1)
    last = first - timedelta(days=1)
    before = last.replace(day=1) - timedelta(days=1)
    async with system.api() as api:
        for month in (last, before):
            query = {"customer_id": tenant.customer_id, "month": f"{month:%Y-%m}"}
            [draft] = (await api.call("GET", "/v1/invoices", query=query))["data"]
            assert draft["status"] == "draft"
    async with visitor(system) as operator:
        await operator.sign_in(system.operator_token)
        page = (await operator.get("/operations")).text
        ended, _, earlier = page.partition("Drafts of earlier months")
        assert f"Invoices of {last:%B %Y}" in ended and tenant.domain in ended
        assert f"<td>{before:%B %Y}</td>" in earlier
        assert f'href="/customers/{tenant.customer_id}"' in earlier


async def test_a_token_that_only_reads_is_said_to(system: Embedded, tenant: Tenant) -> None:
    async with system.api(tenant.tokens["superuser"]) as api:
        made = await api.call("POST", "/tokens", {"name": "reader", "scope": "global:read"})
    path = f"/services/{tenant.service_id}"
    async with visitor(system) as someone:
        await someone.sign_in(made["access_token"])
        page = html.unescape((await someone.get(f"{path}/websockets")).text)
        assert "Your token only reads." in page and "your role is" not in page
        assert "Your token only reads." in (await someone.get(f"{path}/limits")).text
        answer = await someone.post(f"{path}/websockets/enable")
        assert answer.status_code == 403 and "This token only reads." in answer.text
        answer = await someone.get("/operations")
        assert answer.status_code == 403 and "for operators only" in answer.text
