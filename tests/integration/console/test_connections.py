"""Connections in the web interface: real clients through the edge, pages and live updates as a
browser gets them."""

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

from support.console import Visitor, visitor
from support.embedded import Embedded, Tenant, make_tenant, shared
from support.event_stream import listening
from support.parts.waiting import eventually

pytestmark = [pytest.mark.timeout(180), pytest.mark.xdist_group("console-connections")]
MOST = 3
ROW = re.compile(r'<tr id="c-([0-9a-f-]{36})">')


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    data = tmp_path_factory.mktemp("connections") / "data"
    with shared(
        data, HANDOFF_CONSOLE_REFRESH="0.5", HANDOFF_CONSOLE_LIVE_PAGES=str(MOST)
    ) as running:
        yield running


@pytest.fixture
async def origin() -> AsyncIterator[int]:
    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async with serve(echo, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture
async def tenant(system: Embedded, origin: int) -> Tenant:
    domain = f"{secrets.token_hex(4)}.example.com"
    return await make_tenant(system, origin_port=origin, domain=domain)


@pytest.fixture
async def clients() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def engineer(system: Embedded, tenant: Tenant) -> AsyncIterator[Visitor]:
    async with visitor(system) as someone:
        await someone.sign_in(tenant.tokens["superuser"])
        yield someone


async def opened(
    system: Embedded, tenant: Tenant, clients: AsyncExitStack, count: int = 1
) -> list[ClientConnection]:
    return [
        await clients.enter_async_context(
            connect(f"ws://{tenant.domain}/", host="127.0.0.1", port=system.edge_port, proxy=None)
        )
        for _ in range(count)
    ]


async def listed(someone: Visitor, path: str, count: int) -> list[str]:
    """The ids on a page, once there are so many."""

    async def ask() -> list[str] | None:
        answer = await someone.get(path)
        assert answer.status_code == 200, answer.text
        found = ROW.findall(answer.text)
        return found if len(found) == count else None

    return await eventually(ask, f"{path} lists {count}")


async def test_the_page_lists_and_filters_and_counts(
    system: Embedded, tenant: Tenant, clients: AsyncExitStack, engineer: Visitor
) -> None:
    empty = await engineer.get("/connections")
    assert "No connections yet" in empty.text
    sockets = await opened(system, tenant, clients, 3)
    ids = await listed(engineer, "/connections?state=open", 3)
    await sockets[0].close(code=4001)
    assert len(await listed(engineer, "/connections?state=open", 2)) == 2
    [closed] = await listed(engineer, "/connections?reason=client_closed", 1)
    assert closed in ids
    page = (await engineer.get("/connections")).text
    assert "client closed" in page and "$0.00000025" in page and "No such" not in page
    assert stat(page, "Open now") == "2" and stat(page, "Opened today") == "3"
    assert "No connection matches" in (await engineer.get("/connections?region=asia")).text
    for bad in ("from=soon", "state=half", "region=atlantis"):
        assert (await engineer.get(f"/connections?{bad}")).status_code == 400
    assert (await engineer.get("/connections?service_id=nobodys")).status_code == 404


def stat(page: str, label: str) -> str:
    found = re.search(rf"<dt>{label}</dt><dd>([^<]*)", page)
    assert found, label
    return found[1]


async def test_a_link_of_an_invoice_line_shows_its_minutes(
    system: Embedded, tenant: Tenant, clients: AsyncExitStack, engineer: Visitor
) -> None:
    await opened(system, tenant, clients, 2)
    month = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    following = (month + timedelta(days=32)).replace(day=1)
    path = (
        f"/connections?service_id={tenant.service_id}&region=europe"
        f"&from={month:%Y-%m-%dT%H:%M:%SZ}&to={following:%Y-%m-%dT%H:%M:%SZ}"
    )
    await listed(engineer, path, 2)
    page = (await engineer.get(path)).text
    assert "In range" in page and stat(page, "Minutes in this range") == "2"
    assert await listed(engineer, "/connections?from=2026-01-01&to=2026-02-01", 0) == []


async def test_who_may_not_read_the_bill_sees_no_money(
    system: Embedded, tenant: Tenant, clients: AsyncExitStack
) -> None:
    await opened(system, tenant, clients)
    async with visitor(system) as someone:
        await someone.sign_in(tenant.tokens["user"])
        [one] = await listed(someone, "/connections", 1)
        for path in ("/connections", f"/connections/{one}"):
            page = (await someone.get(path)).text
            assert "$" not in page and "Cost" not in page and "End this" not in page
        answer = await someone.post(f"/connections/{one}/end")
        assert answer.status_code == 403
        async with listening(someone.http, "/connections/stream") as heard:
            rows = await heard.until("rows", one)
            assert "$" not in rows and "$" not in heard.parts["totals"]


async def test_the_table_is_live(
    system: Embedded, tenant: Tenant, clients: AsyncExitStack, engineer: Visitor
) -> None:
    async with listening(engineer.http, "/connections/stream?state=open") as heard:
        headers = heard.response.headers
        assert headers["content-type"].startswith("text/event-stream")
        assert headers["x-accel-buffering"] == "no" and headers["cache-control"] == "no-store"
        assert "content-encoding" not in headers
        await heard.until("rows", "No connection matches")
        [socket] = await opened(system, tenant, clients)
        rows = await heard.until("rows", ">open<")
        [one] = ROW.findall(rows)
        assert f'data-order="c-{one}"' in rows
        assert "<dt>Open now</dt><dd>1" in heard.parts["totals"]
        await socket.close()
        gone = await heard.until("rows", "c-none")
        assert one not in gone


async def test_one_connection_from_its_acceptance_to_its_end(
    system: Embedded, tenant: Tenant, clients: AsyncExitStack, engineer: Visitor
) -> None:
    [socket] = await opened(system, tenant, clients)
    await socket.send("x" * 1_000)
    await socket.recv()
    [one] = await listed(engineer, "/connections", 1)
    page = (await engineer.get(f"/connections/{one}")).text
    assert "Accepted" in page and "End this connection" in page and tenant.domain in page
    asked_at = int(time.time())
    async with listening(engineer.http, f"/connections/{one}/stream?ending={asked_at}") as heard:
        await heard.until("state", "ending…")
        answer = await engineer.post(f"/connections/{one}/end", reason="maintenance")
        path, _, ending = answer.headers["location"].partition("?ending=")
        assert path == f"/connections/{one}" and asked_at <= int(ending) < asked_at + 15
        page = (await engineer.get(answer.headers["location"])).text
        assert "The edges were asked to end it." in page
        with pytest.raises(ConnectionClosed) as caught:
            await asyncio.wait_for(socket.recv(), 20)
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1008, "maintenance")
        await heard.until("state", "ended by hand")
        await heard.until("facts", "1008 (against a policy)")
        await heard.to_the_end()
        assert heard.parts["ended"] == "final", "the page closes its stream"
    page = (await engineer.get(f"/connections/{one}")).text
    assert "Somebody ended it" in page and "sse-connect" not in page
    flash = await engineer.post(f"/connections/{one}/end")
    assert flash.status_code == 303
    assert "It had ended already." in (await engineer.get(f"/connections/{one}")).text


async def test_another_customers_connection_is_not_there(
    system: Embedded, origin: int, tenant: Tenant, clients: AsyncExitStack, engineer: Visitor
) -> None:
    other = await make_tenant(system, origin_port=origin)
    await opened(system, other, clients)
    async with visitor(system) as theirs:
        await theirs.sign_in(other.tokens["engineer"])
        [one] = await listed(theirs, "/connections", 1)
    for path in (f"/connections/{one}", f"/connections/{one}/stream"):
        assert (await engineer.get(path)).status_code == 404
    assert (await engineer.post(f"/connections/{one}/end")).status_code == 404


async def test_a_revoked_token_ends_the_stream_and_says_so(
    system: Embedded, tenant: Tenant
) -> None:
    async with system.api(tenant.tokens["user"]) as api:
        made = await api.call("POST", "/tokens", {"name": "short"})
    async with visitor(system) as someone:
        await someone.sign_in(made["access_token"])
        async with listening(someone.http, "/connections/stream") as heard:
            await heard.until("status", "Live")
            async with system.api(tenant.tokens["user"]) as api:
                await api.call("DELETE", f"/tokens/{made['id']}")
            await heard.until("status", "Your session has ended.")
            await heard.to_the_end()
            assert heard.parts["ended"] == "revoked"
        answer = await someone.get("/connections/stream")
        assert answer.status_code == 303 and "/sign-in" in answer.headers["location"]


async def test_streams_are_bounded_and_given_back(tenant: Tenant, engineer: Visitor) -> None:
    async with AsyncExitStack() as stack:
        # Each is held: the connection of one that is not would close.
        held = [
            await stack.enter_async_context(listening(engineer.http, "/connections/stream"))
            for _ in range(MOST)
        ]
        for heard in held:
            await heard.until("status", "Live")
        refused = await engineer.get("/connections/stream")
        assert refused.status_code == 503 and "Reload the page" in refused.text

    async def free() -> bool | None:
        async with listening(engineer.http, "/connections/stream") as again:
            return True if again.response.status_code == 200 else None

    await eventually(free, "the places of those who have gone are free")


async def test_stopping_does_not_wait_for_streams(tmp_path: Path) -> None:
    own = Embedded(tmp_path / "data", {"HANDOFF_CONSOLE_REFRESH": "0.5"})
    await own.start()
    try:
        async with visitor(own) as someone:
            other = await make_tenant(own, origin_port=9, enable=False)
            await someone.sign_in(other.tokens["user"])
            async with listening(someone.http, "/connections/stream") as heard:
                await heard.until("status", "Live")
                stopping = asyncio.create_task(own.stop())
                await heard.to_the_end()
                assert "ended" not in heard.parts, "the browser asks again by itself"
                assert await stopping == 0
    finally:
        if own.process is not None and own.process.running:
            await own.kill()
    assert "Traceback" not in (tmp_path / "data" / "system.log").read_text()


async def test_refused_handoffs_are_shown_with_what_to_do(
    system: Embedded, tenant: Tenant, engineer: Visitor
) -> None:
    assert "Nothing was refused" in (await engineer.get("/connections/refused")).text
    async with system.api(tenant.tokens["engineer"]) as api:
        await api.call("DELETE", f"/enabled-products/v1/websockets/services/{tenant.service_id}")
    with pytest.raises(InvalidStatus):
        async with connect(
            f"ws://{tenant.domain}/", host="127.0.0.1", port=system.edge_port, proxy=None
        ):
            pass

    async def counted() -> str | None:
        page = (await engineer.get("/connections/refused?span=hour")).text
        return page if "not_enabled" in page else None

    page = await eventually(counted, "the refusal is counted")
    assert "Enable WebSockets" in page and tenant.domain in page
    assert f'<a href="/services/{tenant.service_id}/websockets">Look at its switch</a>' in page
    assert "data-chart" in page
    other = await engineer.get("/connections/refused?span=month")
    assert other.status_code == 200 and "not_enabled" in other.text
    assert (await engineer.get("/connections/refused?span=year")).status_code == 400
