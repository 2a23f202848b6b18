"""A browser's own WebSocket through the edge: it appears live, ticks past a minute, is ended from
the page, the browser sees the close code, and the invoice's line leads to it."""

import re
import time

import pytest
from playwright.async_api import Page, expect
from websockets.asyncio.client import connect

from support.browser import Window, browser, window
from support.embedded import Embedded, Tenant, make_tenant

pytestmark = pytest.mark.timeout(240)
DOMAIN = "localhost"
"""Chromium resolves it to loopback by itself, and lets a page of any origin connect there."""

OPEN = """
(port) => {
  window.ended = null;
  window.heard = [];
  window.tunnel = new WebSocket(`ws://localhost:${port}/`);
  window.tunnel.onmessage = (event) => window.heard.push(event.data);
  window.tunnel.onclose = (event) => { window.ended = [event.code, event.reason]; };
  return new Promise((resolve, reject) => {
    window.tunnel.onopen = () => { window.tunnel.send("hello"); resolve(true); };
    window.tunnel.onerror = () => reject(new Error("refused"));
  });
}
"""


async def test_a_browsers_websocket_from_its_opening_to_the_invoice(
    system: Embedded, echo_origin: int
) -> None:
    tenant = await make_tenant(system, origin_port=echo_origin, domain=DOMAIN)
    async with (
        browser() as chromium,
        window(chromium, system.api_url) as viewer,
        await chromium.new_context() as visitor,
    ):
        await viewer.sign_in_with_token(tenant.tokens["superuser"])
        await viewer.go("/connections?state=open")
        page = viewer.page
        await expect(page.locator("#c-none")).to_contain_text("No connection matches")

        site = await visitor.new_page()
        # A page of this machine, without a policy of ours: others may not reach into its network.
        await site.goto(f"{system.api_url}/healthz")
        assert await site.evaluate(OPEN, system.edge_port)
        await site.wait_for_function("window.heard.length === 1")

        row = page.locator("tbody tr[id^='c-0']")
        await expect(row).to_have_count(1, timeout=15_000)
        await expect(row).to_contain_text("open")
        assert await viewer.violations() == []
        await page.locator("tbody tr a").first.click()
        await expect(page.get_by_role("heading", level=1)).to_contain_text("open")
        await past_a_minute(page)
        assert await viewer.violations() == []

        await page.get_by_label("What its peers are told").fill("thank you")
        await page.get_by_role("button", name="End this connection").click()
        await viewer.agree()
        await site.wait_for_function("window.ended !== null")
        assert await site.evaluate("window.ended") == [1008, "thank you"]
        await expect(page.get_by_role("heading", level=1)).to_contain_text("closed", timeout=15_000)
        await expect(page.locator("main")).to_contain_text("1008")
        address = page.url.partition("?")[0]
        await the_invoice_leads_to(viewer, tenant, address)
        assert viewer.complaints == []


async def test_what_no_edge_ends_can_be_ended_again(system: Embedded, echo_origin: int) -> None:
    tenant = await make_tenant(system, origin_port=echo_origin)
    async with (
        browser() as chromium,
        window(chromium, system.api_url) as viewer,
        connect(f"ws://{tenant.domain}/", host="127.0.0.1", port=system.edge_port, proxy=None),
    ):
        page = viewer.page
        await viewer.sign_in_with_token(tenant.tokens["superuser"])
        await viewer.go("/connections")
        address = await page.locator("tbody tr[id^='c-0'] a").first.get_attribute("href")
        button = page.get_by_role("button", name="End this connection")
        heading = page.get_by_role("heading", level=1)
        # As if it had been asked for, by an edge that does not hear of it.
        await viewer.go(f"{address}?ending={int(time.time()) - 9}")
        await expect(heading).to_contain_text("ending…")
        await expect(button).to_be_hidden()
        await expect(heading).to_contain_text("still open", timeout=15_000)
        await button.click()
        await viewer.agree()
        await expect(heading).to_contain_text("closed", timeout=15_000)
        await expect(button).to_be_hidden()
        assert viewer.complaints == []


async def past_a_minute(page: Page) -> None:
    """The page itself goes from one minute to two, with nobody touching it."""
    minutes = page.locator(".stat", has_text="Minutes").locator("dd")
    await expect(minutes).to_contain_text(re.compile(r"^\s*1begun"))
    await expect(minutes).to_contain_text(re.compile(r"^\s*2begun"), timeout=90_000)


async def the_invoice_leads_to(viewer: Window, tenant: Tenant, address: str) -> None:
    page = viewer.page
    await viewer.go("/invoices")
    await page.get_by_role("link", name="This month, line by line").click()
    assert await viewer.violations() == []
    await (
        page.get_by_role("row").filter(has_text="connection time").get_by_role("link").first.click()
    )
    await expect(page.get_by_text("adds up")).to_be_visible()
    await page.get_by_role("link", name=re.compile("Connections of")).first.click()
    await page.wait_for_url(re.compile(f"service_id={tenant.service_id}"))
    path = re.sub(r"^https?://[^/]+", "", address)
    await expect(page.locator(f'a[href^="{path}"]').first).to_be_visible()
