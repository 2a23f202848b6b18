"""The viewer's own time stands in the tip of each time: under the pointer, by the keyboard, at a
tap."""

import re
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from playwright.async_api import Locator, Page, expect
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from support.browser import Window, browser, window
from support.embedded import Embedded, make_tenant
from support.parts.waiting import eventually

pytestmark = pytest.mark.timeout(180)
ZONE = "Asia/Tokyo"


def local(attribute: str) -> re.Pattern[str]:
    """Beginning and end of how an instant reads there."""
    at = datetime.fromisoformat(attribute).astimezone(ZoneInfo(ZONE))
    return re.compile(rf"^\w+,? {at.day} {at:%B %Y} at {at:%H:%M:%S} GMT\+9$")


async def tells(page: Page, selector: str) -> None:
    """The tip has the time of the first such element."""
    attribute = await page.locator(selector).first.get_attribute("datetime")
    assert attribute is not None
    tip = page.get_by_role("tooltip")
    await expect(tip).to_have_text(local(attribute))
    box, size = await tip.bounding_box(), page.viewport_size
    assert box is not None and size is not None
    assert box["x"] >= 0 and box["x"] + box["width"] <= size["width"]
    assert box["y"] >= 0 and box["y"] + box["height"] <= size["height"]


async def test_by_pointer_and_by_keyboard(system: Embedded, echo_origin: int) -> None:
    tenant = await make_tenant(system, origin_port=echo_origin)
    async with (
        browser() as chromium,
        window(chromium, system.api_url, timezone=ZONE) as viewer,
        connect(f"ws://{tenant.domain}/", host="127.0.0.1", port=system.edge_port, proxy=None),
    ):
        page = viewer.page
        tip = page.get_by_role("tooltip")
        await viewer.sign_in_with_token(tenant.tokens["superuser"])

        # A time that is a link.
        await viewer.go("/usage")
        times = page.locator("tbody time")
        await expect(times.first).to_be_visible()
        await times.first.hover()
        await tells(page, "tbody time")
        await page.get_by_role("heading", level=1).hover()
        await expect(tip).to_be_hidden()
        await by_keyboard(page, page.locator("tbody a:has(time)").first)
        await tells(page, "tbody time")
        await expect(page.locator(":focus")).to_have_accessible_description(re.compile("GMT"))
        assert await viewer.violations() == []
        await page.keyboard.press("Escape")
        await expect(tip).to_be_hidden()
        await expect(page.locator("tbody [tabindex]")).to_have_count(0)

        # A row whose link is another.
        await viewer.go("/connections")
        row = page.locator("tbody tr[id^='c-0']")
        await expect(row).to_have_count(1)
        await by_keyboard(page, row.get_by_role("link").first)
        await tells(page, "tbody time")
        await expect(page.locator("tbody [tabindex]")).to_have_count(0)

        # A time by itself, on a page that changes under it.
        await row.get_by_role("link").first.press("Enter")
        alone = page.locator("dl.facts time").first
        await expect(page.get_by_text("Live", exact=True)).to_be_visible()
        await by_keyboard(page, alone)
        await tells(page, "dl.facts time")
        await page.wait_for_timeout(2_500)
        await expect(alone).to_be_focused()
        await tells(page, "dl.facts time")
        assert viewer.complaints == []


async def by_keyboard(page: Page, wanted: Locator) -> None:
    """With the Tab key, from where the focus is."""
    for _ in range(60):
        await page.keyboard.press("Tab")
        if await wanted.evaluate("(one) => one === document.activeElement"):
            return
    raise AssertionError("the Tab key does not come there")


async def test_at_a_tap(system: Embedded) -> None:
    tenant = await make_tenant(system, origin_port=9, enable=False)
    with pytest.raises(InvalidStatus):
        async with connect(
            f"ws://{tenant.domain}/", host="127.0.0.1", port=system.edge_port, proxy=None
        ):
            pass
    async with (
        browser() as chromium,
        window(chromium, system.api_url, phone=True, timezone=ZONE) as viewer,
        system.api(tenant.tokens["user"]) as api,
    ):

        async def counted() -> bool | None:
            return bool((await api.call("GET", "/v1/refusals"))["data"]) or None

        await eventually(counted, "the refusal is counted")
        page = viewer.page
        await viewer.sign_in_with_token(tenant.tokens["user"])
        await viewer.go("/connections/refused")
        await page.locator("tbody time").first.tap()
        await tells(page, "tbody time")
        await page.get_by_role("heading", level=1).tap()
        await expect(page.get_by_role("tooltip")).to_be_hidden()
        # Nothing else in a row takes the focus there.
        await expect(page.locator("tbody time[tabindex='0']")).to_have_count(24)
        assert await viewer.violations() == []
        await held_on_a_link(viewer)


async def held_on_a_link(viewer: Window) -> None:
    page = viewer.page
    await viewer.go("/usage?by=month")
    first = page.locator("tbody time").first
    await first.scroll_into_view_if_needed()
    await first.dispatch_event("pointerdown", {"bubbles": True})
    await tells(page, "tbody time")
    assert viewer.complaints == []


async def test_the_account_menu_is_left_again(system: Embedded) -> None:
    async with browser() as chromium, window(chromium, system.api_url) as operator:
        page = operator.page
        await operator.sign_in_with_token(system.operator_token)
        button = page.locator("details.menu summary")
        inside = page.get_by_role("link", name="Your account and tokens")
        await button.press("Enter")
        await page.keyboard.press("Tab")
        await expect(inside).to_be_focused()
        await page.keyboard.press("Escape")
        await expect(inside).to_be_hidden()
        await expect(button).to_be_focused()
        await button.click()
        await expect(inside).to_be_visible()
        await page.get_by_role("heading", level=1).click()
        await expect(inside).to_be_hidden()
        assert operator.complaints == []
