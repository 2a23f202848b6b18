"""The console over the whole embedded system, as a browser without scripts would use it."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from handoff_common.clock import Clock, SystemClock
from handoff_console.settings import ConsoleSettings
from handoff_console.wiring import build
from support.embedded import Embedded

API_TOKEN = {
    "id": "t",
    "user_id": "u",
    "customer_id": "c",
    "name": "test",
    "scope": "global",
    "created_at": "2026-11-01T00:00:00Z",
}
_USER = {
    "id": "u",
    "login": "anna@example.com",
    "name": "Anna",
    "role": "superuser",
    "customer_id": "c",
    "created_at": "2026-11-01T00:00:00Z",
    "updated_at": "2026-11-01T00:00:00Z",
}
_CUSTOMER = {
    "id": "c",
    "name": "Example",
    "account_type": "paid",
    "created_at": "2026-11-01T00:00:00Z",
    "updated_at": "2026-11-01T00:00:00Z",
}
_KNOWN = {"/tokens/self": API_TOKEN, "/current_user": _USER, "/current_customer": _CUSTOMER}


@dataclass
class Visitor:
    """One session. `post` sends the token of the page that was seen last."""

    http: httpx.AsyncClient
    csrf: str = ""

    async def get(self, path: str, **headers: str) -> httpx.Response:
        answer = await self.http.get(path, headers=headers)
        self._note(answer)
        return answer

    async def post(self, path: str, **fields: str) -> httpx.Response:
        answer = await self.http.post(path, data={"csrf": self.csrf} | fields)
        self._note(answer)
        return answer

    async def sign_in(self, token: str) -> None:
        await self.get("/sign-in")
        answer = await self.post("/sign-in", token=token)
        assert answer.status_code == 303, answer.text
        # The token against forged forms is another one now.
        await self.get("/services/new")

    def _note(self, answer: httpx.Response) -> None:
        found = re.search(r'name="csrf" value="([^"]+)"', answer.text)
        if found:
            self.csrf = found[1]


@asynccontextmanager
async def visitor(system: Embedded) -> AsyncIterator[Visitor]:
    async with httpx.AsyncClient(
        base_url=system.api_url,
        trust_env=False,
        timeout=20,
        headers={"Accept": "text/html"},
    ) as http:
        yield Visitor(http)


@asynccontextmanager
async def console_over(
    api_url: str, data: Path, token: str, transport: httpx.AsyncBaseTransport
) -> AsyncIterator[Visitor]:
    """At a console of its own over a running system, whose answers the transport may change."""
    console = build(
        ConsoleSettings(data_dir=data), api_url=api_url, clock=SystemClock(), transport=transport
    )
    app = httpx.ASGITransport(console.app)
    try:
        async with httpx.AsyncClient(base_url="http://console", transport=app) as http:
            someone = Visitor(http)
            await someone.sign_in(token)
            yield someone
    finally:
        await console.on_stop()


@asynccontextmanager
async def lone_console(
    data: Path,
    answer: Callable[[httpx.Request], httpx.Response],
    clock: Clock | None = None,
    console_url: str = "",
    **form: str,
) -> AsyncIterator[tuple[httpx.AsyncClient, str]]:
    """A console whose APIs answer what a test says; a superuser has signed in. With it comes the
    token of its forms. form: what is signed in with, where it is no API token."""

    def api(request: httpx.Request) -> httpx.Response:
        known = _KNOWN.get(request.url.path)
        return answer(request) if known is None else httpx.Response(200, json=known)

    console = build(
        ConsoleSettings(data_dir=data, console_url=console_url),
        api_url="http://api.example",
        clock=clock or SystemClock(),
        transport=httpx.MockTransport(api),
    )
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(console.app),
        base_url=console_url or "http://console.example",
        headers={"Accept": "text/html"},
    ) as http:
        visitor = Visitor(http)
        await visitor.get("/sign-in")
        signed_in = await visitor.post("/sign-in", **(form or {"token": "t" * 32}))
        assert signed_in.status_code == 303
        await visitor.get("/services/new")
        yield http, visitor.csrf
    await console.on_stop()
