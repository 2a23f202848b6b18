"""`/v1/services/{id}/limits`. They hold per edge node."""

from handoff_client.answer import Answer, json_of
from handoff_client.call import Call, call

_PATH = "/v1/services/{service_id}/limits"


class Limits(Answer, frozen=True, kw_only=True):
    """None is no limit. max_new_per_second: connections; max_bytes_per_second: both ways together.
    idle_timeout_ms: no byte either way for so long; half_closed_timeout_ms: one side has ended and
    no byte; max_duration_ms: the longest life of a connection."""

    service_id: str
    max_connections: int | None
    max_new_per_second: int | None
    max_bytes_per_second: int | None
    idle_timeout_ms: int
    half_closed_timeout_ms: int
    max_duration_ms: int | None


def get(service_id: str) -> Call[Limits]:
    """`with_headers()` gives the `etag` for `put`."""
    return call("GET", _PATH, json_of(Limits), service_id=service_id)


def put(
    service_id: str,
    *,
    max_connections: int | None = None,
    max_new_per_second: int | None = None,
    max_bytes_per_second: int | None = None,
    idle_timeout_ms: int = 600_000,
    half_closed_timeout_ms: int = 30_000,
    max_duration_ms: int | None = None,
    if_match: str | None = None,
) -> Call[Limits]:
    """All limits at once: what is left out goes back to its default. Conflict (412) where
    somebody changed them since `if_match`."""
    body = {
        "max_connections": max_connections,
        "max_new_per_second": max_new_per_second,
        "max_bytes_per_second": max_bytes_per_second,
        "idle_timeout_ms": idle_timeout_ms,
        "half_closed_timeout_ms": half_closed_timeout_ms,
        "max_duration_ms": max_duration_ms,
    }
    return call("PUT", _PATH, json_of(Limits), body=body, if_match=if_match, service_id=service_id)
