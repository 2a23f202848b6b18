"""What an operator reads when a call of the command line fails."""

from collections.abc import Callable

import httpx
import pytest

from handoff_standalone.rest import Api, CallFailed


def answering(handler: Callable[[httpx.Request], httpx.Response]) -> Api:
    return Api("http://api.test/", "token", transport=httpx.MockTransport(handler))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            httpx.Response(409, json={"title": "Invoice held", "detail": "edge e1 is silent"}),
            "POST /v1/x: 409 Invoice held: edge e1 is silent",
        ),
        (
            httpx.Response(404, json={"msg": "Record not found", "detail": "no service 's'"}),
            "POST /v1/x: 404 Record not found: no service 's'",
        ),
        (httpx.Response(503, text="<h1>away</h1>"), "POST /v1/x: 503 <h1>away</h1>"),
    ],
)
async def test_a_refusal_says_what_the_service_said_at_once(
    answer: httpx.Response, said: str
) -> None:
    asked = 0

    def handler(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        return answer

    async with answering(handler) as api:
        with pytest.raises(CallFailed) as caught:
            await api.call("POST", "/v1/x", {})
    assert (str(caught.value), caught.value.status, asked) == (said, answer.status_code, 1)


async def test_an_api_that_is_not_there_is_named() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("All connection attempts failed")

    async with answering(handler) as api:
        with pytest.raises(CallFailed) as caught:
            await api.call("GET", "/readyz")
    said = "http://api.test cannot be reached: All connection attempts failed"
    assert (str(caught.value), caught.value.status) == (said, 0)


def test_an_address_that_is_none_is_named() -> None:
    with pytest.raises(CallFailed, match=r"'localhost:8000' is no address of an API"):
        Api("localhost:8000", "token")


async def test_a_body_that_is_text_is_text_and_none_is_none() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert "idempotency-key" not in request.headers
        return httpx.Response(200, text="a,b") if request.method == "GET" else httpx.Response(204)

    async with answering(handler) as api:
        assert await api.call("GET", "/x.csv", query={"a": "b c"}) == "a,b"
        assert await api.call("POST", "/x") is None
