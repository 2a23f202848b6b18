"""An operator looks as one customer of many, and at what belongs to none."""

import pytest

from handoff_console.pages.services import PER_PAGE
from support.console import Visitor, visitor
from support.embedded import Embedded, Tenant, make_customer, make_tenant

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
