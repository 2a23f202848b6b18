"""Pictures of every page of the web interface, in light, dark and at phone width, over the demo's
own system; for docs/console, and to be looked at.

    python -m support.screenshots FOLDER [NAME...]

NAME: of a picture, as `websockets`; all of them where none is given. Names on the way what axe
finds, what the browser complains of, and pages wider than their window; exit 1 where there is any.
"""

import asyncio
import os
import re
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path

from handoff_standalone.rest import Api
from support.browser import Window, browser, window
from support.parts.processes import Process

READY_SECONDS = 120.0
LOOKS = (("light", False), ("dark", False), ("light", True))


async def main(folder: Path, names: Collection[str]) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="handoff-pictures-") as name:
        demo = Process(
            "the demo",
            [sys.executable, "-m", "handoff_standalone", "demo", "--keep"],
            Path(name) / "demo.log",
            {"COLUMNS": "200", "TERM": "dumb"},
        )
        await demo.start()
        try:
            await demo.wait_line("billing token", seconds=READY_SECONDS)
            said = demo.output()
            found = [
                re.search(pattern, said)
                for pattern in (
                    r"web interface\s+(\S+?)/?\s",
                    r"password\s+(\S+)",
                    r"operator token\s+(\S+)",
                )
            ]
            address, password, operator = (one[1] for one in found if one is not None)
            return await pictures(address, password, operator, folder, names)
        finally:
            await demo.stop()


async def pictures(
    address: str, password: str, operator: str, folder: Path, names: Collection[str]
) -> int:
    async with Api(address, operator) as api:
        [customer] = (await api.call("GET", "/v1/customers"))["data"]
        [service] = await api.call("GET", "/service")
        token = await api.call(
            "POST",
            f"/v1/users/{(await superuser(api, customer['id']))}/tokens",
            {"name": "pictures"},
        )
        invoices = (await api.call("GET", "/v1/invoices", query={"customer_id": customer["id"]}))[
            "data"
        ]
        final = next(one["invoice_id"] for one in invoices if one["status"] == "final")
        book = (await api.call("GET", "/v1/price-books"))["data"][0]
        newcomer = await beginner(api)
    async with Api(address, token["access_token"]) as api:
        draft = await demonstration(api, service["id"])
        ready, hindered = await not_switched(api)
        query = {"state": "open", "limit": "1"}
        [connection] = (await api.call("GET", "/v1/connections", query=query))["data"]
    base = f"/services/{service['id']}"
    own = {
        "services": "/services",
        "service": base,
        "websockets": f"{base}/websockets",
        "websockets-confirmation": f"/services/{ready}/websockets",
        "websockets-violations": f"/services/{hindered}/websockets",
        "websockets-question": f"{base}/websockets",
        "version": f"{base}/versions/{draft}",
        "backend": f"{base}/versions/{draft}/backends/chat",
        "tester": f"{base}/tester?url=wss://chat.example.com/rooms/lobby&version={draft}",
        "history": f"{base}/history",
        "limits": f"{base}/limits",
        "connections": "/connections?state=open",
        "connection": f"/connections/{connection['connection_id']}",
        "refused": "/connections/refused",
        "usage": "/usage",
        "invoices": "/invoices",
        "invoice": f"/invoices/{final}",
        "invoice-line": f"/invoices/{final}/lines/1",
        "verification": f"/invoices/{final}/verification",
        "users": "/users",
        "account": "/account",
    }
    operators = {
        "operations": "/operations",
        "parked": "/operations/parked",
        "customers": "/customers",
        "customer": f"/customers/{customer['id']}",
        "price-books": "/price-books",
        "price-book": f"/price-books/{book['price_book_id']}/versions/{book['version']}",
    }
    beginners = {"empty": "/services"}

    def asked(pages: dict[str, str]) -> dict[str, str]:
        return {name: path for name, path in pages.items() if not names or name in names}

    faults = 0
    async with browser() as chromium:
        for scheme, phone in LOOKS:
            look = "phone" if phone else scheme
            async with window(chromium, address, scheme=scheme, phone=phone) as one:  # type: ignore[arg-type]
                await one.go("/sign-in")
                if not names or "sign-in" in names:
                    faults += await picture(one, folder / f"sign-in-{look}.png")
                await one.sign_in("superuser@example.com", password)
                faults += await each(one, asked(own), folder, look)
                for bearer, pages in ((operator, operators), (newcomer, beginners)):
                    await one.context.clear_cookies()
                    await one.sign_in_with_token(bearer)
                    faults += await each(one, asked(pages), folder, look)
    return 1 if faults else 0


async def superuser(api: Api, customer_id: str) -> str:
    users = await api.pages(f"/v1/customers/{customer_id}/users")
    return next(str(one["id"]) for one in users if one["role"] == "superuser")


async def beginner(api: Api) -> str:
    """The token of a customer that has nothing yet."""
    body = {"name": "Northwind", "account_type": "paid", "billing_email": "b@northwind.example"}
    customer = await api.call("POST", "/v1/customers", body)
    user = await api.call(
        "POST",
        f"/v1/customers/{customer['id']}/users",
        {"login": "superuser@northwind.example", "name": "Sam", "role": "superuser"},
    )
    made = await api.call("POST", f"/v1/users/{user['id']}/tokens", {"name": "pictures"})
    return str(made["access_token"])


async def not_switched(api: Api) -> tuple[str, str]:
    """Two services without WebSockets: one that could have it, and one with settings against it."""
    found = []
    for name, settings in (
        ("status.example.com", {}),
        ("games.example.com", {"max_conn": 300, "shield": "amsterdam-nl"}),
    ):
        service = (await api.call("POST", "/service", {"name": name, "type": "vcl"}))["id"]
        version = f"/service/{service}/version/1"
        await api.call("POST", f"{version}/domain", {"name": name})
        backend = {"name": "origin", "address": "198.51.100.9", "port": 9000}
        await api.call("POST", f"{version}/backend", backend | settings)
        await api.call("PUT", f"{version}/activate")
        found.append(str(service))
    return found[0], found[1]


async def demonstration(api: Api, service_id: str) -> int:
    """A draft beside the active version, with rules and something to mend."""
    service = f"/service/{service_id}"
    made = await api.call("PUT", f"{service}/version/1/clone")
    draft = f"{service}/version/{made['number']}"
    await api.call("PUT", f"{draft}/backend/chat", {"max_conn": 300})
    await api.call(
        "POST", f"{draft}/backend", {"name": "rooms-east", "address": "198.51.100.7", "port": 9000}
    )
    await api.call(
        "POST",
        f"{draft}/websocket-rule",
        {"name": "rooms", "path_prefix": "/rooms", "backend": "rooms-east"},
    )
    await api.call(
        "POST", f"{draft}/websocket-rule", {"name": "rest", "priority": 900, "backend": "chat"}
    )
    return int(made["number"])


async def each(one: Window, pages: dict[str, str], folder: Path, look: str) -> int:
    faults = 0
    for name, path in pages.items():
        status = await one.go(path)
        if status != 200:
            print(f"{path}: {status}")
            faults += 1
        if name == "websockets-question":
            await one.page.get_by_text("Switch it off").click()
            await one.page.get_by_role("button", name="Switch WebSockets off").click()
        faults += await picture(one, folder / f"{name}-{look}.png")
    return faults


async def picture(one: Window, path: Path) -> int:
    """Charts are drawn and figures have come by the time that the network is quiet."""
    await one.page.wait_for_function("document.readyState === 'complete'")
    await one.page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    size = one.page.viewport_size
    assert size is not None
    height = await one.page.evaluate("document.documentElement.scrollHeight")
    if await one.page.locator("dialog[open]").count():
        # What lies behind it is dark as far as the window goes.
        height = size["height"]
    # A long table says no more by being longer.
    clip = {"x": 0, "y": 0, "width": size["width"], "height": min(height, 2_000)}
    await one.page.screenshot(path=path, full_page=True, clip=clip)  # type: ignore[arg-type]
    found = [*await one.violations(), *one.complaints]
    one.complaints.clear()
    if await one.overflows():
        found.append("wider than its window")
    for text in found:
        print(f"{path.name}: {text}")
    return len(found)


if __name__ == "__main__":
    # Names of hosts and people are the demo's; a picture shows nothing of this machine.
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(asyncio.run(main(Path(sys.argv[1]), sys.argv[2:])))
