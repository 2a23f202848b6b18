"""Each role signs in by password, sees what it may, and is stopped where it may not."""

import secrets

import pytest
from playwright.async_api import expect

from support.browser import browser, window
from support.embedded import Embedded, make_tenant

pytestmark = pytest.mark.timeout(240)
PASSWORD = "correct horse battery staple"
MENUS = {
    "superuser": ["Services", "Connections", "Usage", "Invoices", "Users"],
    "engineer": ["Services", "Connections", "Usage"],
    "billing": ["Services", "Connections", "Usage", "Invoices"],
    "user": ["Services", "Connections", "Usage"],
}


async def test_each_role_signs_in_and_sees_what_it_may(system: Embedded, echo_origin: int) -> None:
    tenant = await make_tenant(system, origin_port=echo_origin)
    async with system.api() as operator:
        for role in MENUS:
            [user] = [
                one
                for one in await operator.pages(f"/v1/customers/{tenant.customer_id}/users")
                if one["role"] == role
            ]
            await operator.call("PUT", f"/v1/users/{user['id']}/password", {"password": PASSWORD})
    async with browser() as chromium:
        for role, menu in MENUS.items():
            async with window(chromium, system.api_url) as someone:
                await someone.sign_in(f"{role}@{tenant.customer_id}.example", PASSWORD)
                page = someone.page
                links = page.get_by_role("navigation", name="Main").get_by_role("link")
                await expect(links).to_have_text(menu)
                for name in menu:
                    await links.filter(has_text=name).click()
                    await expect(page.get_by_role("heading", level=1)).to_be_visible()
                    if role in ("superuser", "user"):
                        # Who is shown the most, and the least; the others' pages lie between.
                        assert await someone.violations() == [], f"{role}: {name}"
                    assert not await someone.overflows(), f"{role}: {name}"
                for path in ("/operations", "/customers", "/price-books"):
                    assert await someone.go(path) == 403
                assert (await someone.go("/invoices") == 200) == ("Invoices" in menu)
                await page.get_by_text(tenant.domain).first.click()
                await page.get_by_role("button", name="Sign out").click()
                await expect(page.locator("#notices")).to_contain_text("signed out")
                await someone.go("/services")
                assert page.url.endswith("/sign-in?next=/services")
                assert someone.complaints == []


async def test_an_operator_signs_in_with_its_token(system: Embedded) -> None:
    tenant = await make_tenant(system, origin_port=9)
    async with browser() as chromium, window(chromium, system.api_url, phone=True) as operator:
        await operator.sign_in_with_token(system.operator_token)
        page = operator.page
        for name in ("Operations", "Customers", "Price books"):
            await page.get_by_role("navigation", name="Main").get_by_role("link", name=name).click()
            await expect(page.get_by_role("heading", level=1)).to_be_visible()
            assert await operator.violations() == [], name
            assert not await operator.overflows(), name
        await operator.go(f"/customers/{tenant.customer_id}")
        await page.get_by_role("button", name="Look as").first.click()
        await expect(page.get_by_role("link", name=tenant.domain)).to_be_visible()
        assert operator.complaints == []


async def test_a_login_is_locked_after_failures(system: Embedded) -> None:
    login = f"{secrets.token_hex(4)}@example.com"
    async with browser() as chromium, window(chromium, system.api_url) as someone:
        page = someone.page
        for attempt in range(11):
            await someone.go("/sign-in")
            await page.get_by_label("Login").fill(login)
            await page.get_by_label("Password").fill("a wrong password")
            await page.get_by_role("button", name="Sign in", exact=True).click()
            text = "Too many attempts" if attempt == 10 else "do not belong together"
            await expect(page.get_by_role("alert")).to_contain_text(text)
