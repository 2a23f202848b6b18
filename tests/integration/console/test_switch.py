"""What the pages say of the WebSockets switch: what is lacking, what it costs, where to look."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from handoff_config.settings import ConfigSettings
from support.console import Visitor, console_over, visitor
from support.embedded import Embedded, Tenant, make_customer, make_tenant, make_tokens

pytestmark = [pytest.mark.timeout(120), pytest.mark.xdist_group("console-switch")]
CONTACT = ConfigSettings().sales_contact
ENDED: dict[str, Any] = {"ends_at": "2026-01-01T00:00:00Z", "starts_at": "2025-01-01T00:00:00Z"}
UNTOLD = "cannot be told just now"


@asynccontextmanager
async def signed_in(system: Embedded, token: str, chosen: str = "") -> AsyncIterator[Visitor]:
    """chosen: the customer that an operator looks as."""
    async with visitor(system) as someone:
        await someone.get("/sign-in")
        assert (await someone.post("/sign-in", token=token)).status_code == 303
        await someone.get("/account")
        if chosen:
            assert (await someone.post("/customer-shown", customer_id=chosen)).status_code == 303
        yield someone


async def drafted(system: Embedded, **backend: Any) -> Tenant:
    """A customer whose service has a draft, and no active version."""
    customer_id = await make_customer(system)
    tokens = await make_tokens(system, customer_id)
    async with system.api(tokens["engineer"]) as api:
        service_id = (await api.call("POST", "/service", {"name": "chat", "type": "vcl"}))["id"]
        draft = f"/service/{service_id}/version/1"
        domain = f"{service_id.lower()}.example.com"
        await api.call("POST", f"{draft}/domain", {"name": domain})
        body = {"name": "origin", "address": "127.0.0.1", "port": 9} | backend
        await api.call("POST", f"{draft}/backend", body)
    return Tenant(customer_id, service_id, domain, tokens)


class Refusing(httpx.AsyncHTTPTransport):
    """The way to the APIs, on which one path is answered otherwise."""

    def __init__(self, path: str, status: int, code: str = "internal") -> None:
        super().__init__()
        self._path = path
        self._answer = (status, {"type": f"urn:handoff:error:{code}", "title": "No"})

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path != self._path:
            return await super().handle_async_request(request)
        return httpx.Response(self._answer[0], json=self._answer[1])


@pytest.mark.parametrize("role", ["engineer", "billing", "superuser"])
async def test_who_may_switch_it_or_read_the_bill_sees_the_cost(
    system: Embedded, tenant: Tenant, role: str
) -> None:
    switch = f"/services/{tenant.service_id}/websockets"
    alone = role == "engineer"
    async with signed_in(system, tenant.tokens[role]) as someone:
        page = await someone.get(switch)
        assert "What it will cost" in page.text
        assert ("</strong> a month more, for 100 connections" in page.text) is not alone
        part = await someone.get(f"{switch}/cost?connections=7&region=anzac")
        assert part.status_code == 200
        assert ("</strong> a month, for 7 connections" in part.text) is alone
        assert ("A month of them alone" in part.text) is alone
        assert "WebSocket connection time, anzac" in part.text


async def test_others_see_no_cost(system: Embedded, tenant: Tenant) -> None:
    switch = f"/services/{tenant.service_id}/websockets"
    async with signed_in(system, tenant.tokens["user"]) as someone:
        assert "What it will cost" not in (await someone.get(switch)).text
        assert (await someone.get(f"{switch}/cost")).status_code == 403


async def test_who_is_not_entitled_is_told_whom_to_contact(system: Embedded) -> None:
    tenant = await make_tenant(system, origin_port=9, enable=False, **ENDED)
    path = f"/services/{tenant.service_id}"
    async with signed_in(system, tenant.tokens["superuser"]) as someone:
        for page in (await someone.get(path), await someone.get(f"{path}/websockets")):
            assert "no contract for websockets is in force" in page.text
            assert f"contact {CONTACT}" in page.text
        async with system.api(tenant.tokens["superuser"]) as api:
            await api.call("PUT", f"/service/{tenant.service_id}/version/1/deactivate")
        page = await someone.get(f"{path}/websockets")
        assert "No version is active." in page.text
        assert "It can be switched on now" not in page.text


async def test_the_draft_is_checked_where_nothing_is_active(system: Embedded) -> None:
    tenant = await drafted(system, max_conn=300)
    path = f"/services/{tenant.service_id}"
    async with signed_in(system, tenant.tokens["engineer"]) as someone:
        page = (await someone.get(f"{path}/websockets")).text
        assert "1 setting of draft 1 stands against it." in page and "Mend in draft 1" in page
        assert "It can be switched on now" not in page and "Switch WebSockets on" not in page
        assert "1 setting of draft 1 stands against it." in (await someone.get(path)).text
        async with system.api(tenant.tokens["engineer"]) as api:
            backend = f"/service/{tenant.service_id}/version/1/backend/origin"
            await api.call("PUT", backend, {"max_conn": None})
        page = (await someone.get(f"{path}/websockets")).text
        assert "Nothing stands against it.</strong> Draft 1 was checked." in page
        assert "It can be switched on now" in page and "Switch WebSockets on" in page
        assert "Ready to be switched on" in (await someone.get(path)).text


async def test_the_version_that_was_checked_is_named(system: Embedded, tenant: Tenant) -> None:
    switch = f"/services/{tenant.service_id}/websockets"
    async with signed_in(system, tenant.tokens["user"]) as someone:
        assert "Version 1 was checked." in (await someone.get(switch)).text
        async with system.api(tenant.tokens["superuser"]) as api:
            await api.call("PUT", f"/service/{tenant.service_id}/version/1/deactivate")
        page = (await someone.get(switch)).text
        assert "No version is active." in page and " 1 was checked." in page


async def test_on_says_what_keeps_requests_from_being_handed_off(system: Embedded) -> None:
    tenant = await drafted(system)
    path = f"/services/{tenant.service_id}"
    handed_off = "Upgrade requests are handed off"
    async with signed_in(system, tenant.tokens["superuser"]) as someone:
        await someone.get(f"{path}/websockets")
        assert (await someone.post(f"{path}/websockets/enable")).status_code == 303
        page = (await someone.get(f"{path}/websockets")).text
        assert "WebSockets is on, but nothing is handed off: no version is active." in page
        assert handed_off not in page
        nothing = "Nothing is handed off: no version is active."
        for place in (f"{path}/websockets", path, "/services"):
            page = (await someone.get(place)).text
            assert nothing in page and handed_off not in page, place
        async with system.api(tenant.tokens["superuser"]) as api, system.api() as operator:
            backend = f"/service/{tenant.service_id}/version/1/backend/origin"
            await api.call("PUT", backend, {"max_conn": 300})
            assert "Mend in draft 1" in (await someone.get(f"{path}/websockets")).text
            await api.call("PUT", backend, {"max_conn": None})
            await api.call("PUT", f"/service/{tenant.service_id}/version/1/activate")
            assert handed_off in (await someone.get(path)).text
            assert "Nothing is handed off" not in (await someone.get("/services")).text
            customer = f"/v1/customers/{tenant.customer_id}"
            await operator.call("PATCH", customer, {"suspended": True})
        for place in (f"{path}/websockets", path, "/services"):
            page = (await someone.get(place)).text
            assert "Nothing is handed off: the account of customer" in page, place
            assert "is suspended" in page and handed_off not in page, place


async def test_who_switched_it_is_found_behind_other_changes(
    system: Embedded, tenant: Tenant
) -> None:
    async with system.api(tenant.tokens["superuser"]) as api:
        await api.call("PUT", f"/enabled-products/v1/websockets/services/{tenant.service_id}")
        for number in range(205):
            await api.call("PUT", f"/service/{tenant.service_id}", {"comment": str(number)})
    async with signed_in(system, tenant.tokens["user"]) as someone:
        page = (await someone.get(f"/services/{tenant.service_id}/websockets")).text
    assert f"superuser@{tenant.customer_id}.example" in page and "Nobody yet." not in page


@pytest.mark.parametrize(
    ("status", "code", "text"),
    [
        (500, "internal", "The cost cannot be told just now."),
        (409, "in_force", "The cost cannot be told just now."),
        (409, "no_price_book", "No prices are in force."),
    ],
)
async def test_prices_that_are_away_are_not_missing(
    system: Embedded, tenant: Tenant, tmp_path: Path, status: int, code: str, text: str
) -> None:
    refusing = Refusing("/v1/estimates", status, code)
    switch = f"/services/{tenant.service_id}/websockets"
    async with console_over(
        system.api_url, tmp_path, tenant.tokens["superuser"], refusing
    ) as someone:
        for path in (switch, f"{switch}/cost"):
            page = await someone.get(path)
            assert page.status_code == 200 and text in page.text, path


async def test_a_cost_that_cannot_be_told_is_said_so(
    system: Embedded, tenant: Tenant, tmp_path: Path
) -> None:
    token = tenant.tokens["superuser"]
    pages = ("/services", f"/services/{tenant.service_id}", "/connections")
    refusing = Refusing(f"/v1/customers/{tenant.customer_id}/costs", 500)
    async with console_over(system.api_url, tmp_path, token, refusing) as someone:
        for path in pages:
            page = await someone.get(path)
            assert page.status_code == 200 and UNTOLD in page.text, path
            assert "<dt>Cost so far</dt><dd>–" in page.text, path
        assert '<th class="num">Cost</th>' in (await someone.get("/services")).text
    async with signed_in(system, token) as someone:
        for path in pages:
            assert UNTOLD not in (await someone.get(path)).text, path


async def test_another_customer_s_service_has_no_wrong_figures(
    system: Embedded, tenant: Tenant
) -> None:
    """An operator sees everyone's; the pages are about the customer that was chosen."""
    other = await make_customer(system, "Other")
    base = f"/services/{tenant.service_id}"
    version = "/versions/1"
    paths = ["", "/websockets", "/websockets/cost", version, f"{version}/backends/origin"]
    paths += ["/tester", "/history", "/limits"]
    for chosen, status in ((other, 404), (tenant.customer_id, 200)):
        async with signed_in(system, system.operator_token, chosen) as operator:
            for path in paths:
                page = await operator.get(base + path)
                assert page.status_code == status, path
                if status == 404:
                    assert f"customer {tenant.customer_id}" in page.text, path


async def test_who_may_not_mend_is_led_to_the_field_all_the_same(system: Embedded) -> None:
    tenant = await make_tenant(system, origin_port=9, enable=False, backend={"max_conn": 300})
    async with system.api(tenant.tokens["engineer"]) as api:
        await api.call("PUT", f"/enabled-products/v1/ngwaf/services/{tenant.service_id}")
    base = f"/services/{tenant.service_id}"
    async with signed_in(system, tenant.tokens["user"]) as someone:
        page = (await someone.get(f"{base}/websockets")).text
        against = "1 setting of version 1 and the next-gen WAF stand against it."
        assert against in page and against in (await someone.get(base)).text
        field = f"{base}/versions/1/backends/origin"
        assert f'href="{field}#field-max_conn"' in page and "Mend in" not in page
        shown = (await someone.get(field)).text
        assert 'id="field-max_conn"' in shown and "<fieldset disabled>" in shown


async def test_a_version_s_violations_lead_to_their_fields(
    system: Embedded, tenant: Tenant
) -> None:
    async with system.api(tenant.tokens["engineer"]) as api:
        await api.call("PUT", f"/enabled-products/v1/websockets/services/{tenant.service_id}")
        service = f"/service/{tenant.service_id}"
        await api.call("PUT", f"{service}/version/1/clone")
        await api.call("PUT", f"{service}/version/2/backend/origin", {"max_conn": 300})
    version = f"/services/{tenant.service_id}/versions/2"
    async with signed_in(system, tenant.tokens["user"]) as someone:
        page = (await someone.get(version)).text
        assert f'href="{version}/backends/origin#field-max_conn"' in page
