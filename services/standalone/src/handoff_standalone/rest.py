"""Calls of our own REST API, for the command line and the demo: one function, readable failures."""

from collections.abc import Mapping
from typing import Any

import httpx

from handoff_common.errors import HandoffError

TIMEOUT_SECONDS = 30.0


class CallFailed(HandoffError):
    """The API refused or could not be reached; the text is what it said."""

    code = "call_failed"

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Api:
    """An API address with a token. transport: how it is reached; HTTP where None is given."""

    def __init__(
        self, url: str, token: str, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.url = url.rstrip("/")
        self._client = httpx.AsyncClient(
            transport=transport,
            base_url=self.url,
            headers={"Fastly-Key": token},
            timeout=TIMEOUT_SECONDS,
            trust_env=False,
        )

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
        try:
            answer = await self._client.request(
                method, path, json=body, params=dict(query) if query else None
            )
        except httpx.HTTPError as error:
            raise CallFailed(0, f"{self.url} cannot be reached: {error}") from None
        if answer.status_code >= 400:
            raise CallFailed(answer.status_code, f"{method} {path}: {_why(answer)}")
        if not answer.content:
            return None
        if "json" in answer.headers.get("content-type", ""):
            return answer.json()
        return answer.text

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


def _why(answer: httpx.Response) -> str:
    try:
        body = answer.json()
    except ValueError:
        return f"{answer.status_code} {answer.text[:200]}"
    title = body.get("title") or body.get("msg") or ""
    detail = body.get("detail") or ""
    return f"{answer.status_code} {title}: {detail}" if detail else f"{answer.status_code} {title}"
