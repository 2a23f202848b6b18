"""What the pages say where an API answers with what cannot be used. None does; a proxy between them
may."""

import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from handoff_common.clock import ManualClock
from support.console import API_TOKEN, lone_console


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

    async with lone_console(tmp_path, answer) as (http, _):
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

    async with lone_console(tmp_path, answer) as (http, csrf):
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
        return httpx.Response(201, json=API_TOKEN | {"access_token": "n" * 32})

    url = "https://console.example.com"
    async with lone_console(tmp_path, answer, console_url=url) as (http, csrf):
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
    async with lone_console(tmp_path, answer, clock, **secret) as (http, _):
        clock.advance(seconds=168 * 3_600 - 1)
        page = await http.get("/services/new")
        assert page.status_code == 200
        [cookie] = http.cookies.jar
        assert (cookie.expires or 0) > time.time() + 167 * 3_600
        clock.advance(seconds=1)
        assert (await http.get("/services/new")).status_code == 303
