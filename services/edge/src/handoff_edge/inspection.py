"""What an operator sees of the open connections, one by one, on the admin port: of one edge, and of
all workers of a node joined. It changes nothing.
"""

import asyncio
import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import JSONResponse, Response

from handoff_common.errors import ApiError, FieldError
from handoff_common.instants import from_ms
from handoff_common.minutes import owed
from handoff_edge.tunnels import Open, Tunnels

MOST: Final = 1_000
_DEFAULT: Final = 100
_KNOWN: Final = ("service_id", "customer_id", "limit", "cursor")


@dataclass(frozen=True, slots=True)
class Asked:
    """Of a list. cursor: the last id of the page before."""

    service_id: str | None
    customer_id: str | None
    limit: int
    cursor: str


def asked(query: Mapping[str, str]) -> Asked:
    """Raises ApiError."""
    for name in query:
        if name not in _KNOWN:
            raise _bad(name, f"is not known; takes {', '.join(_KNOWN)}")
    limit = query.get("limit", str(_DEFAULT))
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= MOST):
        raise _bad("limit", f"is {limit[:80]!r}; takes 1 to {MOST}")
    return Asked(
        query.get("service_id"), query.get("customer_id"), int(limit), query.get("cursor", "")
    )


def page(tunnels: Tunnels, query: Mapping[str, str], now_ns: int) -> dict[str, Any]:
    """A page of the open connections, by their id, which is the order in which they were accepted.
    Raises ApiError."""
    ask = asked(query)
    found = heapq.nsmallest(
        ask.limit + 1,
        (one for one in _chosen(tunnels, ask) if one.connection.connection_id > ask.cursor),
        key=lambda one: one.connection.connection_id,
    )
    return _page([view(one, now_ns) for one in found[: ask.limit]], ask, len(found) > ask.limit)


def one_of(tunnels: Tunnels, connection_id: str, now_ns: int) -> dict[str, Any]:
    """Raises ApiError where it is not open here."""
    found = tunnels.get(connection_id)
    if found is None:
        raise not_open(connection_id)
    return view(found, now_ns)


def joined(pages: Sequence[tuple[int, dict[str, Any]]], query: Mapping[str, str]) -> dict[str, Any]:
    """Pages that several workers gave for the same query, as one. Raises ApiError."""
    ask = asked(query)
    rows = [{"worker": number, **row} for number, given in pages for row in given["data"]]
    rows.sort(key=lambda row: row["connection_id"])
    more = any(given["meta"]["next_cursor"] is not None for _, given in pages)
    return _page(rows[: ask.limit], ask, more or len(rows) > ask.limit)


def view(opened: Open, now_ns: int) -> dict[str, Any]:
    """One open connection.

    unchanged_s: seconds without a byte, at least: they are noticed at checkpoints. ending: why and
    in how many seconds the edge is going to end it; `in_s` is null once both peers were told.
    """
    connection = opened.connection
    counters, messages = opened.counters(), opened.tunnel.messages()
    elapsed_ms = -(-(now_ns - connection.accepted_ns) // 1_000_000)
    unchanged_ns = 0 if opened.moved(counters) else now_ns - opened.changed_ns
    facts = connection.facts
    return {
        "connection_id": connection.connection_id,
        "state": "ending" if opened.ending_reason is not None else connection.phase.value,
        "customer_id": connection.customer_id,
        "service_id": connection.service_id,
        "service_version": facts.service_version if facts else None,
        "domain": facts.domain if facts else None,
        "rule": facts.rule if facts else None,
        "backend": facts.backend if facts else None,
        "subprotocol": facts.subprotocol if facts else None,
        "client_network": facts.client_network if facts else None,
        "tls": facts.tls if facts else None,
        "accepted_at": from_ms(connection.accepted_ms).isoformat().replace("+00:00", "Z"),
        "elapsed_ms": elapsed_ms,
        "minutes": owed(elapsed_ms),
        **counters._asdict(),
        "messages_from_client": messages.from_client,
        "messages_from_origin": messages.from_origin,
        "unchanged_s": max(0, unchanged_ns // 1_000_000_000),
        "ending": _ending(opened),
    }


def not_open(connection_id: str) -> ApiError:
    detail = f"{connection_id[:80]!r} is not open here; metering knows those that have ended"
    return ApiError(404, "connection_not_open", "No such open connection", detail)


def problem(error: ApiError) -> Response:
    body = {
        "type": f"urn:handoff:error:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "errors": [{"property": e.property, "reason": e.reason} for e in error.errors],
    }
    return JSONResponse(body, error.status, media_type="application/problem+json")


def _chosen(tunnels: Tunnels, ask: Asked) -> Iterable[Open]:
    if ask.service_id is None and ask.customer_id is None:
        return tunnels
    return (
        opened
        for service, customer in tunnels.services()
        if ask.service_id in (None, service) and ask.customer_id in (None, customer)
        for opened in tunnels.of_service(service, customer)
    )


def _page(rows: list[dict[str, Any]], ask: Asked, more: bool) -> dict[str, Any]:
    cursor = rows[-1]["connection_id"] if more and rows else None
    return {"data": rows, "meta": {"limit": ask.limit, "next_cursor": cursor}}


def _ending(opened: Open) -> dict[str, Any] | None:
    if opened.ending_reason is None:
        return None
    left: float | None = None
    if opened.ending is not None:
        left = max(0.0, opened.ending.when() - asyncio.get_running_loop().time())
    return {"reason": opened.ending_reason, "in_s": None if left is None else round(left, 1)}


def _bad(name: str, reason: str) -> ApiError:
    return ApiError(400, "bad_query", "Bad request", f"{name} {reason}", [FieldError(name, reason)])
