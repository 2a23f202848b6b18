"""Calls of our own REST API, for the command line and the demo: paths as an operator writes them,
answers as they are, readable failures. Over `handoff_client`, which has the typed operations.
"""

from collections.abc import Mapping
from typing import Any

import httpx

from handoff_client import AsyncClient, HandoffApiError, Repeat, RetryPolicy, raw
from handoff_common.errors import HandoffError

TIMEOUT_SECONDS = 30.0

# A command says at once what is wrong; who wants to try again calls it again.
_ONCE = RetryPolicy(timeout=TIMEOUT_SECONDS, deadline=TIMEOUT_SECONDS, attempts=1)


class CallFailed(HandoffError):
    """The API refused or could not be reached; the text is what it said. status: 0 where there was
    no answer."""

    code = "call_failed"

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Api:
    """An API address with a token. transport: how it is reached; HTTP where None is given. Raises
    CallFailed for an address that is none."""

    def __init__(
        self, url: str, token: str, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.url = url.rstrip("/")
        try:
            self._client = AsyncClient(
                self.url, token, policy=_ONCE, transport=transport, user_agent="handoff"
            )
        except ValueError as error:
            raise CallFailed(0, str(error)) from None

    async def __aenter__(self) -> "Api":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str] | None = None,
    ) -> Any:
        """The JSON that the call answers (None for 204). Raises CallFailed."""
        request = raw.request(method, path, query=query, body=body, repeat=Repeat.NEVER)
        try:
            return await self._client.run(request)
        except HandoffApiError as error:
            text = str(error) if error.status else error.detail
            raise CallFailed(error.status, text) from None

    async def pages(self, path: str, **query: str) -> list[dict[str, Any]]:
        """All rows of a `/v1` list, as large pages as it gives unless `limit` says otherwise."""
        rows: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            more = {"cursor": cursor} if cursor else {}
            page = await self.call("GET", path, query={"limit": "1000"} | query | more)
            rows += page["data"]
            cursor = page["meta"]["next_cursor"]
            if cursor is None:
                return rows
