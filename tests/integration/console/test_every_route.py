"""What holds for every address of the web interface, walked route by route: no form is taken from
another site, no role gets what it may not have, no customer sees another, no address is a fault."""

import re
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest
from starlette.routing import Route

from handoff_console.app import PAGES
from support.console import Visitor, visitor
from support.embedded import Embedded, Tenant, make_tenant

pytestmark = [pytest.mark.timeout(180), pytest.mark.xdist_group("console-routes")]

ROUTES = [route for module in PAGES for route in module.ROUTES]
OPEN = {"/sign-in", "/sign-out"}
NOBODYS = "00000000-0000-7000-8000-000000000000"


def own(tenant: Tenant) -> Mapping[str, str]:
    """What stands for the names in the addresses: a customer's own things, where it has such."""
    return {
        "customer_id": tenant.customer_id,
        "service_id": tenant.service_id,
        "number": "1",
        "version": "1",
        "kind": "backends",
        "name": "origin",
        "partition": "0",
        "offset": "0",
        "invoice_id": "1",
        "book_id": "standard",
    }


def address(route: Route, values: Mapping[str, str]) -> str:
    return re.sub(r"{(\w+)(:\w+)?}", lambda found: values.get(found[1], NOBODYS), route.path)


def forms() -> Iterator[Route]:
    yield from (route for route in ROUTES if "POST" in (route.methods or ()))


def pages() -> Iterator[Route]:
    yield from (route for route in ROUTES if "GET" in (route.methods or ()))


async def signed_in(someone: Visitor, token: str, customer_id: str = "") -> str:
    """The session's cookie. customer_id: that an operator chooses."""
    await someone.get("/sign-in")
    assert (await someone.post("/sign-in", token=token)).status_code == 303
    await someone.get("/account")
    if customer_id:
        await someone.post("/customer-shown", customer_id=customer_id)
    return "; ".join(f"{one.name}={one.value}" for one in someone.http.cookies.jar)


def asked(system: Embedded, method: str, target: str, cookie: str, body: str = "") -> int:
    """The status for a target that goes over the wire as it is written here."""
    connection = HTTPConnection(urlsplit(system.api_url).netloc, timeout=20)
    headers = {"Cookie": cookie, "Content-Type": "application/x-www-form-urlencoded"}
    try:
        connection.request(method, target, body or None, headers | {"Accept": "text/html"})
        answer = connection.getresponse()
        assert "text/html" in answer.headers.get("content-type", "text/html"), target
        return answer.status
    finally:
        connection.close()


async def test_no_form_is_taken_without_its_session_s_token(
    system: Embedded, tenant: Tenant
) -> None:
    async with visitor(system) as someone, visitor(system) as nobody:
        await signed_in(someone, system.operator_token, tenant.customer_id)
        await nobody.get("/sign-in")
        for route in forms():
            path = address(route, own(tenant))
            for forged in ({}, {"csrf": ""}, {"csrf": nobody.csrf}):
                answer = await someone.http.post(path, data=forged)
                assert answer.status_code == 403 and "expired" in answer.text, (path, forged)
            answer = await someone.http.post(
                path, data={"csrf": someone.csrf}, headers={"Sec-Fetch-Site": "same-site"}
            )
            assert answer.status_code == 403, path
            answer = await nobody.http.post(path, data={"csrf": "x" * 43})
            if route.path in OPEN:
                assert answer.status_code == 403, path
            else:
                assert answer.headers["location"] == "/sign-in", path


async def test_no_form_does_what_the_role_may_not(system: Embedded, tenant: Tenant) -> None:
    """What a page does not offer is sent all the same."""
    for role in ("user", "billing"):
        async with visitor(system) as someone:
            await signed_in(someone, tenant.tokens[role])
            for route in forms():
                if route.path in OPEN or route.path.startswith("/account/"):
                    continue
                answer = await someone.post(address(route, own(tenant)))
                assert answer.status_code == 403, (role, route.path)


async def test_no_address_leads_to_another_customer(system: Embedded, tenant: Tenant) -> None:
    other = await make_tenant(system, origin_port=9, domain=f"other.{tenant.domain}", enable=False)
    async with visitor(system) as someone:
        await signed_in(someone, tenant.tokens["superuser"])
        for route in ROUTES:
            if "service_id" not in route.param_convertors or route.path.endswith("/versions"):
                # The list of versions only leads on to one of them.
                continue
            path = address(route, own(other))
            writes = "POST" in (route.methods or ())
            answer = await (someone.post(path) if writes else someone.get(path))
            assert answer.status_code == 404 and other.domain not in answer.text, path


FAR = (
    "9999-12-31T23:59:59",
    "9999-12-31T23:59-14:00",
    "0001-01-01T00:00+14:00",
    "2026-13-01",
    "\0",
)


@pytest.mark.parametrize("at", FAR)
async def test_no_time_is_a_fault(system: Embedded, tenant: Tenant, at: str) -> None:
    async with visitor(system) as someone:
        await signed_in(someone, system.operator_token, tenant.customer_id)
        for path in ("/usage", "/usage.csv", "/connections"):
            for name in ("from", "to"):
                for by in ("hour", "day", "month"):
                    answer = await someone.http.get(path, params={name: at, "by": by})
                    assert answer.status_code in (200, 400), (path, name, by)
        # So far in the future it would be no end at all.
        customer = f"/customers/{tenant.customer_id}"
        answer = await someone.post(f"{customer}/contracts", starts_at=at, ends_at=at)
        assert answer.status_code == 422 and 'aria-invalid="true"' in answer.text


async def test_no_text_is_a_fault(system: Embedded, tenant: Tenant) -> None:
    async with visitor(system) as someone:
        await signed_in(someone, system.operator_token, tenant.customer_id)
        for document in ('{"name": "\\ud800"}', '{"\\ud800": 1}', "[" * 2_000, '{"a": 1e999}'):
            answer = await someone.post("/price-books", document=document)
            assert answer.status_code == 422, document[:20]
            assert "Price book, JSON" in answer.text, document[:20]
        answer = await someone.post(f"/customers/{tenant.customer_id}", name="x", etag="é")
        assert answer.status_code == 422


@pytest.mark.parametrize("odd", ["%2E", "%2E%2E", "%00", "%FF", "%ED%A0%80", "9" * 5_000])
async def test_no_address_is_a_fault(system: Embedded, tenant: Tenant, odd: str) -> None:
    """Each name in each address as no link of ours has it; the answer says so on a page."""
    async with visitor(system) as someone:
        cookie = await signed_in(someone, system.operator_token, tenant.customer_id)
        for route in ROUTES:
            method = "POST" if "POST" in (route.methods or ()) else "GET"
            for name in route.param_convertors:
                target = address(route, {**own(tenant), name: odd})
                status = asked(system, method, target, cookie, f"csrf={someone.csrf}")
                assert status < 500, (method, target[:200], status)
