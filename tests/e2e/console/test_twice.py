"""A button that is pressed again while the answer is on its way acts once."""

from urllib.parse import urlsplit

import pytest
from playwright.async_api import expect

from support.browser import browser, window
from support.embedded import Embedded, make_tenant
from support.parts.proxy import Proxy
from support.parts.waiting import eventually

pytestmark = pytest.mark.timeout(240)


async def test_a_form_that_is_sent_twice_is_sent_once(system: Embedded) -> None:
    tenant = await make_tenant(system, origin_port=9, enable=False)
    async with (
        Proxy(int(urlsplit(system.api_url).port or 0)) as network,
        browser() as chromium,
        window(chromium, f"http://127.0.0.1:{network.port}") as viewer,
        system.api(tenant.tokens["user"]) as api,
    ):
        await viewer.sign_in_with_token(tenant.tokens["superuser"])
        page = viewer.page

        async def made(name: str) -> bool:
            services = await api.call("GET", "/service")
            return [one["name"] for one in services].count(name) == 1

        await viewer.go("/services/new")
        await page.get_by_label("Name").fill("once")
        button = page.get_by_role("button", name="Make the service")
        box = await button.bounding_box()
        assert box is not None
        at = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        network.blackhole("to_client")
        # The mouse itself: what looks for a button waits until a page has come.
        await page.mouse.click(*at)
        await eventually(lambda: made("once"), "the service is made")
        await page.mouse.click(*at)
        network.restore()
        heading = page.get_by_role("heading", level=1)
        await expect(heading).to_contain_text("once")
        assert await made("once")

        # The way back leads to a form that can be sent.
        await page.go_back()
        await page.get_by_label("Name").fill("another")
        await button.click()
        await expect(heading).to_contain_text("another")
        assert await made("another") and viewer.complaints == []
