"""`/v1/connections`: open and closed ones, their events, and ending one."""

from datetime import datetime
from typing import Literal

from handoff_client.answer import Answer, Instant, json_of
from handoff_client.answer import listing as _listing
from handoff_client.call import Call, Listing, Repeat, call

_ONE = "/v1/connections/{connection_id}"


class Counters(Answer, frozen=True, kw_only=True):
    """Bytes: `req`, `resp` between client and edge, `bereq`, `beresp` between edge and origin."""

    req_header_bytes: int
    req_body_bytes: int
    resp_header_bytes: int
    resp_body_bytes: int
    bereq_header_bytes: int
    bereq_body_bytes: int
    beresp_header_bytes: int
    beresp_body_bytes: int


class Connection(Counters, frozen=True, kw_only=True):
    """state: `open` or `closed`. minutes: owed so far, live while it is open; minutes_in_range: of
    these, those that start within the `from_` and `to` asked for. proof_of_life: the last instant
    at which it is known to have lived. provisional: its end may still be overridden by its edge.
    reason, closed_by, close_code: of its end."""

    connection_id: str
    customer_id: str
    service_id: str
    region: str
    pop: str
    edge_id: str
    state: str
    accepted_at: Instant
    ended_at: Instant | None
    elapsed_ms: int
    minutes: int
    minutes_in_range: int | None
    proof_of_life: Instant
    reason: str | None
    closed_by: str | None
    close_code: int | None
    provisional: bool
    domain: str | None
    rule: str | None
    backend: str | None
    service_version: int | None
    subprotocol: str | None
    tls: bool | None
    client_network: str | None


class Event(Counters, frozen=True, kw_only=True):
    """As it was folded. Its counters are cumulative, `added` is what it added to the bill. effect:
    `counted`, or `stale`: a repeat, or older than what was known."""

    event_id: str
    type: str
    seq: int
    time: Instant
    elapsed_ms: int
    offset: int
    effect: str
    added: Counters


class EventsMeta(Answer, frozen=True, kw_only=True):
    limit: int
    next_cursor: str | None


class ConnectionDetail(Connection, frozen=True, kw_only=True):
    """With its first 100 events; `events` reads all of them."""

    events: tuple[Event, ...]
    events_meta: EventsMeta


class Ending(Answer, frozen=True, kw_only=True):
    """The edges were asked to end it; void after `expires_at`."""

    connection_id: str
    status: str
    close_code: int
    reason: str
    expires_at: Instant


def listing(
    *,
    state: Literal["open", "closed"] | None = None,
    service_id: str | None = None,
    region: str | None = None,
    edge: str | None = None,
    reason: str | None = None,
    from_: datetime | None = None,
    to: datetime | None = None,
    customer_id: str | None = None,
    limit: int | None = None,
) -> Listing[Connection]:
    """Those that lived between `from_` and `to`, the last accepted first. edge: its id. reason: of
    the end. customer_id: operators may name one. limit: 1 to 1000, 100 where it is left out."""
    return _listing(
        "/v1/connections",
        Connection,
        query={
            "state": state,
            "service_id": service_id,
            "region": region,
            "edge": edge,
            "reason": reason,
            "from": from_,
            "to": to,
            "customer_id": customer_id,
            "limit": limit,
        },
    )


def get(connection_id: str) -> Call[ConnectionDetail]:
    return call("GET", _ONE, json_of(ConnectionDetail), connection_id=connection_id)


def events(connection_id: str, *, limit: int | None = None) -> Listing[Event]:
    """Every event of one, in the order of the log."""
    return _listing(f"{_ONE}/events", Event, query={"limit": limit}, connection_id=connection_id)


def end(connection_id: str, *, reason: str | None = None) -> Call[Ending]:
    """Ask the edges to end it; what they did shows in its state. reason: what its peers are told,
    at most 100 characters. Conflict where it has ended."""
    query = {"reason": reason}
    # The answer to a repeat that finds nothing has no Ending in it.
    repeat = Repeat.FREELY
    return call(
        "DELETE", _ONE, json_of(Ending), query=query, repeat=repeat, connection_id=connection_id
    )
