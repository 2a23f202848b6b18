"""Either client of `handoff_client`, for a test on an event loop; it keeps what was called."""

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeVar

from handoff_client import AsyncClient, Call, Client, Listing, Page

T = TypeVar("T")
Places = set[tuple[str, str]]


class Driver(Protocol):
    """called: method and path template of everything that was run and answered."""

    called: Places

    async def run(self, call: Call[T]) -> T: ...

    async def items(self, listing: Listing[T]) -> list[T]: ...

    async def page(self, listing: Listing[T], at: str | None = None) -> Page[T]: ...

    def bearing(self, token: str) -> "Driver": ...

    async def close(self) -> None: ...


class SyncDriver:
    """`Client`, in a thread of its own."""

    def __init__(self, client: Client, called: Places | None = None) -> None:
        self._client = client
        self.called: Places = set() if called is None else called

    async def run(self, call: Call[T]) -> T:
        found = await asyncio.to_thread(self._client.run, call)
        self.called.add((call.method, call.template))
        return found

    async def items(self, listing: Listing[T]) -> list[T]:
        found = await asyncio.to_thread(lambda: list(self._client.items(listing)))
        self.called.add((listing.first.method, listing.first.template))
        return found

    async def page(self, listing: Listing[T], at: str | None = None) -> Page[T]:
        return await self.run(listing.page(at))

    def bearing(self, token: str) -> Driver:
        return SyncDriver(self._client.with_token(token), self.called)

    async def close(self) -> None:
        self._client.close()


class AsyncDriver:
    """`AsyncClient`."""

    def __init__(self, client: AsyncClient, called: Places | None = None) -> None:
        self._client = client
        self.called: Places = set() if called is None else called

    async def run(self, call: Call[T]) -> T:
        found = await self._client.run(call)
        self.called.add((call.method, call.template))
        return found

    async def items(self, listing: Listing[T]) -> list[T]:
        found = [item async for item in self._client.items(listing)]
        self.called.add((listing.first.method, listing.first.template))
        return found

    async def page(self, listing: Listing[T], at: str | None = None) -> Page[T]:
        return await self.run(listing.page(at))

    def bearing(self, token: str) -> Driver:
        return AsyncDriver(self._client.with_token(token), self.called)

    async def close(self) -> None:
        await self._client.aclose()


def sync_driver(url: str, token: str) -> Driver:
    return SyncDriver(Client(url, token))


def async_driver(url: str, token: str) -> Driver:
    return AsyncDriver(AsyncClient(url, token))


DRIVERS: dict[str, Callable[[str, str], Driver]] = {"sync": sync_driver, "async": async_driver}
