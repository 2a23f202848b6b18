"""The usage page: the APIs' numbers as tables, charts and CSV."""

import csv
import html
import io
import json
import re

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from support.console import visitor
from support.embedded import Embedded, Tenant, make_tenant
from support.parts.waiting import eventually

pytestmark = [pytest.mark.timeout(180), pytest.mark.xdist_group("console-frame")]


async def used(system: Embedded) -> Tenant:
    """A tenant with three connections of one minute each, one after the other."""

    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async with serve(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        tenant = await make_tenant(system, origin_port=port)
        async with system.api(tenant.tokens["user"]) as api:
            for number in range(1, 4):
                async with connect(
                    f"ws://{tenant.domain}/", host="127.0.0.1", port=system.edge_port, proxy=None
                ) as socket:
                    await socket.send("x" * 100)
                    await socket.recv()

                async def counted(number: int = number) -> bool | None:
                    rows = (await api.call("GET", "/v1/usage"))["data"]
                    return True if sum(row["closed"] for row in rows) == number else None

                # A client has its Close frame a moment before the edge has the stream's end.
                await eventually(counted, "it is counted before the next begins")
    return tenant


@pytest.mark.parametrize(("by", "periods"), [("hour", 24), ("day", 30), ("month", 12)])
async def test_each_range_has_its_numbers_in_table_chart_and_csv(
    system: Embedded, by: str, periods: int
) -> None:
    tenant = await used(system)
    async with visitor(system) as someone:
        await someone.sign_in(tenant.tokens["user"])
        answer = await someone.get(f"/usage?by={by}")
        assert answer.status_code == 200
        charts = [
            json.loads(html.unescape(x)) for x in re.findall(r'data-chart="([^"]+)"', answer.text)
        ]
        minutes, open_, bytes_ = charts
        assert len(minutes["x"]) == periods
        assert sum(minutes["series"][0]["values"]) == 3
        assert max(open_["series"][0]["values"]) == 1
        text = (await someone.get(f"/usage.csv?by={by}&service_id={tenant.service_id}")).text
        lines = list(csv.DictReader(io.StringIO(text, newline="")))
        assert len(lines) == periods and lines[0]["service"] == tenant.domain
        async with system.api(tenant.tokens["user"]) as api:
            rows = (await api.call("GET", "/v1/usage", query={"by": by}))["data"]
        billed = sum(
            row[name] for row in rows for name in row if name.startswith(("resp_", "bereq_"))
        )
        assert sum(int(line["minutes"]) for line in lines) == 3
        assert (
            sum(int(line["bytes"]) for line in lines)
            == billed
            == sum(bytes_["series"][0]["values"])
        )
        assert max(int(line["peak_open"]) for line in lines) == 1


async def test_a_time_leads_to_its_connections(system: Embedded) -> None:
    tenant = await used(system)
    async with visitor(system) as someone:
        await someone.sign_in(tenant.tokens["billing"])
        page = (await someone.get("/usage?by=month")).text
        links = [html.unescape(one) for one in re.findall(r'href="(/connections\?[^"]+)"', page)]
        shown = (await someone.get(links[0])).text
        assert len(re.findall(r'<tr id="c-[0-9a-f-]{36}"', shown)) == 3
        assert "<dt>Minutes in this range</dt><dd>3" in shown


async def test_nothing_yet_and_ranges_that_cannot_be(system: Embedded, tenant: Tenant) -> None:
    async with visitor(system) as someone:
        await someone.sign_in(tenant.tokens["user"])
        page = (await someone.get("/usage?by=hour")).text
        assert "No bytes in this time" in page
        for bad in ("by=week", "from=x", "by=hour&from=2020-01-01"):
            answer = await someone.get(f"/usage?{bad}")
            assert answer.status_code == 400 and "range cannot be shown" in answer.text
        assert (await someone.get("/usage?service_id=nobodys")).status_code == 404
        assert (await someone.get("/usage.csv")).headers["content-type"].startswith("text/csv")
