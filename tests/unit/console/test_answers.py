"""What the pages say where an API answers with what cannot be used. None does; a proxy between them
may."""

import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from handoff_common.clock import Clock, ManualClock, SystemClock
from handoff_console.settings import ConsoleSettings
from handoff_console.wiring import build

TOKEN = {
    "id": "t",
    "user_id": "u",
    "customer_id": "c",
    "name": "test",
    "scope": "global",
    "created_at": "2026-11-01T00:00:00Z",
}
USER = {
    "id": "u",
    "login": "anna@example.com",
    "name": "Anna",
    "role": "superuser",
    "customer_id": "c",
    "created_at": "2026-11-01T00:00:00Z",
    "updated_at": "2026-11-01T00:00:00Z",
}
CUSTOMER = {
    "id": "c",
    "name": "Example",
    "account_type": "paid",
    "created_at": "2026-11-01T00:00:00Z",
    "updated_at": "2026-11-01T00:00:00Z",
}
KNOWN = {"/tokens/self": TOKEN, "/current_user": USER, "/current_customer": CUSTOMER}


@asynccontextmanager
async def signed_in(
    folder: Path,
    answer: Callable[[httpx.Request], httpx.Response],
    clock: Clock | None = None,
    console_url: str = "",
    **form: str,
) -> AsyncIterator[tuple[httpx.AsyncClient, str]]:
    """A browser whose console gets these answers, and the token of its forms. form: that is signed
    in with, where it is no API token."""

    def every(request: httpx.Request) -> httpx.Response:
        known = KNOWN.get(request.url.path)
        return answer(request) if known is None else httpx.Response(200, json=known)

    console = build(
        ConsoleSettings(data_dir=folder, console_url=console_url),
        api_url="http://api.example",
        clock=clock or SystemClock(),
        transport=httpx.MockTransport(every),
    )
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(console.app),
        base_url=console_url or "http://console.example",
        headers={"Accept": "text/html"},
    ) as http:
        before = _csrf(await http.get("/sign-in"))
        done = await http.post("/sign-in", data={"csrf": before, **(form or {"token": "t" * 32})})
        assert done.status_code == 303
        yield http, _csrf(await http.get("/services/new"))


def _csrf(page: httpx.Response) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', page.text)
    assert found is not None
    return found[1]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>Welcome to the hotel's network</html>"),
        (200, b'{"data": 7}'),
        (200, b"\xff\x00"),
        (204, b""),
        (302, b""),
        (500, b"Internal Server Error"),
    ],
)
async def test_an_answer_that_is_none_is_said_to_be_none(
    tmp_path: Path, status: int, body: bytes
) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(status, content=body, headers={"Location": "https://hotel.example"})

    async with signed_in(tmp_path, answer) as (http, _):
        for path in ("/services", "/usage", "/connections", "/users", "/services/s/websockets"):
            page = await http.get(path)
            assert page.status_code == 502, path
            assert "<main" in page.text and "location" not in page.headers, path


NOTHING_CHANGED = "Nothing was changed"


@pytest.mark.parametrize(
    ("lost", "certain"),
    [
        (httpx.Response(504), False),
        (httpx.ReadError("the connection was reset"), False),
        (httpx.ConnectError("connection refused"), True),
    ],
)
async def test_a_change_whose_answer_is_lost_may_have_been_made(
    tmp_path: Path, lost: httpx.Response | httpx.ConnectError | httpx.ReadError, certain: bool
) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        if isinstance(lost, httpx.Response):
            return lost
        raise lost

    async with signed_in(tmp_path, answer) as (http, csrf):
        # What is never repeated, so that nothing is waited for.
        page = await http.post("/services/s/versions/1/clone", data={"csrf": csrf})
        assert page.status_code == 503
        assert (NOTHING_CHANGED in page.text) is certain
        assert ("may have been done" in page.text) is not certain
        page = await http.get("/users")
        assert page.status_code == 503 and NOTHING_CHANGED in page.text


async def test_a_new_token_is_tried_at_the_address_that_people_have(tmp_path: Path) -> None:
    """A proxy may pass on another Host and scheme than people see."""

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(201, json=TOKEN | {"access_token": "n" * 32})

    url = "https://console.example.com"
    async with signed_in(tmp_path, answer, console_url=url) as (http, csrf):
        page = await http.post(
            "/account/tokens", data={"csrf": csrf, "name": "x"}, headers={"Host": "pod-7:8004"}
        )
        assert f"{url}/tokens/self" in page.text and "pod-7" not in page.text


async def test_a_session_is_as_long_as_its_token(tmp_path: Path) -> None:
    """However long HANDOFF_SESSION_HOURS lets it be, which only the API knows."""
    session = {
        "access_token": "t" * 32,
        "token_id": "t",
        "expires_at": "2026-11-08T00:00:00Z",
        "user": {"id": "u", "login": "anna@example.com", "name": "Anna", "role": "superuser"},
        "customer": {"id": "c", "name": "Example"},
    }

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/v1/sessions"
        return httpx.Response(201, json=session)

    clock = ManualClock(datetime(2026, 11, 1, tzinfo=UTC))
    secret = {"login": "anna@example.com", "password": "correct horse battery"}
    async with signed_in(tmp_path, answer, clock, **secret) as (http, _):
        clock.advance(seconds=168 * 3_600 - 1)
        page = await http.get("/services/new")
        assert page.status_code == 200
        [cookie] = http.cookies.jar
        assert (cookie.expires or 0) > time.time() + 167 * 3_600
        clock.advance(seconds=1)
        assert (await http.get("/services/new")).status_code == 303
