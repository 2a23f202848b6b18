"""The two shells: what they send, how they page, how long they wait. Answers come from functions
in place of a network; both clients are held to the same."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

import httpx
import pytest

from handoff_client import (
    AsyncClient,
    Call,
    Client,
    Listing,
    Repeat,
    RetryPolicy,
    Unauthorized,
    Unexpected,
    Unreachable,
    history,
    raw,
    services,
)

T = TypeVar("T")
Handler = Callable[[httpx.Request], httpx.Response]
URL = "http://api.test/prefix"


class Sync:
    def __init__(self, handler: Handler, policy: RetryPolicy | None = None) -> None:
        self.waits: list[float] = []
        self.client = Client(
            URL,
            "t0ken",
            policy=policy,
            transport=httpx.MockTransport(handler),
            user_agent="tests",
            sleep=self.waits.append,
            chance=lambda: 0.5,
        )

    def run(self, call: Call[T], *, timeout: float | None = None) -> T:
        return self.client.run(call, timeout=timeout)

    def items(self, listing: Listing[T]) -> list[T]:
        return list(self.client.items(listing))


class Async:
    def __init__(self, handler: Handler, policy: RetryPolicy | None = None) -> None:
        self.waits: list[float] = []

        async def sleep(seconds: float) -> None:
            self.waits.append(seconds)

        self.client = AsyncClient(
            URL,
            "t0ken",
            policy=policy,
            transport=httpx.MockTransport(handler),
            user_agent="tests",
            sleep=sleep,
            chance=lambda: 0.5,
        )

    def run(self, call: Call[T], *, timeout: float | None = None) -> T:
        return asyncio.run(self.client.run(call, timeout=timeout))

    def items(self, listing: Listing[T]) -> list[T]:
        async def every() -> list[T]:
            return [item async for item in self.client.items(listing)]

        return asyncio.run(every())


Kind = type[Sync] | type[Async]
both = pytest.mark.parametrize("kind", [Sync, Async])


@both
def test_a_request_bears_token_agent_and_path_below_the_address(
    kind: Kind,
) -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"ok": True})

    call = raw.request("POST", "/v1/a%2Fb?x=1", body={"n": 1})
    assert kind(handler).run(call) == {"ok": True}
    [request] = seen
    assert str(request.url) == "http://api.test/prefix/v1/a%2Fb?x=1"
    assert request.headers["fastly-key"] == "t0ken"
    assert request.headers["user-agent"].startswith("tests handoff-client/")
    assert json.loads(request.content) == {"n": 1}
    assert request.headers["content-type"] == "application/json"
    assert request.headers["idempotency-key"]


@both
def test_waits_between_attempts_are_slept(kind: Kind) -> None:
    answers = iter([503, 502, 200])
    runner = kind(lambda _: httpx.Response(next(answers), json=[]))
    assert runner.run(raw.request("GET", "/x")) == []
    assert runner.waits == [0.1, 0.2]


@both
@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (httpx.ConnectError("refused"), 3),
        (httpx.ConnectTimeout("late"), 3),
        (httpx.ReadTimeout("late"), 1),
        (httpx.RemoteProtocolError("hung up"), 1),
    ],
)
def test_what_may_have_arrived_is_told_from_what_did_not(
    kind: Kind, error: httpx.RequestError, attempts: int
) -> None:
    count = 0

    def handler(request: httpx.Request) -> httpx.Response:
        nonlocal count
        count += 1
        raise error

    call = raw.request("PUT", "/service/s/version/1/clone", repeat=Repeat.NEVER)
    with pytest.raises(Unreachable, match=r"http://api\.test/prefix cannot be reached") as caught:
        kind(handler, RetryPolicy(attempts=3)).run(call)
    assert count == attempts and caught.value.status == 0


@both
def test_a_list_is_read_to_its_end_page_by_page(kind: Kind) -> None:
    asked: list[str | None] = []

    def handler(request: httpx.Request) -> httpx.Response:
        at = request.url.params.get("page")
        asked.append(at)
        following = {None: "2", "2": "3"}.get(at)
        link = f'</service?page={following}>; rel="next"' if following else ""
        row: dict[str, Any] = {
            "id": at or "1",
            "name": "n",
            "customer_id": "c",
            "type": "vcl",
            "comment": "",
            "versions": [],
            "version": 1,
            "created_at": "2026-11-01T00:00:00Z",
            "updated_at": "2026-11-01T00:00:00Z",
            "deleted_at": None,
        }
        return httpx.Response(200, json=[row], headers={"Link": link})

    assert [one.id for one in kind(handler).items(services.listing())] == ["1", "2", "3"]
    assert asked == [None, "2", "3"]


@both
def test_a_page_that_names_itself_ends_with_an_error(kind: Kind) -> None:
    body = {"data": [], "meta": {"limit": 1, "next_cursor": "same"}}
    with pytest.raises(Unexpected, match="names itself"):
        kind(lambda _: httpx.Response(200, json=body)).items(history.every())


@both
@pytest.mark.parametrize("url", ["api.test:8000", "ftp://api.test", "http://", ""])
def test_an_address_that_is_none_is_refused_at_once(kind: Kind, url: str) -> None:
    client = Client if kind is Sync else AsyncClient
    with pytest.raises(ValueError, match="is no address of an API"):
        client(url)


@pytest.mark.parametrize("token", ["line\nbreak", "schlüssel", " ", ""])
def test_a_token_that_no_header_bears_is_not_in_force_and_not_shown(token: str) -> None:
    with (
        Client(URL, token) as client,
        pytest.raises(Unauthorized, match="the token is not printable ASCII") as caught,
    ):
        client.run(raw.request("GET", "/x"))
    assert caught.value.status == 401
    assert token.strip() == "" or token not in str(caught.value)


@both
def test_a_call_may_have_a_time_out_of_its_own(kind: Kind) -> None:
    given: list[Any] = []

    def handler(request: httpx.Request) -> httpx.Response:
        given.append(request.extensions["timeout"]["read"])
        return httpx.Response(204)

    runner = kind(handler, RetryPolicy(timeout=7))
    runner.run(raw.request("GET", "/x"))
    runner.run(raw.request("GET", "/x"), timeout=2)
    assert given == [7, 2]


def test_another_token_shares_the_connections() -> None:
    seen: list[str | None] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("fastly-key"))
        return httpx.Response(204)

    with Client(URL, transport=httpx.MockTransport(handler)) as client:
        for token in (None, "a", "b"):
            client.with_token(token).run(raw.request("GET", "/x"))
        client.run(raw.request("GET", "/x"))
    assert seen == [None, "a", "b", None]


async def test_an_answer_that_does_not_come_ends_at_the_time_out() -> None:
    class Silent(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await asyncio.Event().wait()
            raise AssertionError

    async with AsyncClient(
        URL, transport=Silent(), policy=RetryPolicy(timeout=0.01, attempts=1)
    ) as client:
        with pytest.raises(Unreachable, match=r"no whole answer within 0\.01 s"):
            await client.run(raw.request("GET", "/x"))


async def test_a_connection_that_is_reset_as_it_is_made_is_unreachable() -> None:
    """As anyio says it when the socket is gone before it was asked for its peer."""

    class Reset(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            socket: Any = None
            return httpx.Response(200, json=socket.getpeername())

    async with AsyncClient(URL, transport=Reset(), policy=RetryPolicy(attempts=1)) as client:
        with pytest.raises(Unreachable, match="reset as it was made"):
            await client.run(raw.request("GET", "/x"))


def test_an_answer_that_trickles_ends_at_the_time_out() -> None:
    class Trickle(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            while True:
                yield b" "

    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Trickle())

    policy = RetryPolicy(timeout=0.01, attempts=1)
    with (
        Client(URL, transport=httpx.MockTransport(handler), policy=policy) as client,
        pytest.raises(Unreachable, match=r"no whole answer within 0\.01 s"),
    ):
        client.run(raw.request("GET", "/x"))


def test_one_client_serves_several_threads() -> None:
    with Client(
        URL, transport=httpx.MockTransport(lambda r: httpx.Response(200, json=r.url.path))
    ) as client:
        found: dict[int, Any] = {}

        def ask(n: int) -> None:
            found[n] = client.run(raw.request("GET", f"/{n}"))

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {n: f"/prefix/{n}" for n in range(8)}


async def test_items_ask_for_a_page_only_when_it_is_needed() -> None:
    asked = 0

    def handler(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        entry = {
            "revision": asked,
            "at": "2026-11-01T00:00:00Z",
            "type": "t",
            "object": "service",
            "name": "n",
            "version": None,
            "service_id": None,
            "customer_id": None,
            "before": None,
            "after": None,
            "actor": {"token_id": None, "user_id": None, "login": "l"},
            "ip": "",
            "request_id": "",
        }
        meta = {"limit": 1, "next_cursor": f"c{asked}"}
        return httpx.Response(200, json={"data": [entry], "meta": meta})

    async with AsyncClient(URL, transport=httpx.MockTransport(handler)) as client:
        entries: AsyncIterator[history.Entry] = client.items(history.every())
        assert [(await anext(entries)).revision for _ in range(2)] == [1, 2]
    assert asked == 2
