"""A real browser for the tests of the web interface: this machine's own Chromium, by Playwright.

Each page's complaints (an error in a script, something that the content security policy refused)
are collected, so that a test can hold that there are none; `violations` asks axe.
"""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

from playwright.async_api import Browser, BrowserContext, Page, async_playwright

AXE = Path(__file__).parent / "vendor" / "axe.min.js"
TIMEOUT_MS = 15_000
SERIOUS = ("serious", "critical")
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 800}


def program() -> str:
    """Raises FileNotFoundError where there is no Chromium."""
    found = os.environ.get("HANDOFF_TEST_BROWSER") or shutil.which("chromium")
    if not found:
        raise FileNotFoundError("no Chromium: run tests/support/install.sh")
    return found


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(
            executable_path=program(),
            # Chromium's own sandbox needs what root in a container does not have. /dev/shm is small
            # there, too.
            args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
        )
        try:
            yield launched
        finally:
            await launched.close()


class Window:
    """One person's window on the console. complaints: what the browser said against our pages."""

    def __init__(self, context: BrowserContext, page: Page, address: str) -> None:
        self.context = context
        self.page = page
        self.address = address
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("console", self._said)
        page.set_default_timeout(TIMEOUT_MS)

    def _said(self, message: Any) -> None:
        # A refusal by the API is shown by its status; the browser's note of it is no fault.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    async def go(self, path: str) -> int:
        """The status of the page."""
        answer = await self.page.goto(self.address + path)
        assert answer is not None
        return answer.status

    async def sign_in_with_token(self, token: str) -> None:
        await self.go("/sign-in")
        await self.page.get_by_text("Sign in with an API token").click()
        await self.page.get_by_label("API token").fill(token)
        await self.page.get_by_role("button", name="Use the token").click()
        await self.page.locator("header.bar").wait_for()

    async def sign_in(self, login: str, password: str) -> None:
        await self.go("/sign-in")
        await self.page.get_by_label("Login").fill(login)
        await self.page.get_by_label("Password").fill(password)
        await self.page.get_by_role("button", name="Sign in", exact=True).click()
        await self.page.locator("header.bar").wait_for()

    async def agree(self) -> None:
        """To the question of the dialog that is open."""
        await self.page.locator("dialog#confirm").get_by_role("button", name="Continue").click()

    async def violations(self, *rules: str) -> list[str]:
        """What axe finds of serious and critical things, a line each; by all rules or by some."""
        if not await self.page.evaluate("'axe' in window"):
            await self.page.evaluate(AXE.read_text())
        options: dict[str, Any] = {"resultTypes": ["violations"]}
        if rules:
            options["runOnly"] = rules
        found = await self.page.evaluate("(options) => axe.run(document, options)", options)
        return [
            f"{one['id']}: {node['target']} {node['failureSummary']}"
            for one in found["violations"]
            if one["impact"] in SERIOUS
            for node in one["nodes"]
        ]

    async def overflows(self) -> bool:
        """Whether the page is wider than the window."""
        wide = await self.page.evaluate(
            "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        )
        return bool(wide)


@asynccontextmanager
async def window(
    on: Browser,
    address: str,
    *,
    scheme: Literal["light", "dark"] = "light",
    phone: bool = False,
    timezone: str | None = None,
) -> AsyncIterator[Window]:
    context = await on.new_context(
        color_scheme=scheme,
        viewport=PHONE if phone else DESK,  # type: ignore[arg-type]
        has_touch=phone,
        reduced_motion="reduce",
        locale="en-GB",
        timezone_id=timezone,
    )
    try:
        yield Window(context, await context.new_page(), address)
    finally:
        await context.close()
