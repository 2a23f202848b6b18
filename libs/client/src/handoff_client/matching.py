"""`/v1/services/{id}/versions/{n}/match`: which rule and backend a request would take."""

from collections.abc import Sequence

from handoff_client.answer import Answer, json_of
from handoff_client.call import Call, Repeat, call


class Tried(Answer, frozen=True, kw_only=True):
    """failed: the first condition that did not hold; None where the rule matched."""

    rule: str
    matched: bool
    failed: str | None


class Refusal(Answer, frozen=True, kw_only=True):
    """As the edge would refuse."""

    code: str
    text: str


class MatchedDomain(Answer, frozen=True, kw_only=True):
    """name: the version's domain that takes the host; None: none does."""

    name: str | None


class Match(Answer, frozen=True, kw_only=True):
    """rule: None where the only backend takes all. refusal: None where there is a backend."""

    service_id: str
    version: int
    domain: MatchedDomain
    rule: str | None
    backend: str | None
    refusal: Refusal | None
    tried: tuple[Tried, ...]


def match(
    service_id: str,
    version: int,
    url: str,
    *,
    headers: Sequence[tuple[str, str]] = (),
    subprotocols: Sequence[str] = (),
) -> Call[Match]:
    """url: `ws://` or `wss://`, with path and query. Nothing is sent there, nothing is changed."""
    return call(
        "POST",
        "/v1/services/{service_id}/versions/{version}/match",
        json_of(Match),
        body={"url": url, "headers": list(headers), "subprotocols": list(subprotocols)},
        repeat=Repeat.FREELY,
        service_id=service_id,
        version=version,
    )
