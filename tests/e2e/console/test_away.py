"""The APIs go away while somebody looks, and come back: live pages keep their figures, say that
they stand still, and go on by themselves; other pages say what is the matter."""

import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.async_api import expect
from websockets.asyncio.client import connect

from support.browser import browser, window
from support.embedded import Embedded, make_tenant
from support.parts.processes import Process
from support.parts.proxy import Proxy

pytestmark = pytest.mark.timeout(240)
AWAY = re.compile("cannot be reached just now")


@pytest.fixture
async def apis(system: Embedded) -> AsyncIterator[Proxy]:
    """What stands between the console and the APIs."""
    async with Proxy(upstream_port=urlsplit(system.api_url).port or 0) as proxy:
        yield proxy


@pytest.fixture
async def console(apis: Proxy, tmp_path: Path) -> AsyncIterator[str]:
    """The address of a console of its own process."""
    process = Process(
        "the console",
        [sys.executable, "-m", "handoff_console", "serve"],
        tmp_path / "console.log",
        {
            "HANDOFF_DATA_DIR": str(tmp_path / "console"),
            "HANDOFF_CONSOLE_PORT": "0",
            "HANDOFF_CONSOLE_REFRESH": "0.5",
            "HANDOFF_CONSOLE_API_URL": f"http://127.0.0.1:{apis.port}",
        },
    )
    await process.start()
    try:
        await process.wait_line('"event":"ready"', seconds=40)
        found = re.search(r'"port":(\d+),"event":"ready"', process.output())
        assert found, process.output()
        yield f"http://127.0.0.1:{found[1]}"
    finally:
        await process.stop()


async def test_live_pages_while_the_apis_are_away(
    system: Embedded, echo_origin: int, apis: Proxy, console: str
) -> None:
    tenant = await make_tenant(system, origin_port=echo_origin)
    async with (
        browser() as chromium,
        window(chromium, console) as table,
        window(chromium, console) as one,
        window(chromium, console) as operator,
        connect(f"ws://{tenant.domain}/", host="127.0.0.1", port=system.edge_port, proxy=None),
    ):
        await table.sign_in_with_token(tenant.tokens["superuser"])
        await table.go("/connections")
        row = table.page.locator("tbody tr[id^='c-0']")
        await expect(row).to_have_count(1)
        await expect(table.page.get_by_text("Live", exact=True)).to_be_visible()
        address = await row.get_by_role("link").first.get_attribute("href")
        assert address is not None
        await one.sign_in_with_token(tenant.tokens["engineer"])
        await one.go(address)
        await expect(one.page.get_by_text("Live", exact=True)).to_be_visible()
        await operator.sign_in_with_token(system.operator_token)
        await operator.go("/operations")
        live = operator.page.locator("p.live")
        await expect(live).to_have_text(re.compile("^Live; as of"))

        await apis.cut()
        for viewer in (table, one):
            await expect(viewer.page.get_by_role("status").filter(has_text=AWAY)).to_be_visible()
            assert await viewer.violations() == []
        await expect(row).to_contain_text("open")
        await expect(one.page.locator(".stat", has_text="Minutes")).to_contain_text("1")
        await expect(live).to_have_text(re.compile("^Not live.*as of"), timeout=30_000)
        await expect(operator.page.locator("#notices")).to_be_empty()
        await expect(operator.page.get_by_role("group", name="Edges")).to_be_visible()
        assert await operator.violations() == []

        # Another page says so, and the way back leads to where one was.
        assert await table.go("/usage") == 503
        await expect(table.page.locator("main")).to_contain_text(AWAY)
        await table.page.go_back()
        assert table.page.url.endswith("/connections")

        apis.restore()
        await table.page.reload()
        for viewer in (table, one):
            await expect(viewer.page.get_by_text("Live", exact=True)).to_be_visible()
        await expect(live).to_have_text(re.compile("^Live; as of"), timeout=30_000)
        await expect(row).to_have_count(1)
        assert table.complaints == one.complaints == []
        # htmx says so of each answer that is none.
        assert {said.partition(",")[0] for said in operator.complaints} <= {
            "Response Status Error Code 503 from /operations/live"
        }
