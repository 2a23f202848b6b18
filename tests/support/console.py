"""The console over the whole embedded system, as a browser without scripts would use it."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx

from support.embedded import Embedded


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
