"""`/v1/history`: who changed what, when, from where, before and after."""

from typing import Any, Literal

from handoff_client.answer import Answer, Instant, listing
from handoff_client.call import Listing

ServiceObject = Literal[
    "service",
    "version",
    "domain",
    "backend",
    "director",
    "websocket_rule",
    "product",
    "limits",
]


class Actor(Answer, frozen=True, kw_only=True):
    token_id: str | None
    user_id: str | None
    login: str


class Entry(Answer, frozen=True, kw_only=True):
    """before, after: the object on the two sides of the change, None where it was not."""

    revision: int
    at: Instant
    type: str
    object: str
    name: str
    version: int | None
    service_id: str | None
    customer_id: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    actor: Actor
    ip: str
    request_id: str


def every(*, customer_id: str | None = None, limit: int | None = None) -> Listing[Entry]:
    """Every change of the customer, newest first. customer_id: operators may name one."""
    return listing("/v1/history", Entry, query={"customer_id": customer_id, "limit": limit})


def of_service(
    service_id: str,
    *,
    object: ServiceObject | None = None,  # noqa: A002  (the API's name)
    limit: int | None = None,
) -> Listing[Entry]:
    """Every change of one service, newest first. object: only those of this kind."""
    return listing(
        "/v1/services/{service_id}/history",
        Entry,
        query={"object": object, "limit": limit},
        service_id=service_id,
    )
