"""At a phone's width the figures that a page is for are in sight without moving a table."""

import pytest
from playwright.async_api import Locator, expect

from support.browser import PHONE, browser, window
from support.embedded import Embedded, make_tenant

pytestmark = pytest.mark.timeout(180)


async def in_sight(found: Locator) -> None:
    await expect(found).to_be_visible()
    box = await found.bounding_box()
    assert box is not None
    assert box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"], await found.inner_text()


async def test_figures_are_in_sight_on_a_phone(system: Embedded) -> None:
    tenant = await make_tenant(system, origin_port=9)
    async with browser() as chromium, window(chromium, system.api_url, phone=True) as superuser:
        page = superuser.page
        await superuser.sign_in_with_token(tenant.tokens["superuser"])
        await in_sight(page.get_by_role("columnheader", name="Cost"))
        await in_sight(page.get_by_role("link", name="Users"))
        switch = f"/services/{tenant.service_id}/websockets"
        await superuser.go(switch)
        await in_sight(page.get_by_role("columnheader", name="Amount"))
        await in_sight(page.get_by_role("region", name="Changes").get_by_text("product enabled"))
        await superuser.go(f"/services/{tenant.service_id}/history")
        await in_sight(page.get_by_role("link", name="History"))
        await in_sight(page.get_by_text("product enabled"))
        against = await make_tenant(
            system, origin_port=9, enable=False, backend={"shield": "amsterdam-nl"}
        )
        await superuser.go("/users")
        await in_sight(page.get_by_role("columnheader", name="Role"))
        assert not await superuser.overflows()
        await superuser.context.clear_cookies()
        await superuser.sign_in_with_token(against.tokens["superuser"])
        await superuser.go(f"/services/{against.service_id}/websockets")
        await in_sight(page.get_by_text("shield: amsterdam-nl"))
        await in_sight(page.get_by_role("button", name="Mend in a new draft"))
        assert not await superuser.overflows()
