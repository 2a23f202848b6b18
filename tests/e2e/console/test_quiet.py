"""A live page keeps still under the eyes of who reads it: what comes and what goes moves no row
until its viewer asks for it."""

from contextlib import AsyncExitStack

import pytest
from playwright.async_api import Page, expect
from websockets.asyncio.client import ClientConnection, connect

from support.browser import browser, window
from support.embedded import Embedded, Tenant, make_tenant

pytestmark = pytest.mark.timeout(180)
STILL = 0.001
"""A layout shift that nobody sees."""
WATCH = """
window.shifted = 0;
new PerformanceObserver((list) => {
  for (const one of list.getEntries()) if (!one.hadRecentInput) window.shifted += one.value;
}).observe({type: "layout-shift", buffered: true});
"""


async def opened(
    system: Embedded, tenant: Tenant, clients: AsyncExitStack, count: int
) -> list[ClientConnection]:
    return [
        await clients.enter_async_context(
            connect(f"ws://{tenant.domain}/", host="127.0.0.1", port=system.edge_port, proxy=None)
        )
        for _ in range(count)
    ]


async def ids(page: Page) -> list[str]:
    found: list[str] = await page.evaluate(
        "[...document.querySelectorAll('tbody tr')].map((row) => row.id)"
    )
    return found


@pytest.mark.parametrize("phone", [False, True], ids=["desk", "phone"])
async def test_rows_stay_where_they_are_until_they_are_asked_for(
    system: Embedded, echo_origin: int, phone: bool
) -> None:
    tenant = await make_tenant(system, origin_port=echo_origin)
    async with (
        browser() as chromium,
        window(chromium, system.api_url, phone=phone) as viewer,
        AsyncExitStack() as clients,
    ):
        page = viewer.page
        await page.add_init_script(WATCH)
        await viewer.sign_in_with_token(tenant.tokens["superuser"])
        await viewer.go("/connections?state=open")
        rows = page.locator("tbody tr[id^='c-0']")
        first = await opened(system, tenant, clients, 3)
        # Nothing is there that they could push away: they are shown at once.
        await expect(rows.first).to_be_visible()
        update = page.get_by_role("button", name="Update the list")
        # Those that came by ones are asked for.
        await expect(rows.or_(update).first).to_be_visible()
        await viewer.go("/connections?state=open")
        await expect(rows).to_have_count(3)
        await expect(page.get_by_text("Live", exact=True)).to_be_visible()
        before = await ids(page)
        await expect(update).to_be_hidden()

        await opened(system, tenant, clients, 2)
        await expect(update).to_have_text("Update the list: 2 newer")
        await first[1].close()
        await expect(update).to_have_text("Update the list: 2 newer, 1 off it")
        assert await ids(page) == before, "no row has moved"
        await expect(rows.filter(has_text="off the list")).to_have_count(1)
        await expect(page.locator(".stat", has_text="Open now")).to_contain_text("4")
        assert await viewer.violations() == []
        assert await page.evaluate("window.shifted") < STILL

        await update.press("Enter")
        await expect(rows).to_have_count(4)
        await expect(update).to_be_hidden()
        await expect(page.get_by_role("region", name="Connections")).to_be_focused()
        await expect(rows.filter(has_text="off the list")).to_have_count(0)
        assert (await ids(page))[2:] == [one for one in before if one in (await ids(page))]
        assert viewer.complaints == []


async def test_a_page_that_nobody_sees_is_up_to_date_when_it_is_seen(
    system: Embedded, echo_origin: int
) -> None:
    tenant = await make_tenant(system, origin_port=echo_origin)
    async with (
        browser() as chromium,
        window(chromium, system.api_url) as viewer,
        AsyncExitStack() as clients,
    ):
        page = viewer.page
        await viewer.sign_in_with_token(tenant.tokens["superuser"])
        await opened(system, tenant, clients, 1)
        await viewer.go("/connections")
        rows = page.locator("tbody tr[id^='c-0']")
        await expect(rows).to_have_count(1)
        await opened(system, tenant, clients, 1)
        await expect(page.get_by_role("button", name="Update the list")).to_be_visible()
        await seen(page, False)
        await expect(rows).to_have_count(2)
        await opened(system, tenant, clients, 1)
        await page.wait_for_timeout(1_500)
        await expect(rows).to_have_count(2)
        await seen(page, True)
        await expect(rows).to_have_count(3)
        await expect(page.get_by_role("button", name="Update the list")).to_be_hidden()
        # From now on somebody reads it.
        await opened(system, tenant, clients, 1)
        await expect(page.get_by_role("button", name="Update the list")).to_be_visible()
        await expect(rows).to_have_count(3)


async def test_operations_stays_where_it_was_moved_to(system: Embedded) -> None:
    async with browser() as chromium, window(chromium, system.api_url, phone=True) as operator:
        page = operator.page
        await operator.sign_in_with_token(system.operator_token)
        await operator.go("/operations")
        table = page.get_by_role("group", name="Edges", exact=True)
        await expect(table).to_be_visible()
        moved = await table.evaluate(
            "(one) => { one.scrollLeft = 60; one.focus(); return one.scrollLeft; }"
        )
        assert moved == 60
        at = page.locator("p.live time")
        before = await at.inner_text()
        # The figures go on, also while the keyboard is in them.
        await expect(at).not_to_have_text(before, timeout=15_000)
        assert await table.evaluate("(one) => one.scrollLeft") == 60
        await expect(table).to_be_focused()
        assert operator.complaints == []


async def test_more_tabs_than_a_browser_has_connections(system: Embedded, echo_origin: int) -> None:
    """Six to a server: one that nobody sees must hold none of them."""
    tenant = await make_tenant(system, origin_port=echo_origin)
    async with (
        browser() as chromium,
        window(chromium, system.api_url) as viewer,
        AsyncExitStack() as clients,
    ):
        await viewer.sign_in_with_token(tenant.tokens["superuser"])
        tabs = [viewer.page, *[await viewer.context.new_page() for _ in range(7)]]
        for number, tab in enumerate(tabs):
            tab.set_default_timeout(15_000)
            await tab.goto(f"{system.api_url}/connections")
            await expect(tab.get_by_text("No connections yet")).to_be_visible()
            await expect(tab.get_by_text("Live", exact=True)).to_be_visible()
            # All pages of a browser without a screen count as seen.
            await seen(tab, number == len(tabs) - 1)
        await opened(system, tenant, clients, 1)
        first, last = tabs[0], tabs[-1]
        await expect(last.locator("tbody tr[id^='c-0']")).to_have_count(1)
        await expect(first.locator("tbody tr[id^='c-0']")).to_have_count(0)
        await seen(last, False)
        await seen(first, True)
        await expect(first.locator("tbody tr[id^='c-0']")).to_have_count(1)
        assert viewer.complaints == []


async def seen(page: Page, whether: bool) -> None:
    """Somebody turns to a tab, or away from it."""
    await page.evaluate(
        "(hidden) => {"
        "Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});"
        "document.dispatchEvent(new Event('visibilitychange')); }",
        not whether,
    )
