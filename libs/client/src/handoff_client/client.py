"""The two clients: thin shells that send what `exchange` says.

Both speak HTTP through httpx; another transport (an application in the same process, a recorded
answer) is an argument, as are the clock, the sleep and the chance.
"""

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from importlib.metadata import version
from typing import Self, TypeVar

import httpx

from handoff_client.call import Call, Listing, Page, Reply
from handoff_client.errors import Unexpected, no_token
from handoff_client.exchange import Failure, Send, Steps, Surroundings, Wait, exchange
from handoff_client.retry import RetryPolicy

T = TypeVar("T")

_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


def _new_key() -> str:
    return uuid.uuid4().hex


class _Settings:
    """What both clients are made of, apart from how they send."""

    def __init__(
        self,
        base_url: str,
        token: str | None,
        policy: RetryPolicy,
        surroundings: Surroundings,
        user_agent: str,
        forwarded_for: str | None = None,
    ) -> None:
        url = httpx.URL(base_url)
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError(
                f"{base_url!r} is no address of an API; allowed: http://… or https://…"
            )
        self.base_url = base_url.rstrip("/")
        self.policy = policy
        self._surroundings = surroundings
        self._user_agent = user_agent
        self._token = token
        self._forwarded_for = forwarded_for

    def steps(self, call: Call[T], timeout: float | None) -> Steps[T]:
        policy = self.policy if timeout is None else replace(self.policy, timeout=timeout)
        headers = {"Accept": "application/json", "User-Agent": self._user_agent}
        if self._token is not None:
            if not _may_be_a_token(self._token):
                raise no_token(call)
            headers["Fastly-Key"] = self._token
        if self._forwarded_for is not None:
            headers["X-Forwarded-For"] = self._forwarded_for
        return exchange(
            call,
            base_url=self.base_url,
            headers=headers,
            policy=policy,
            surroundings=self._surroundings,
        )

    def with_token(self, token: str | None, forwarded_for: str | None) -> "_Settings":
        return _Settings(
            self.base_url,
            token,
            self.policy,
            self._surroundings,
            self._user_agent,
            forwarded_for,
        )


def _may_be_a_token(text: str) -> bool:
    """Whether a header can bear it: an HTTP library would show another in its error."""
    return text.isascii() and text.isprintable() and text.strip() != ""


def _user_agent(product: str) -> str:
    own = f"handoff-client/{version('handoff-client')}"
    return f"{product} {own}" if product else own


class Client:
    """An API address with a token, for code without an event loop. May be used from several
    threads.

    transport: how it is reached; HTTP where None is given. policy: time-outs and retries.
    user_agent: who calls, put before this library's own name. clock, sleep, chance and new_key are
    for tests. Raises ValueError for an address that is none.
    """

    def __init__(
        self,
        base_url: str,
        token: str | None = None,
        *,
        policy: RetryPolicy | None = None,
        transport: httpx.BaseTransport | None = None,
        user_agent: str = "",
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
        new_key: Callable[[], str] = _new_key,
    ) -> None:
        surroundings = Surroundings(clock, chance, new_key)
        self._settings = _Settings(
            base_url, token, policy or RetryPolicy(), surroundings, _user_agent(user_agent)
        )
        self._sleep = sleep
        self._http = httpx.Client(
            base_url=self._settings.base_url, transport=transport, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    @property
    def base_url(self) -> str:
        return self._settings.base_url

    def with_token(self, token: str | None, *, forwarded_for: str | None = None) -> "Client":
        """A client with another token on the same connections; it closes with this one.
        forwarded_for: on whose behalf it calls, an IP address; believed by a server that knows the
        caller."""
        other = object.__new__(type(self))
        other._settings = self._settings.with_token(token, forwarded_for)
        other._sleep = self._sleep
        other._http = self._http
        return other

    def run(self, call: Call[T], *, timeout: float | None = None) -> T:
        """The result of a call. timeout: of each attempt, in seconds, where it is not the policy's.
        Raises HandoffApiError."""
        steps = self._settings.steps(call, timeout)
        outcome: Reply | Failure | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as stop:
                result: T = stop.value
                return result
            if isinstance(step, Wait):
                self._sleep(step.seconds)
                outcome = None
            else:
                outcome = self._send(step)

    def page(self, listing: Listing[T], at: str | None = None) -> Page[T]:
        """One page of a list; `at` is `next` of the page before it."""
        return self.run(listing.page(at))

    def items(self, listing: Listing[T]) -> Iterator[T]:
        """Every item of a list; each page is asked for when it is needed."""
        at = None
        while True:
            page = self.page(listing, at)
            yield from page.items
            at = _onward(listing, at, page)
            if at is None:
                return

    def _send(self, send: Send) -> Reply | Failure:
        request = _request(self._http, send)
        began = time.monotonic()
        try:
            response = self._http.send(request, stream=True)
            try:
                parts = []
                for part in response.iter_bytes():
                    parts.append(part)
                    # httpx bounds the wait for each piece; a trickle must not outlast them all.
                    if time.monotonic() - began > send.timeout:
                        return Failure(f"no whole answer within {send.timeout:g} s", sent=True)
            finally:
                response.close()
        except httpx.RequestError as error:
            return _failure(error)
        return _reply(response, b"".join(parts))


class AsyncClient:
    """The same for asyncio. Parameters as those of `Client`; `sleep` is awaited."""

    def __init__(
        self,
        base_url: str,
        token: str | None = None,
        *,
        policy: RetryPolicy | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        user_agent: str = "",
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
        new_key: Callable[[], str] = _new_key,
    ) -> None:
        surroundings = Surroundings(clock, chance, new_key)
        self._settings = _Settings(
            base_url, token, policy or RetryPolicy(), surroundings, _user_agent(user_agent)
        )
        self._sleep = sleep
        self._http = httpx.AsyncClient(
            base_url=self._settings.base_url, transport=transport, trust_env=False
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    @property
    def base_url(self) -> str:
        return self._settings.base_url

    def with_token(self, token: str | None, *, forwarded_for: str | None = None) -> "AsyncClient":
        """A client with another token on the same connections; it closes with this one.
        forwarded_for: on whose behalf it calls, an IP address; believed by a server that knows the
        caller."""
        other = object.__new__(type(self))
        other._settings = self._settings.with_token(token, forwarded_for)
        other._sleep = self._sleep
        other._http = self._http
        return other

    async def run(self, call: Call[T], *, timeout: float | None = None) -> T:
        """The result of a call. timeout: of each attempt, in seconds, where it is not the policy's.
        Raises HandoffApiError."""
        steps = self._settings.steps(call, timeout)
        outcome: Reply | Failure | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as stop:
                result: T = stop.value
                return result
            if isinstance(step, Wait):
                await self._sleep(step.seconds)
                outcome = None
            else:
                outcome = await self._send(step)

    async def page(self, listing: Listing[T], at: str | None = None) -> Page[T]:
        """One page of a list; `at` is `next` of the page before it."""
        return await self.run(listing.page(at))

    async def items(self, listing: Listing[T]) -> AsyncIterator[T]:
        """Every item of a list; each page is asked for when it is needed."""
        at = None
        while True:
            page = await self.page(listing, at)
            for item in page.items:
                yield item
            at = _onward(listing, at, page)
            if at is None:
                return

    async def _send(self, send: Send) -> Reply | Failure:
        request = _request(self._http, send)
        try:
            async with asyncio.timeout(send.timeout):
                response = await self._http.send(request)
        except TimeoutError:
            return Failure(f"no whole answer within {send.timeout:g} s", sent=True)
        except httpx.RequestError as error:
            return _failure(error)
        except AttributeError:
            # anyio asks a socket that was reset as it was made for its peer, and finds no socket.
            return Failure("the connection was reset as it was made", sent=True)
        return _reply(response, response.content)


def _request(http: httpx.Client | httpx.AsyncClient, send: Send) -> httpx.Request:
    return http.build_request(
        send.method,
        send.path,
        params=list(send.query) or None,
        headers=dict(send.headers),
        content=send.body,
        timeout=send.timeout,
    )


def _failure(error: httpx.RequestError) -> Failure:
    return Failure(str(error) or type(error).__name__, sent=not isinstance(error, _UNSENT))


def _reply(response: httpx.Response, body: bytes) -> Reply:
    headers: Mapping[str, str] = {name.lower(): v for name, v in response.headers.items()}
    return Reply(response.status_code, headers, body)


def _onward(listing: Listing[T], at: str | None, page: Page[T]) -> str | None:
    """Where the list goes on; a page that names itself would never end."""
    if page.next is not None and page.next == at:
        raise Unexpected(
            f"{listing.first.method} {listing.first.path}: page {at!r} names itself as the next",
            status=200,
            code="unexpected_answer",
            title="Unexpected answer",
        )
    return page.next
