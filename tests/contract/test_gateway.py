"""The embedded system's one port: each path of each service reaches that service, and no other;
what is no service's is the web interface's."""

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from handoff_standalone.gateway import Gateway, service_of


@pytest.mark.parametrize(
    ("path", "service"),
    [
        ("/service", "config"),
        ("/service/x/version/1/backend", "config"),
        ("/services", None),
        ("/enabled-products/v1/websockets/services/x", "config"),
        ("/tokens/self", "config"),
        ("/v1/customers", "config"),
        ("/v1/customers/x/contracts", "config"),
        ("/v1/customers/x/pricing", "billing"),
        ("/v1/customers/x/forecast", "billing"),
        ("/v1/customers/x/costs", "billing"),
        ("/v1/customers/x/costsheets", "config"),
        ("/v1/concurrency", "metering"),
        ("/v1/services/x/websockets/check", "config"),
        ("/v1/services/x/versions/2/match", "config"),
        ("/stats/service/x", "metering"),
        ("/stats", "metering"),
        ("/v1/usage", "metering"),
        ("/v1/usages", None),
        ("/v1/parked", "metering"),
        ("/v1/parked/3/17/decision", "metering"),
        ("/v1/connections/x", "metering"),
        ("/v1/refusals", "metering"),
        ("/billing/v3/invoices/month-to-date", "billing"),
        ("/billing/docs", None),
        ("/v1/invoices/1/finalize", "billing"),
        ("/v1/estimates", "billing"),
        ("/etc/passwd", None),
    ],
)
def test_paths_reach_their_service(path: str, service: str | None) -> None:
    assert service_of(path) == service


def named(name: str) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(f"{name} {scope['path']}")(scope, receive, send)

    return app


@pytest.fixture
async def embedded() -> httpx.AsyncClient:
    gateway = Gateway({name: named(name) for name in ("config", "metering", "billing")}, tuple)
    gateway.console = named("console")
    transport = httpx.ASGITransport(gateway)
    return httpx.AsyncClient(transport=transport, base_url="http://embedded")


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/", "console /"),
        ("/sign-in", "console /sign-in"),
        ("/static/app.css", "console /static/app.css"),
        ("/invoices", "console /invoices"),
        ("/v1/usages", "console /v1/usages"),
        ("/console/readyz", "console /console/readyz"),
        ("/billing/v4", "console /billing/v4"),
        ("/v1/invoices", "billing /v1/invoices"),
        ("/billing/docs", "billing /billing/docs"),
    ],
)
async def test_what_is_no_services_is_the_web_interfaces(
    embedded: httpx.AsyncClient, path: str, answer: str
) -> None:
    assert (await embedded.get(path)).text == answer


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/docs"])
async def test_what_speaks_for_all_is_the_gateways(embedded: httpx.AsyncClient, path: str) -> None:
    answer = await embedded.get(path)
    assert answer.status_code == 200
    assert "console" not in answer.text
