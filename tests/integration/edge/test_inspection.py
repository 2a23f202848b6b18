"""Open connections on the admin port: one edge's, and all workers' of a node."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp

from handoff_common.clock import ManualClock
from handoff_common.events import Limits, RuleSnapshot
from handoff_common.service import listen_on_path, serving
from handoff_edge import node
from handoff_edge.node import Worker
from support.edge_events import NOW, customer, end_connection, service
from support.edge_world import Origin, World, agree, backend_of, until, world

FRAME = b"\x81\x85\x01\x02\x03\x04ieoha"


async def get(app: ASGIApp, path: str) -> httpx.Response:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://edge") as client:
        return await client.get(path)


async def listed(app: ASGIApp, query: str = "") -> dict[str, Any]:
    answer = await get(app, f"/v1/connections{query}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_one_connection_is_shown_with_all_that_is_known(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    origin = Origin(lambda head: agree(head, "Sec-WebSocket-Protocol: chat"))
    rule = RuleSnapshot(name="all", backend="main")
    async with world(tmp_path, clock=clock, origin=origin, service_changes={"rules": (rule,)}) as w:
        app = w.edge.service.app
        client = await w.open(target="/a?x=1", extra="Sec-WebSocket-Protocol: chat\r\n")
        await client.send(FRAME)
        assert await client.exactly(len(FRAME)) == FRAME
        [opened] = w.edge.tunnels
        # A byte is counted once the kernel has taken it; its reader may be quicker than that.
        await until(lambda: opened.counters().resp_body_bytes == len(FRAME))
        clock.advance(seconds=61)
        [row] = (await listed(app))["data"]
        [event] = await w.events()
        name = row["connection_id"]
        assert (await get(app, f"/v1/connections/{name}")).json() == row
        assert row == {
            "connection_id": event.data.connection_id,
            "state": "relaying",
            "customer_id": "cus",
            "service_id": "svc",
            "service_version": 3,
            "domain": "chat.example.com",
            "rule": "all",
            "backend": "main",
            "subprotocol": "chat",
            "client_network": "127.0.0.0/24",
            "tls": False,
            "accepted_at": "2026-11-10T12:00:00Z",
            "elapsed_ms": 61_000,
            "minutes": 2,
            "req_header_bytes": len(w.origin.visits[0].head),
            "req_body_bytes": len(FRAME),
            "resp_header_bytes": row["resp_header_bytes"],
            "resp_body_bytes": len(FRAME),
            "bereq_header_bytes": len(w.origin.visits[0].head),
            "bereq_body_bytes": len(FRAME),
            "beresp_header_bytes": row["resp_header_bytes"],
            "beresp_body_bytes": len(FRAME),
            "messages_from_client": 1,
            "messages_from_origin": 1,
            "unchanged_s": 0,
            "ending": None,
        }
        await w.edge.checkpoints.all()
        clock.advance(seconds=30)
        await w.edge.checkpoints.all()
        clock.advance(seconds=12)
        [row] = (await listed(app))["data"]
        assert row["unchanged_s"] == 42
        await client.send(FRAME)
        await client.exactly(len(FRAME))
        [row] = (await listed(app))["data"]
        assert row["unchanged_s"] == 0


async def test_an_end_that_is_due_is_shown(tmp_path: Path) -> None:
    async with world(tmp_path, disable_grace=1000) as w:
        await w.open()
        await w.tell(service(200, websockets_enabled=False))
        app = w.edge.service.app
        await until(lambda: all(o.ending_reason for o in w.edge.tunnels), "its end is set")
        [row] = (await listed(app))["data"]
        assert row["state"] == "ending"
        assert row["ending"]["reason"] == "disabled"
        assert 0 <= row["ending"]["in_s"] <= 1000


async def test_an_end_that_an_operator_asked_for_is_shown_and_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, disable_grace=1000) as w:
        await w.open()
        (opened,) = w.edge.tunnels
        asked: list[str] = []

        class Tunnel:
            """Never ends, as behind peers that do not answer."""

            def end(self, code: int, text: str, cause: str) -> None:
                asked.append(cause)

            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

        real, opened.tunnel = opened.tunnel, Tunnel()
        # One that was due for another reason is ended now.
        await w.tell(service(200, websockets_enabled=False))
        await until(lambda: opened.ending, "its end is set")
        future = datetime(2100, 1, 1, tzinfo=UTC)
        await w.tell(end_connection(opened.connection.connection_id, future))
        await until(lambda: asked, "it was told")
        for _ in range(3):
            w.edge.enforcement.look()
        [row] = (await listed(w.edge.service.app))["data"]
        assert row["state"] == "ending"
        assert row["ending"] == {"reason": "ended_by_operator", "in_s": None}
        await w.edge.enforcement.drain(grace=0, spread=0)
        assert asked == ["ended_by_operator"]
        assert opened.ending_reason == "ended_by_operator"
        opened.tunnel = real


async def test_what_is_not_open_is_404_with_a_code(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        answer = await get(w.edge.service.app, "/v1/connections/nobody")
        assert (answer.status_code, answer.headers["content-type"]) == (
            404,
            "application/problem+json",
        )
        assert answer.json()["type"] == "urn:handoff:error:connection_not_open"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("?limit=0", "limit"),
        ("?limit=1001", "limit"),
        ("?limit=many", "limit"),
        ("?limit=%D9%A1", "limit"),
        ("?service=svc", "service"),
    ],
)
async def test_a_wrong_query_is_named(tmp_path: Path, query: str, field: str) -> None:
    async with world(tmp_path) as w:
        answer = await get(w.edge.service.app, f"/v1/connections{query}")
        assert answer.status_code == 400
        body = answer.json()
        assert body["type"] == "urn:handoff:error:bad_query"
        assert body["errors"][0]["property"] == field


async def pages(app: ASGIApp, query: str, limit: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    cursor = ""
    while True:
        found = await listed(app, f"?limit={limit}{query}{cursor}")
        assert len(found["data"]) <= limit
        rows += found["data"]
        if found["meta"]["next_cursor"] is None:
            return rows
        cursor = f"&cursor={found['meta']['next_cursor']}"


async def test_the_list_is_filtered_and_comes_in_pages(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await with_a_second_service(w)
        for number in range(5):
            await w.open(host="other.example.com" if number == 2 else "chat.example.com")
        app = w.edge.service.app
        rows = await pages(app, "", 2)
        assert [row["service_id"] for row in rows] == ["svc", "svc", "two", "svc", "svc"]
        ids = [row["connection_id"] for row in rows]
        assert ids == sorted(set(ids))
        assert [r["connection_id"] for r in await pages(app, "&service_id=svc", 3)] == [
            *ids[:2],
            *ids[3:],
        ]
        assert [r["connection_id"] for r in await pages(app, "&customer_id=cus2", 3)] == [ids[2]]
        assert await pages(app, "&customer_id=cus2&service_id=svc", 3) == []
        assert (await listed(app, "?limit=5"))["meta"] == {"limit": 5, "next_cursor": None}


async def with_a_second_service(w: World) -> None:
    await w.tell(
        customer(150, customer_id="cus2"),
        service(
            151,
            service_id="two",
            customer_id="cus2",
            domains=("other.example.com",),
            backends=(backend_of(w.origin),),
            limits=Limits(),
        ),
    )


@asynccontextmanager
async def node_of(folder: Path, workers: int) -> AsyncIterator[tuple[ASGIApp, list[World]]]:
    """Edges whose admin ports are where a node's workers have them, and the node's own port."""
    async with AsyncExitStack() as stack:
        worlds, there = [], []
        for number in range(workers):
            (folder / str(number)).mkdir()
            w = await stack.enter_async_context(world(folder / str(number)))
            admin = listen_on_path(folder / f"{number}.sock")
            stack.callback(admin.close)
            await stack.enter_async_context(serving(w.edge.service.app, admin))
            worlds.append(w)
            worker = Worker(number, folder / str(number), 0, 0, folder)
            worker._admin = folder / f"{number}.sock"
            there.append(worker)
        yield node.admin_app(there), worlds


async def test_a_node_shows_what_all_its_workers_have(tmp_path: Path) -> None:
    async with node_of(tmp_path, 2) as (app, worlds):
        for number in range(7):
            await worlds[number % 3 % 2].open()
        rows = await pages(app, "", 3)
        assert [row["worker"] for row in rows] == [0, 1, 0, 0, 1, 0, 0]
        ids = [row["connection_id"] for row in rows]
        assert ids == sorted(set(ids))
        for row in rows:
            one = (await get(app, f"/v1/connections/{row['connection_id']}")).json()
            assert (one["worker"], one["connection_id"]) == (row["worker"], row["connection_id"])
        assert (await get(app, "/v1/connections/nobody")).status_code == 404
        assert (await get(app, "/v1/connections/a%2F..%2Fb?c")).status_code == 404
        assert (await get(app, "/v1/connections?limit=0")).status_code == 400
        assert (await listed(app))["meta"]["missing_workers"] == []


async def test_a_worker_that_does_not_answer_is_named(tmp_path: Path) -> None:
    async with node_of(tmp_path, 1) as (_, worlds):
        await worlds[0].open()
        worker = Worker(0, tmp_path, 0, 0, tmp_path)
        worker._admin = tmp_path / "0.sock"
        gone = Worker(5, tmp_path, 0, 0, tmp_path)
        app = node.admin_app([worker, gone])
        found = await listed(app)
        assert len(found["data"]) == 1
        assert found["meta"]["missing_workers"] == [5]
        answer = await get(app, "/v1/connections/nobody")
        assert answer.status_code == 503
        assert answer.json()["type"] == "urn:handoff:error:worker_away"
