"""The edge as a process, its admin port, its settings, and the decision through ASGI."""

import asyncio
import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from handoff_common.errors import SettingError
from handoff_common.settings import load
from handoff_edge.app import decision_app
from handoff_edge.errors import Refusal
from handoff_edge.metrics import STAGES
from handoff_edge.settings import EdgeSettings
from support.edge_events import request_bytes, service
from support.edge_world import RawClient, backend_of, parse, soon, until, world


async def admin(w: Any, path: str) -> httpx.Response:
    transport = httpx.ASGITransport(app=w.edge.service.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://edge") as client:
        return await client.get(path)


async def test_the_admin_port_says_how_the_edge_is(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.open()
        await w.ask(request_bytes(host="nobody.example.com"))
        assert (await admin(w, "/healthz")).json() == {"status": "ok"}
        assert (await admin(w, "/readyz")).json() == {"status": "ok", "reasons": []}
        state = (await admin(w, "/v1/edge")).json()
        assert state["edge_id"] == w.log.owner_id
        assert state["open_connections"] == 1
        assert state["rulebook"]["services"] == 1
        metrics = (await admin(w, "/metrics")).text
        assert "handoff_edge_connections_open 1.0" in metrics
        assert 'handoff_edge_refused_total{code="unknown_domain"} 1.0' in metrics
        assert "handoff_edge_handshake_seconds_count 1.0" in metrics
        assert "handoff_edge_journal_append_seconds_count 1.0" in metrics
        w.edge.configuration.seen = False
        unready = await admin(w, "/readyz")
        assert unready.status_code == 503
        assert unready.json()["reasons"] == ["configuration: none was ever seen"]


def sample(text: str, name: str) -> float:
    """The value of one sample, with its labels as they stand in the text; 0 where there is none."""
    found = [line for line in text.splitlines() if line.startswith(name + " ")]
    return float(found[0].rpartition(" ")[2]) if found else 0.0


async def test_a_handshake_and_an_end_are_measured(tmp_path: Path) -> None:
    async with world(tmp_path, metrics_services=1) as w:
        await w.tell(
            service(
                200,
                service_id="small",
                domains=("s.example.com",),
                backends=(backend_of(w.origin),),
            )
        )
        clients = [await w.open(), await w.open(), await w.open(host="s.example.com")]
        await clients[0].send(b"\x82\x00")
        await clients[0].exactly(2)
        text = (await admin(w, "/metrics")).text
        stage = "handoff_edge_handshake_stage_seconds_count"
        for name in STAGES:
            expected = 0 if name == "origin_tls" else 3
            assert sample(text, f'{stage}{{stage="{name}"}}') == expected, name
        by_service = "handoff_edge_service_connections_open"
        assert sample(text, f'{by_service}{{service="svc"}}') == 2
        assert sample(text, f'{by_service}{{service="other"}}') == 1
        accepted = "handoff_edge_service_connections_accepted_total"
        assert sample(text, f'{accepted}{{service="svc"}}') == 2
        assert sample(text, f'{accepted}{{service="other"}}') == 1
        assert sample(text, "handoff_edge_connections_idle") == 0, "nobody was looked at yet"
        await w.edge.checkpoints.all()
        assert sample((await admin(w, "/metrics")).text, "handoff_edge_connections_idle") == 2
        await clients[1].send(b"\x82\x00")
        await clients[1].exactly(2)
        await w.edge.checkpoints.all()
        text = (await admin(w, "/metrics")).text
        assert sample(text, "handoff_edge_connections_idle") == 2
        assert sample(text, 'handoff_edge_body_bytes_total{direction="from_client"}') == 4
        body = "handoff_edge_service_body_bytes_total"
        assert sample(text, f'{body}{{direction="from_client",service="svc"}}') == 4
        assert sample(text, f'{body}{{direction="from_client",service="other"}}') == 0
        await clients[2].send(b"\x88\x82\0\0\0\0\x0f\xa1")
        await clients[2].exactly(8)
        clients[2].writer.close()
        clients[0].reset()
        await until(lambda: len(w.edge.tunnels) == 1)
        text = (await admin(w, "/metrics")).text
        closed = "handoff_edge_connections_closed_total"
        assert sample(text, closed + '{close_code="other",reason="client_closed"}') == 1
        assert sample(text, closed + '{close_code="none",reason="client_reset"}') == 1
        assert sample(text, "handoff_edge_connections_idle") == 0
        assert sample(text, f'{by_service}{{service="other"}}') == 0


async def test_what_the_relay_holds_is_measured(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client = await w.open()
        flood = asyncio.create_task(client.send(bytes(1 << 24)))

        async def held() -> float | None:
            return sample((await admin(w, "/metrics")).text, "handoff_edge_relay_buffer_bytes")

        # The origin echoes, and this client reads nothing.
        async with asyncio.timeout(15):
            while not await held():
                await asyncio.sleep(0.01)
        flood.cancel()
        client.reset()
        await until(lambda: not len(w.edge.tunnels))
        assert await held() == 0


async def test_every_metric_is_documented(tmp_path: Path) -> None:
    table = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    async with world(tmp_path) as w:
        text = (await admin(w, "/metrics")).text
    named = re.findall(r"^# TYPE handoff_edge_(\S+) (\S+)$", text, re.MULTILINE)
    assert len(named) > 20
    assert not [
        name for name, _ in named if not name.endswith("_created") and f"`{name}`" not in table
    ]


async def test_the_decision_is_an_asgi_application() -> None:
    said: list[Any] = []

    async def send(message: Any) -> None:
        said.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    def decide(head: object, server_name: str | None) -> Refusal:
        return Refusal("too_many_new", f"{head} is too much", retry_after=3)

    app = decision_app(decide)
    extension = {"head": "it", "server_name": None}
    scope = {"type": "websocket", "path": "/a\nb", "extensions": {"handoff": extension}}
    await app(scope, receive, send)
    start, body = said
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 429)
    assert dict(start["headers"]) == {
        b"x-handoff-error": b"too_many_new",
        b"retry-after": b"3",
    }
    assert body["body"] == b"it is too much\n"


async def test_an_application_that_fails_is_500(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        assert w.edge._node is not None

        async def broken(*_: Any) -> None:
            raise ValueError("a fault")

        w.edge._node.app = broken
        status, headers, _ = await w.ask(request_bytes())
        assert (status, headers["x-handoff-error"]) == (500, "internal")


@pytest.mark.parametrize(
    ("variable", "value", "takes"),
    [
        ("HANDOFF_REGION", "mars", "europe"),
        ("HANDOFF_EDGE_PORT", "70000", "65535"),
        ("HANDOFF_ALLOW_PRIVATE_ORIGINS", "perhaps", "boolean"),
        ("HANDOFF_OWN_ADDRESSES", "10.0.0.0/33", "10.0.0.0/33"),
        ("HANDOFF_PROXY_PROTOCOL_FROM", "10.0.0.0/8,lb.example.com", "lb.example.com"),
        ("HANDOFF_LOG", "redis://x", "sqlite:///"),
        ("HANDOFF_POP", "a b", "letters"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(variable: str, value: str, takes: str) -> None:
    with pytest.raises(SettingError) as caught:
        load(EdgeSettings, {variable: value})
    assert variable in str(caught.value)
    assert value in str(caught.value)
    assert takes in str(caught.value)


async def test_a_port_in_use_and_a_missing_ca_stop_the_start(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        (tmp_path / "other").mkdir()
        with pytest.raises(SettingError, match=f"HANDOFF_EDGE_PORT = {w.edge.port}"):
            async with world(tmp_path / "other", edge_port=w.edge.port):
                pass
    (tmp_path / "third").mkdir()
    with pytest.raises(SettingError, match="HANDOFF_EXTRA_CA"):
        async with world(tmp_path / "third", extra_ca=tmp_path / "missing.pem"):
            pass


async def test_the_process_serves_until_sigterm(tmp_path: Path) -> None:
    environ = {
        **os.environ,
        "HANDOFF_DATA_DIR": str(tmp_path),
        "HANDOFF_EDGE_HOST": "127.0.0.1",
        "HANDOFF_EDGE_PORT": "0",
        "HANDOFF_EDGE_ADMIN_PORT": "0",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "handoff_edge", "serve", env=environ, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        line: dict[str, Any] = {}
        while line.get("event") != "listening":
            line = json.loads(await soon(process.stderr.readline()))
        client = RawClient(*await asyncio.open_connection("127.0.0.1", line["port"]))
        await client.send(request_bytes())
        _, headers, _ = parse(await client.rest())
        assert headers["x-handoff-error"] in ("unknown_domain", "no_configuration")
        client.writer.close()
        process.send_signal(signal.SIGTERM)
        assert await soon(process.wait()) == 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
    assert (tmp_path / "rulebook.json").exists()


async def test_a_second_process_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    async with world(tmp_path):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "handoff_edge",
            "serve",
            env={**os.environ, "HANDOFF_DATA_DIR": str(tmp_path)},
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            _, errors = await soon(process.communicate())
        finally:
            if process.returncode is None:
                # One that was left would keep the event loop from closing.
                process.kill()
                await process.wait()
        assert process.returncode == 1
        assert f"in use by process {os.getpid()}" in errors.decode()
