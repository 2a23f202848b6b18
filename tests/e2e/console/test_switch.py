"""The WebSockets switch, in a real browser: on a clean service, and on one with violations that are
mended by following the links."""

import re

import pytest
from playwright.async_api import expect

from support.browser import browser, window
from support.embedded import Embedded, make_tenant

pytestmark = pytest.mark.timeout(180)


async def test_websockets_is_enabled_on_a_clean_service(system: Embedded, echo_origin: int) -> None:
    tenant = await make_tenant(system, origin_port=echo_origin, enable=False)
    async with (
        browser() as chromium,
        window(chromium, system.api_url) as superuser,
        window(chromium, system.api_url) as user,
    ):
        await superuser.sign_in_with_token(tenant.tokens["superuser"])
        page = superuser.page
        await page.get_by_role("link", name=tenant.domain).click()
        await page.get_by_role("link", name="WebSockets", exact=True).click()
        await expect(page.get_by_role("heading", name=re.compile("WebSockets is"))).to_contain_text(
            "off"
        )
        await expect(page.get_by_text("What changes on the bill")).to_be_visible()
        await expect(page.locator("#cost")).to_contain_text("a month more, for 100 connections")
        await page.get_by_label("Connections open around the clock").fill("1000")
        await expect(page.locator("#cost")).to_contain_text("1\u202f000 connections")
        cost = page.locator("#cost")
        await expect(cost).to_contain_text("WebSocket connection time, usa")
        await page.get_by_label("Region").select_option("anzac")
        await expect(cost).to_contain_text("WebSocket connection time, anzac")
        await expect(cost).not_to_contain_text("usa")
        assert await superuser.violations() == []
        await page.get_by_role("button", name="Switch WebSockets on").click()
        await expect(page.locator("#notices")).to_contain_text("WebSockets is on")
        await expect(page.get_by_role("heading", name=re.compile("WebSockets is"))).to_contain_text(
            "on"
        )
        history = page.get_by_role("region", name="Changes")
        await expect(history).to_contain_text(f"superuser@{tenant.customer_id}.example")

        await user.sign_in_with_token(tenant.tokens["user"])
        await user.go(f"/services/{tenant.service_id}/websockets")
        await expect(user.page.get_by_text("You may not switch it.")).to_be_visible()
        await expect(user.page.get_by_text("Switch it off")).to_have_count(0)

        await page.get_by_text("Switch it off").click()
        await page.get_by_role("button", name="Switch WebSockets off").click()
        await superuser.agree()
        await expect(page.locator("#notices")).to_contain_text("WebSockets is off")
        assert superuser.complaints == user.complaints == []


async def test_three_violations_are_mended_from_their_links(
    system: Embedded, echo_origin: int
) -> None:
    tenant = await make_tenant(
        system,
        origin_port=echo_origin,
        enable=False,
        backend={"max_conn": 300, "shield": "amsterdam-nl", "between_bytes_timeout": 20_000},
    )
    switch = f"/services/{tenant.service_id}/websockets"
    async with browser() as chromium, window(chromium, system.api_url) as engineer:
        await engineer.sign_in_with_token(tenant.tokens["engineer"])
        await engineer.go(switch)
        page = engineer.page
        await expect(page.get_by_text("3 settings of version 1 stand against it")).to_be_visible()
        await expect(page.get_by_role("button", name="Switch WebSockets on")).to_have_count(0)
        assert await engineer.violations() == []

        for field, value in (
            ("max_conn", ""),
            ("shield", ""),
            ("between_bytes_timeout", "10000"),
        ):
            await engineer.go(switch)
            row = page.get_by_role("row").filter(has_text=field)
            await row.get_by_text(re.compile("Mend in")).click()
            await page.wait_for_url(re.compile(f"/backends/origin#field-{field}$"))
            box = page.get_by_label(field, exact=True)
            await expect(box).to_be_focused()
            await box.fill(value)
            await page.get_by_role("button", name="Save").click()
            await expect(page.locator("#notices")).to_contain_text("The backend is changed")

        await engineer.go(switch)
        await page.get_by_role("link", name="look at it and activate it").click()
        differences = page.get_by_role("region", name="Beside the active version 1")
        await expect(differences).to_contain_text("max_conn")
        await page.get_by_role("button", name="Activate version 2").click()
        await engineer.agree()
        await expect(page.locator("#notices")).to_contain_text("Version 2 is active")
        await engineer.go(switch)
        await page.get_by_role("button", name="Switch WebSockets on").click()
        await expect(page.locator("#notices")).to_contain_text("WebSockets is on")

        # While it is on, what would stop a draft leads to its field as well.
        async with system.api(tenant.tokens["engineer"]) as api:
            service = f"/service/{tenant.service_id}"
            draft = (await api.call("PUT", f"{service}/version/2/clone"))["number"]
            await api.call(
                "PUT", f"{service}/version/{draft}/backend/origin", {"auto_loadbalance": True}
            )
        await engineer.go(f"/services/{tenant.service_id}/versions/{draft}")
        await expect(page.get_by_role("button", name="Activate version 3")).to_be_disabled()
        await page.get_by_role("link", name="backend origin").click()
        await expect(page.get_by_label("auto_loadbalance")).to_be_focused()
        assert engineer.complaints == []
