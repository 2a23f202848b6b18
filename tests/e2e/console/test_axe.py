"""axe finds nothing on the pages that the other tests do not come to, nor any contrast that is too
low in the dark."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from handoff_common.log import Message
from handoff_common.log_sqlite import SqliteLog
from handoff_common.topics import CONNECTIONS
from support.browser import Window, browser, window
from support.embedded import Embedded, Tenant, make_tenant, shared
from support.parts.waiting import eventually

pytestmark = pytest.mark.timeout(180)
ELSEWHERE = {"services", "websockets", "connections", "usage", "invoices", "operations"}
"""Other tests look at these, in light."""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    """With a record that cannot be counted."""
    data = tmp_path_factory.mktemp("axe") / "data"
    data.mkdir()
    asyncio.run(park(data))
    with shared(data) as running:
        yield running


async def park(data: Path) -> None:
    log = await SqliteLog.open(data / "log.db")
    await log.append(CONNECTIONS.name, [Message("x", b"no event")])
    await log.close()


async def test_every_page_in_light_and_dark(system: Embedded, echo_origin: int) -> None:
    tenant = await make_tenant(system, origin_port=echo_origin)
    await used_and_refused(system, tenant)
    service = f"/services/{tenant.service_id}"
    customer = f"/customers/{tenant.customer_id}"
    async with system.api() as api:
        users = await api.pages(f"/v1/customers/{tenant.customer_id}/users")
        query = {"customer_id": tenant.customer_id}
        [invoice] = (await api.call("GET", "/v1/invoices", query=query))["data"]
        book = (await api.call("GET", "/v1/price-books"))["data"][0]
        await api.call("PUT", f"/service/{tenant.service_id}/version/1/clone")
    line = f"/invoices/{invoice['invoice_id']}/lines/1"
    own = {
        "/services": tenant.domain,
        "/services/new": "Make the service",
        service: "Limits per edge node",
        f"{service}/websockets": "What changes on the bill",
        f"{service}/versions/1": "Make a draft",
        f"{service}/versions/2": "Beside the active version 1",
        f"{service}/history": "before and after",
        "/connections": "The newest 100",
        "/connections/refused": "not_enabled",
        "/usage": "All of it in",
        "/invoices": "Expected at its end",
        line: "What it is made of",
        f"/users/{users[0]['id']}": users[0]["login"],
        "/account": "Tokens in force",
    }
    operators = {
        "/operations": "Reconciliation",
        "/operations/parked": "no event",
        "/customers/new": "New customer",
        customer: "Contracts",
        f"{customer}/pricing": "New terms",
        f"{customer}/users": "Add a user",
        f"/price-books/{book['price_book_id']}/versions/{book['version']}": book["name"],
        "/new-price-book": "currency",
    }
    async with browser() as chromium:
        async with signed_in(chromium, system, tenant.tokens["superuser"]) as superuser:
            await look(superuser, own)
        async with signed_in(chromium, system, system.operator_token) as operator:
            await look(operator, operators)


async def used_and_refused(system: Embedded, tenant: Tenant) -> None:
    """One connection that the bill has, and one handoff that was refused."""

    def client() -> connect:
        return connect(
            f"ws://{tenant.domain}/", host="127.0.0.1", port=system.edge_port, proxy=None
        )

    async with client() as socket:
        await socket.send("hello")
        await socket.recv()
    async with system.api(tenant.tokens["superuser"]) as api:
        await api.call("DELETE", f"/enabled-products/v1/websockets/services/{tenant.service_id}")
        with pytest.raises(InvalidStatus):
            async with client():
                pass

        async def counted() -> bool | None:
            refused = (await api.call("GET", "/v1/refusals"))["data"]
            costs = (await api.call("GET", f"/v1/customers/{tenant.customer_id}/costs"))["data"]
            return bool(refused and any(one["minutes"] for one in costs)) or None

        await eventually(counted, "both are counted")


@asynccontextmanager
async def signed_in(on: Browser, system: Embedded, token: str) -> AsyncIterator[Window]:
    async with window(on, system.api_url) as someone:
        await someone.sign_in_with_token(token)
        yield someone


async def look(someone: Window, pages: Mapping[str, str]) -> None:
    """pages: path → what is shown where the page is what it is looked at for."""
    for path, text in pages.items():
        await someone.page.emulate_media(color_scheme="light")
        assert await someone.go(path) == 200, path
        assert text in await someone.page.content(), path
        if path.rpartition("/")[2] not in ELSEWHERE:
            assert await someone.violations() == [], path
        await someone.page.emulate_media(color_scheme="dark")
        assert await someone.violations("color-contrast") == [], f"{path}, dark"
    assert someone.complaints == []
