"""The gateway's own pages and each service's, asked for as a browser does."""

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from handoff_billing import wiring as billing
from handoff_billing.settings import BillingSettings
from handoff_common.clock import SystemClock
from handoff_common.database import Database
from handoff_common.docs_page import ASSETS
from handoff_common.log_sqlite import SqliteLog
from handoff_common.service import Service, listen, running, serving
from handoff_config import wiring as config
from handoff_config.settings import ConfigSettings
from handoff_metering import wiring as metering
from handoff_metering.settings import MeteringSettings
from handoff_standalone.gateway import Gateway

SERVICES = ("config", "metering", "billing")


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """The three services behind the gateway, on a port of their own."""
    async with AsyncExitStack() as stack:
        log = await SqliteLog.open(tmp_path / "log.db")
        stack.push_async_callback(log.close)
        clock = SystemClock()
        services: list[Service] = []
        for name in SERVICES:
            database = Database(f"sqlite+aiosqlite:///{tmp_path / name}.db")
            stack.push_async_callback(database.close)
            match name:
                case "config":
                    settings = ConfigSettings(data_dir=tmp_path, settle_seconds=0)
                    made = config.build(settings, log=log, database=database, clock=clock)
                case "metering":
                    made = metering.build(
                        MeteringSettings(), log=log, database=database, clock=clock
                    )
                case _:
                    made = billing.build(BillingSettings(), log=log, database=database, clock=clock)
            services.append(made)
            await stack.enter_async_context(running(made))
        gateway = Gateway({one.name: one.app for one in services}, lambda: ["edge: not yet"])
        listener = stack.enter_context(listen("127.0.0.1", 0))
        await stack.enter_async_context(serving(gateway, listener))
        port = listener.getsockname()[1]
        token = (tmp_path / "operator-token").read_text().strip()
        yield await stack.enter_async_context(
            httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}",
                headers={"fastly-key": token},
                trust_env=False,
                timeout=30,
            )
        )


async def test_each_services_own_pages_are_its_own(http: httpx.AsyncClient) -> None:
    for service in SERVICES:
        document = (await http.get(f"/{service}/openapi.json")).json()
        assert document["info"]["title"] == f"Handoff {service}"
        assert (await http.get(f"/{service}/healthz")).json() == {"status": "ok"}
        assert (await http.get(f"/{service}/readyz")).status_code in (200, 503)
        metrics = await http.get(f"/{service}/metrics")
        assert metrics.headers["content-type"].startswith("text/plain") and "# HELP" in metrics.text
        nothing = await http.get(f"/{service}/nothing")
        assert nothing.status_code == 404 and nothing.json()["type"].endswith("no_such_path")
    assert (await http.get("/nobody/docs")).status_code == 404


async def test_the_gateway_speaks_for_all(http: httpx.AsyncClient) -> None:
    assert (await http.get("/healthz")).json() == {"status": "ok"}
    ready = await http.get("/readyz")
    assert ready.status_code == 503 and ready.json()["reasons"] == ["edge: not yet"]
    listing = await http.get("/docs")
    assert re.findall('href="([^"]+)"', listing.text) == [f"/{name}/docs" for name in SERVICES]


async def test_a_docs_page_needs_nothing_from_elsewhere(http: httpx.AsyncClient) -> None:
    for service in SERVICES:
        answer = await http.get(f"/{service}/docs")
        page = answer.text
        assert "http://" not in page and "https://" not in page
        loaded = re.findall(r'(?:src|href)="([^"]+)"', page)
        assert {path.rpartition("/")[2] for path in loaded} == set(ASSETS)
        for path in loaded:
            loaded_file = await http.get(answer.url.join(path))
            assert loaded_file.status_code == 200 and len(loaded_file.content) > 1_000
            assert loaded_file.headers["content-type"].startswith(ASSETS[path.rpartition("/")[2]])
        [document] = re.findall(r"url: '([^']+)'", page)
        assert (await http.get(answer.url.join(document))).json()["info"][
            "title"
        ] == f"Handoff {service}"
        assert (await http.get(f"/{service}/docs/passwd")).status_code == 404


async def test_calls_can_be_tried_from_the_document(http: httpx.AsyncClient) -> None:
    """A path of the document is one of the port, and the document says where the token goes."""
    tried = {"config": "/service", "metering": "/v1/usage", "billing": "/v1/invoices"}
    for service, path in tried.items():
        document = (await http.get(f"/{service}/openapi.json")).json()
        assert "servers" not in document and path in document["paths"]
        [key, bearer] = [next(iter(one)) for one in document["security"]]
        schemes = document["components"]["securitySchemes"]
        assert schemes[key] == {"type": "apiKey", "in": "header", "name": "Fastly-Key"}
        assert schemes[bearer] == {"type": "http", "scheme": "bearer"}
        token = http.headers["fastly-key"]
        for headers in ({"Fastly-Key": token}, {"Authorization": f"Bearer {token}"}):
            async with httpx.AsyncClient(base_url=http.base_url, trust_env=False) as other:
                assert (await other.get(path, headers=headers)).status_code == 200
        assert document["paths"]["/healthz"]["get"]["security"] == []
