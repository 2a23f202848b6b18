"""Forms that are refused keep what was typed, say it at the field, and put the keyboard there."""

import re

import pytest
from playwright.async_api import Page, expect

from support.browser import browser, window
from support.embedded import Embedded, make_tenant

pytestmark = pytest.mark.timeout(180)


async def wrong(page: Page, label: str, typed: str, says: str) -> None:
    """A field still holds what was typed, and says what is wrong with it."""
    box = page.get_by_label(label, exact=True)
    await expect(box).to_have_attribute("aria-invalid", "true")
    await expect(box).to_have_value(typed)
    await expect(box).to_have_accessible_description(re.compile(re.escape(says)))


async def test_limits_are_set_and_refused(system: Embedded) -> None:
    tenant = await make_tenant(system, origin_port=9)
    limits = f"/services/{tenant.service_id}/limits"
    async with browser() as chromium, window(chromium, system.api_url) as engineer:
        await engineer.sign_in_with_token(tenant.tokens["engineer"])
        await engineer.go(f"/services/{tenant.service_id}")
        page = engineer.page
        await page.get_by_role("link", name="Change the limits").click()
        save = page.get_by_role("button", name="Set the limits")
        await page.get_by_label("New connections per second").fill("fast")
        await page.get_by_label("Open connections").fill("5000")
        await save.click()
        await wrong(page, "New connections per second", "fast", "not a whole number")
        await expect(page.get_by_label("New connections per second")).to_be_focused()
        await expect(page.get_by_label("Open connections")).to_have_value("5000")
        await page.get_by_label("New connections per second").fill("")
        await page.get_by_label("Idle time-out, ms").fill("5")
        await save.click()
        await wrong(page, "Idle time-out, ms", "5", "allowed: 1000 to")
        await expect(page.get_by_label("Idle time-out, ms")).to_be_focused()
        assert await engineer.violations() == []
        await page.get_by_label("Idle time-out, ms").fill("90000")
        await save.click()
        await expect(page.locator("#notices")).to_contain_text("The limits hold")
        card = page.get_by_role("region", name="Limits per edge node")
        await expect(card).to_contain_text("5\u202f000")
        await expect(card).to_contain_text("1\u202fmin 30\u202fs")

        # Somebody else is faster: what was typed is kept, and the second try is meant.
        await engineer.go(limits)
        async with system.api(tenant.tokens["engineer"]) as api:
            path = f"/v1/services/{tenant.service_id}/limits"
            await api.call("PUT", path, {"max_connections": 7})
        await page.get_by_label("Open connections").fill("6000")
        await save.click()
        await expect(page.get_by_role("alert")).to_contain_text("Somebody else has changed this")
        await expect(page.get_by_role("alert")).to_be_focused()
        await expect(page.get_by_label("Open connections")).to_have_value("6000")
        await save.click()
        await expect(page.locator("#notices")).to_contain_text("The limits hold")
        async with system.api(tenant.tokens["engineer"]) as api:
            assert (await api.call("GET", path))["max_connections"] == 6000
        assert engineer.complaints == []


async def test_the_rule_tester_tells_which_backend_takes_a_request(system: Embedded) -> None:
    tenant = await make_tenant(system, origin_port=9)
    service = f"/service/{tenant.service_id}"
    async with system.api(tenant.tokens["engineer"]) as api:
        draft = (
            f"{service}/version/{(await api.call('PUT', f'{service}/version/1/clone'))['number']}"
        )
        await api.call("POST", f"{draft}/backend", {"name": "east", "address": "127.0.0.1"})
        await api.call(
            "POST",
            f"{draft}/websocket-rule",
            {
                "name": "rooms",
                "path_prefix": "/rooms",
                "header_name": "X-Team",
                "header_value": "blue",
                "backend": "east",
            },
        )
        await api.call(
            "POST",
            f"{draft}/websocket-rule",
            {"name": "rest", "priority": 900, "backend": "origin"},
        )
    async with browser() as chromium, window(chromium, system.api_url, phone=True) as user:
        await user.sign_in_with_token(tenant.tokens["user"])
        await user.go(f"/services/{tenant.service_id}/tester")
        page = user.page
        address, attempt = page.get_by_label("Address"), page.get_by_role("button", name="Try it")
        result = page.locator("section", has=page.locator("#h-found"))
        await address.fill(f"wss://{tenant.domain}/rooms/lobby")
        await attempt.click()
        await expect(result).to_contain_text("Backend origin the only one")

        await page.get_by_label("Version").select_option("2")
        await attempt.click()
        await expect(result).to_contain_text("Backend origin by rule rest")
        await expect(result).to_contain_text("its header does not fit")
        await page.get_by_label("Headers").fill("X-Team: blue")
        await address.press("Enter")
        await expect(result).to_contain_text("Backend east by rule rooms")
        await expect(page.get_by_label("Version")).to_have_value("2")
        assert await user.violations() == []
        assert not await user.overflows()
        await page.go_back()
        await expect(result).to_contain_text("Backend origin by rule rest")

        await address.fill("wss://elsewhere.example.com/")
        await attempt.click()
        await expect(result).to_contain_text("Refused unknown_domain")
        await address.fill(tenant.domain)
        await page.get_by_label("Headers").fill("X-Team: blue\nnot a header")
        await page.get_by_label("Subprotocols").fill("chat, two words")
        await attempt.click()
        await wrong(page, "Address", tenant.domain, "allowed: ws:// or wss://")
        await wrong(page, "Headers", "X-Team: blue\nnot a header", "'not a header'")
        await wrong(page, "Subprotocols", "chat, two words", "'two words'")
        await expect(address).to_be_focused()
        assert user.complaints == []


async def test_a_part_that_is_refused_says_so_at_its_fields(system: Embedded) -> None:
    tenant = await make_tenant(system, origin_port=9, enable=False)
    async with browser() as chromium, window(chromium, system.api_url) as engineer:
        page = engineer.page
        await engineer.sign_in_with_token(tenant.tokens["engineer"])
        await engineer.go(f"/services/{tenant.service_id}/versions/1")
        await page.get_by_role("button", name="Make a draft").click()
        await page.get_by_role("link", name="Add a backend").click()
        await page.get_by_label("Name", exact=True).fill("east")
        await page.get_by_label("Port", exact=True).fill("99999")
        await page.get_by_text("Settings that WebSockets wants").click()
        await page.get_by_label("weight", exact=True).fill("1000")
        await page.get_by_role("button", name="Add it").click()
        await wrong(page, "Address", "", "is missing")
        await wrong(page, "Port", "99999", "allowed: 1 to 65535")
        await expect(page.get_by_label("Name", exact=True)).to_have_value("east")
        await expect(page.get_by_label("Address", exact=True)).to_be_focused()
        await expect(page.get_by_label("weight", exact=True)).to_have_value("1000")

        await engineer.go("/services/new")
        await page.get_by_label("Name", exact=True).fill(tenant.domain)
        await page.get_by_label("Comment").fill("the second one")
        await page.get_by_role("button", name="Make the service").click()
        await expect(page.get_by_role("alert")).to_contain_text("already taken")
        await expect(page.get_by_label("Comment")).to_have_value("the second one")
        assert engineer.complaints == []


async def test_texts_of_several_lines_stay_what_they_are(system: Embedded) -> None:
    pem = "-----BEGIN CERTIFICATE-----\nMIIB\nAAAA\n-----END CERTIFICATE-----\n"
    given = {"ssl_ca_cert": pem, "ssl_client_key": pem, "ssl_ciphers": "A\nB"}
    tenant = await make_tenant(system, origin_port=9, enable=False)
    path = f"/service/{tenant.service_id}/version/2/backend/origin"
    async with (
        system.api(tenant.tokens["engineer"]) as api,
        browser() as chromium,
        window(chromium, system.api_url) as engineer,
    ):
        await api.call("PUT", f"/service/{tenant.service_id}/version/1/clone")
        await api.call("PUT", path, given)
        page = engineer.page
        await engineer.sign_in_with_token(tenant.tokens["engineer"])
        form = f"/services/{tenant.service_id}/versions/2/backends/origin"
        await engineer.go(form)
        await page.get_by_label("Comment").fill("only this is another")
        await page.get_by_role("button", name="Save").click()
        await expect(page.locator("#notices")).to_contain_text("The backend is changed")
        saved = await api.call("GET", path)
        assert saved["comment"] == "only this is another"
        assert {name: saved[name] for name in given} == given

        # A link to such a field leads into it.
        await engineer.go(f"{form}#field-ssl_ca_cert")
        box = page.get_by_label("ssl_ca_cert")
        await expect(box).to_be_focused()
        assert await engineer.violations() == []
        await box.fill(pem.replace("AAAA", "BBBB"))
        await page.get_by_role("button", name="Save").click()
        await expect(page.locator("#notices")).to_contain_text("The backend is changed")
        saved = await api.call("GET", path)
        assert saved["ssl_ca_cert"] == pem.replace("AAAA", "BBBB").strip()
        assert saved["ssl_client_key"] == pem and engineer.complaints == []


async def test_a_range_that_cannot_be_is_mended_where_it_was_typed(system: Embedded) -> None:
    tenant = await make_tenant(system, origin_port=9)
    async with browser() as chromium, window(chromium, system.api_url) as user:
        page = user.page
        await user.sign_in_with_token(tenant.tokens["user"])
        for path, button, heading in (
            ("/connections", "Filter", "Connections"),
            ("/usage", "Show", "Usage"),
        ):
            await user.go(path)
            await page.get_by_label("From (UTC)").fill("2026-11-25T00:00")
            await page.get_by_label("Before (UTC)").fill("2026-11-24T00:00")
            await page.get_by_role("button", name=button, exact=True).click()
            await wrong(page, "From (UTC)", "2026-11-25T00:00", "before")
            await expect(page.get_by_role("heading", level=1)).to_have_text(heading)
            await expect(page.get_by_label("From (UTC)")).to_be_focused()
            await expect(page.get_by_label("Before (UTC)")).to_have_value("2026-11-24T00:00")
            await page.get_by_label("From (UTC)").fill("2026-11-23T00:00")
            await page.get_by_role("button", name=button, exact=True).click()
            await expect(page.locator(".stat").first).to_be_visible()
        assert user.complaints == []


async def test_signing_in_begins_where_one_types(system: Embedded) -> None:
    async with browser() as chromium, window(chromium, system.api_url) as someone:
        page = someone.page
        await someone.go("/usage?by=hour")
        await expect(page.get_by_label("Login")).to_be_focused()
        await page.keyboard.type("nobody@example.com")
        await page.keyboard.press("Tab")
        await page.keyboard.type("a wrong password")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_contain_text("do not belong together")
        await expect(page.get_by_label("Login")).to_have_value("nobody@example.com")
        await expect(page.get_by_label("Password")).to_be_focused()
        # Where one wanted to go is not forgotten over it.
        await expect(page.locator("input[name='next']").first).to_have_value("/usage?by=hour")
