"""The gateway's configuration in a real nginx, in both forms: who gets what, its own answers."""

import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import httpx
import pytest
from pydantic import SecretStr

from handoff_common.clock import SystemClock
from handoff_common.docs_page import ASSETS
from handoff_common.service import listen, serving
from handoff_console.security import CONTENT_SECURITY_POLICY
from handoff_console.settings import ConsoleSettings
from handoff_console.wiring import build
from handoff_standalone.gateway import ROUTES, service_of

FOLDER = Path(__file__).parents[3] / "deploy/gateway"
APIS = {"config": 8001, "metering": 8002, "billing": 8003}
PORTS = APIS | {"console": 8004}
PASSED = ("Host", "X-Forwarded-For", "X-Forwarded-Proto")
OWN_PAGES = ("docs", *(f"docs/{name}" for name in ASSETS), "openapi.json", "healthz", "readyz")
PATHS = (
    "/",
    "/sign-in?next=%2Fusage",
    "/static/app.css?v=0123456789ab",
    "/usage",
    "/invoices/INV-2026-000001",
    "/console/readyz",
    "/service",
    "/service/x/version/1/backend?limit=2",
    "/services",
    "/enabled-products/v1/websockets/services/x",
    "/tokens/self",
    "/v1/customers/x/contracts",
    "/v1/customers/x/pricing",
    "/v1/customers/x/credits",
    "/v1/customers/x/forecast",
    "/v1/customers/x/costs?month=2026-10",
    "/v1/customers/a%2Fb/pricing",
    "/stats",
    "/statsx",
    "/v1/usage?by=day",
    "/v1/connections/x",
    "/v1/concurrency?service_id=x",
    "/billing/v3/invoices/month-to-date",
    "/billing/v4",
    "/v1/estimates",
    "/v1//usage",
    "/etc/passwd",
)


@dataclass
class Stubs:
    """A server in each service's place; those in `ill` are not ready. `/live` is a stream whose
    second event is written when the first one has been `seen`."""

    ports: dict[str, int] = field(default_factory=dict)
    ill: set[str] = field(default_factory=set)
    seen: threading.Event = field(default_factory=threading.Event)


@contextmanager
def stub(name: str, stubs: Stubs) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path == "/live":
                self._stream()
                return
            ill = self.path == "/readyz" and name in stubs.ill
            page = f"{name} {self.path}"
            self.send_response(503 if ill else 200)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(page)))
            for passed in PASSED:
                self.send_header(f"Got-{passed}", self.headers[passed])
            self.end_headers()
            self.wfile.write(page.encode())

        def _stream(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(b"data: 1\n\n")
            if stubs.seen.wait(10):
                self.wfile.write(b"data: 2\n\n")
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stubs.ports[name] = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass(frozen=True)
class Gateway:
    """own: the port that only the web interface has."""

    port: int
    own: int
    stubs: Stubs
    form: str

    def get(self, path: str) -> tuple[HTTPResponse, str]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer, answer.read().decode()
        finally:
            connection.close()


@contextmanager
def nginx(folder: Path, form: str, stubs: Stubs) -> Iterator[Gateway]:
    """The gateway of this form with the addresses of the stubs, on a free port."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program, "tests/support/install.sh installs nginx"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    services = (FOLDER / f"{form}.conf").read_text()
    for name, usual in PORTS.items():
        assert f"{name}:{usual}" in services
        services = services.replace(f"{name}:{usual}", f"127.0.0.1:{stubs.ports[name]}")
    text = (FOLDER / "nginx.conf").read_text().replace("listen 8000", f"listen 127.0.0.1:{port}")
    with socket.create_server(("127.0.0.1", 0)) as free:
        own = free.getsockname()[1]
    text = text.replace("listen 8005", f"listen 127.0.0.1:{own}").replace("8005 ", f"{own} ")
    (folder / "services.conf").write_text(services)
    (folder / "nginx.conf").write_text(text.replace("/tmp/", f"{folder}/"))
    # Started as root it would become a user who may not write into the test's folder.
    options = "daemon off;" + (" user root;" if os.geteuid() == 0 else "")
    with (folder / "said").open("w+") as said:
        process = subprocess.Popen(
            [program, "-c", str(folder / "nginx.conf"), "-g", options], stdout=said, stderr=said
        )
        try:
            deadline = time.monotonic() + 10
            while not _listens(port):
                if time.monotonic() > deadline or process.poll() is not None:
                    said.seek(0)
                    pytest.fail(f"nginx did not start: {said.read()}")
                time.sleep(0.05)
            yield Gateway(port, own, stubs, form)
        finally:
            process.terminate()
            process.wait(10)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module", params=["compose", "kubernetes"])
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    stubs = Stubs()
    with ExitStack() as stack:
        for name in PORTS:
            stack.enter_context(stub(name, stubs))
        folder = tmp_path_factory.mktemp("gateway")
        yield stack.enter_context(nginx(folder, request.param, stubs))


@pytest.fixture
def gateway(running: Gateway) -> Iterator[Gateway]:
    yield running
    running.stubs.ill.clear()
    running.stubs.seen.clear()


@pytest.mark.parametrize("path", PATHS)
def test_a_path_reaches_its_service_as_it_was_sent(gateway: Gateway, path: str) -> None:
    answer, body = gateway.get(path)
    service = service_of(unquote(path.partition("?")[0])) or "console"
    assert (answer.status, body) == (200, f"{service} {path}")


@pytest.mark.parametrize("path", ["/v1/usage", "/sign-in"])
def test_a_service_knows_who_asked_for_which_address(gateway: Gateway, path: str) -> None:
    """The host with its port: the web interface compares it with the Origin of a form."""
    answer, _ = gateway.get(path)
    assert answer.getheader("Got-Host") == f"127.0.0.1:{gateway.port}"
    assert answer.getheader("Got-X-Forwarded-For") == "127.0.0.1"
    assert answer.getheader("Got-X-Forwarded-Proto") == "http"


def test_only_the_web_interface_is_believed_for_whom_it_asks(gateway: Gateway) -> None:
    headers = {"X-Forwarded-For": "203.0.113.9"}
    for port, expected in ((gateway.port, "127.0.0.1"), (gateway.own, "203.0.113.9")):
        connection = HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", "/v1/usage", headers=headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.getheader("Got-X-Forwarded-For") == expected
        finally:
            connection.close()


def test_a_live_page_gets_each_event_when_it_is_written(gateway: Gateway) -> None:
    connection = HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    try:
        connection.request("GET", "/live", headers={"Accept": "text/event-stream"})
        answer = connection.getresponse()
        assert answer.getheader("Content-Type") == "text/event-stream"
        assert answer.read(9) == b"data: 1\n\n"
        gateway.stubs.seen.set()
        assert answer.read() == b"data: 2\n\n"
    finally:
        connection.close()


def test_the_routes_are_the_embedded_systems() -> None:
    """nginx takes the first regular expression that matches, as the table's reader does."""
    text = (FOLDER / "nginx.conf").read_text()
    routed = r'location ~ "\^(.+)" \{ set \$service (\w+); proxy_pass http://\$upstream; \}$'
    assert re.findall(routed, text, re.MULTILINE) == list(ROUTES)


@pytest.mark.parametrize("service", APIS)
def test_a_services_own_pages(gateway: Gateway, service: str) -> None:
    for page in OWN_PAGES:
        answer, body = gateway.get(f"/{service}/{page}")
        assert (answer.status, body) == (200, f"{service} /{page}")
    assert gateway.get(f"/{service}/docs/x")[1] == f"console /{service}/docs/x"
    metrics, body = gateway.get(f"/{service}/metrics")
    if gateway.form == "compose":
        assert (metrics.status, body) == (200, f"{service} /metrics")
    else:
        assert metrics.status == 404
        assert metrics.getheader("Content-Type") == "application/problem+json"
        assert json.loads(body)["request_id"] == metrics.getheader("X-Request-Id")


@pytest.mark.parametrize("ill", [None, *APIS])
def test_it_is_ready_when_all_three_apis_are(gateway: Gateway, ill: str | None) -> None:
    """As the embedded system: the web interface is ready whenever it answers."""
    gateway.stubs.ill.update({ill} if ill else set())
    answer, body = gateway.get("/readyz")
    assert answer.status == (503 if ill else 200)
    assert json.loads(body)["status"] == ("not ready" if ill else "ok")
    assert gateway.get("/healthz")[0].status == 200


def test_what_is_its_own(gateway: Gateway) -> None:
    assert "/billing/docs" in gateway.get("/docs")[1]
    assert gateway.get("/.ready/config")[0].status == 404


def test_a_service_that_is_away(tmp_path: Path) -> None:
    nobody = Stubs(ports=dict.fromkeys(PORTS, 1))
    with nginx(tmp_path, "compose", nobody) as gateway:
        answer, body = gateway.get("/v1/usage")
        assert answer.status == 503
        assert answer.getheader("Retry-After")
        assert json.loads(body)["type"] == "urn:handoff:error:service_away"
        assert gateway.get("/readyz")[0].status == 503
        page, body = gateway.get("/sign-in")
        assert page.status == 503
        assert page.getheader("Content-Type") == "text/html; charset=utf-8"
        assert page.getheader("Retry-After")
        assert page.getheader("Content-Security-Policy")
        assert "does not answer" in body


async def test_a_form_of_the_published_address_is_the_web_interfaces_own(tmp_path: Path) -> None:
    """The console itself behind the gateway: Origin and Host agree on a port that it does not know;
    a form of another site is refused."""
    apis = httpx.MockTransport(lambda _: httpx.Response(401, json={"title": "Unauthorized"}))
    settings = ConsoleSettings(console_secret=SecretStr("x" * 32))
    console = build(settings, api_url="http://apis", clock=SystemClock(), transport=apis)
    with listen("127.0.0.1", 0) as listener:
        stubs = Stubs(ports=dict.fromkeys(PORTS, 1) | {"console": listener.getsockname()[1]})
        async with serving(console.app, listener):
            with nginx(tmp_path, "compose", stubs) as gateway:
                address = f"http://127.0.0.1:{gateway.port}"
                async with httpx.AsyncClient(base_url=address) as browser:
                    page = await browser.get("/sign-in")
                    assert page.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
                    found = re.search(r'name="csrf" value="([^"]+)"', page.text)
                    assert found
                    form = {"csrf": found[1], "token": "nobodys", "next": ""}
                    for origin, status in ((address, 401), ("http://127.0.0.1:8004", 403)):
                        answer = await browser.post(
                            "/sign-in", data=form, headers={"Origin": origin}
                        )
                        assert answer.status_code == status, origin
