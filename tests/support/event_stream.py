"""Server-sent events as a browser hears them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx

PATIENCE = 20.0


@dataclass
class Listener:
    """name → the last HTML of each event."""

    response: httpx.Response
    _lines: AsyncIterator[str] = field(repr=False)
    parts: dict[str, str] = field(default_factory=dict)
    ended: bool = False

    async def until(self, name: str, text: str) -> str:
        """The first event of this name with this text in it."""
        async with asyncio.timeout(PATIENCE):
            while True:
                heard, html = await self._next()
                if heard == name and text in html:
                    return html

    async def to_the_end(self) -> None:
        async with asyncio.timeout(PATIENCE):
            while not self.ended:
                await self._next()

    async def _next(self) -> tuple[str, str]:
        name, data = "", []
        async for line in self._lines:
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                data.append(line.removeprefix("data: "))
            elif not line and name:
                html = "\n".join(data)
                self.parts[name] = html
                return name, html
        self.ended = True
        return "", ""


@asynccontextmanager
async def listening(http: httpx.AsyncClient, path: str) -> AsyncIterator[Listener]:
    async with http.stream("GET", path, timeout=PATIENCE) as response:
        yield Listener(response, response.aiter_lines())
