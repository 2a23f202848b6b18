"""What the pages say where an API answers with what cannot be used. None does; a proxy between them
may."""

import re
from pathlib import Path

import httpx
import pytest

from handoff_common.clock import SystemClock
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
    def answer(request: httpx.Request) -> httpx.Response:
        known = KNOWN.get(request.url.path)
        if known is not None:
            return httpx.Response(200, json=known)
        return httpx.Response(status, content=body, headers={"Location": "https://hotel.example"})

    console = build(
        ConsoleSettings(data_dir=tmp_path),
        api_url="http://api.example",
        clock=SystemClock(),
        transport=httpx.MockTransport(answer),
    )
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(console.app),
        base_url="http://console.example",
        headers={"Accept": "text/html"},
    ) as http:
        form = await http.get("/sign-in")
        found = re.search(r'name="csrf" value="([^"]+)"', form.text)
        assert found is not None
        signed_in = await http.post("/sign-in", data={"csrf": found[1], "token": "t" * 32})
        assert signed_in.status_code == 303
        for path in ("/services", "/usage", "/connections", "/users", "/services/s/websockets"):
            page = await http.get(path)
            assert page.status_code == 502, path
            assert "<main" in page.text and "location" not in page.headers, path
    await console.on_stop()
