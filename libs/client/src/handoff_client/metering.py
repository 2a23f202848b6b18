"""How far metering has come: `/v1/watermarks`, `/v1/reconciliation`, `/v1/parked`, what the edges
refused: `/v1/refusals`, and how many were open at once: `/v1/concurrency`."""

from datetime import datetime
from decimal import Decimal
from typing import Literal

from handoff_client.answer import Answer, Instant, json_of, listing
from handoff_client.call import Call, Listing, Repeat, Reply, Value, call


class Partition(Answer, frozen=True, kw_only=True):
    """edge_position: the next offset after the edge's events as of its latest watermark. position:
    what was folded so far."""

    partition: int
    edge_position: int
    position: int
    passed: bool


class Edge(Answer, frozen=True, kw_only=True):
    """An edge's latest watermark. The counts of connections are for operators, else None."""

    edge_id: str
    region: str
    pop: str
    through: Instant
    ended: bool
    lost: bool
    silent_ticks: int
    journal_backlog: int
    journal_age_ms: int
    open_connections: int | None
    accepted_total: int | None
    closed_total: int | None
    partitions: tuple[Partition, ...]


class Hold(Answer, frozen=True, kw_only=True):
    """What keeps a slice from being later. through None: nothing can be said yet."""

    edge_id: str | None
    through: Instant | None
    cause: str


class Slice(Answer, frozen=True, kw_only=True):
    slice: int
    position: int
    end: int
    lag: int
    through: Instant | None
    held_by: tuple[Hold, ...]


class ClosedMonth(Answer, frozen=True, kw_only=True):
    """The newest month that has ended. complete: every slice is past its end."""

    month: str
    ends_at: Instant
    complete: bool
    held_by: tuple[str, ...]


class Watermarks(Answer, frozen=True, kw_only=True):
    """data: the edges."""

    data: tuple[Edge, ...]
    slices: tuple[Slice, ...]
    month: ClosedMonth


class EdgeReconciliation(Answer, frozen=True, kw_only=True):
    """An edge's own totals against what was projected. missing None: no watermark passed yet."""

    edge_id: str
    accepted_total: int
    closed_total: int
    accepted_projected: int
    closed_projected: int
    accepted_missing: int | None
    closed_missing: int | None


class Reconciliation(Answer, frozen=True, kw_only=True):
    """accepted = open + closed; lost is a part of closed. balanced: nothing missing, nothing
    parked. difference, edges: for operators, else None."""

    accepted: int
    open: int
    closed: int
    lost: int
    parked: int
    balanced: bool
    difference: int | None
    edges: tuple[EdgeReconciliation, ...] | None


class ParkedRecord(Answer, frozen=True, kw_only=True):
    """A record that was not folded. kind: `malformed`, `unknown_type`, `skewed` or `retired`.
    customer_id None: cannot be told; it then holds back every invoice. value: base64, where it was
    asked for."""

    topic: str
    partition: int
    offset: int
    key: str
    kind: str
    detail: str
    customer_id: str | None
    appended_at: Instant
    parked_at: Instant
    value: str | None


class Decision(Answer, frozen=True, kw_only=True):
    """status: `decided`, or `pending` where it is in the log and not folded yet."""

    partition: int
    offset: int
    decision: str
    reason: str
    decided_by: str
    decided_at: Instant
    status: str


class RefusalRow(Answer, frozen=True, kw_only=True):
    """Handoffs that were refused for one cause. hour: where the hour begins, or the day; None in a
    total. service_id None: no service was asked for."""

    service_id: str | None
    hour: Instant | None
    cause: str
    count: int


class ConcurrencyRow(Answer, frozen=True, kw_only=True):
    """One period; the last ends with the range. opened, closed: connections accepted and ended in
    it. peak: the most that were open at once. average: over its time."""

    start: Instant
    opened: int
    closed: int
    peak: int
    average: Decimal


class _Concurrency(Answer, frozen=True, kw_only=True):
    data: tuple[ConcurrencyRow, ...]


def watermarks() -> Call[Watermarks]:
    """How far each edge has vouched, how far each slice has read, what holds a month open."""
    return call("GET", "/v1/watermarks", json_of(Watermarks))


def reconciliation() -> Call[Reconciliation]:
    """Whether everything that the edges say they delivered was found."""
    return call("GET", "/v1/reconciliation", json_of(Reconciliation))


def parked(
    *, customer_id: str | None = None, value: bool = False, limit: int | None = None
) -> Listing[ParkedRecord]:
    """Records that wait for a decision; operators only. value: with what each holds."""
    query = {"customer_id": customer_id, "value": value, "limit": limit}
    return listing("/v1/parked", ParkedRecord, query=query)


def decide(
    partition: int, offset: int, decision: Literal["retry", "discard"], *, reason: str
) -> Call[Decision]:
    """Fold a parked record after all, or give it up, for ever; operators only. Conflict:
    `already_decided`, `cannot_be_retried`. Sent once: a repeat would be already decided."""
    return call(
        "POST",
        "/v1/parked/{partition}/{offset}/decision",
        json_of(Decision),
        body={"decision": decision, "reason": reason},
        repeat=Repeat.NEVER,
        partition=partition,
        offset=offset,
    )


def refusals(
    *,
    by: Literal["hour", "day", "total"] = "hour",
    service_id: str | None = None,
    cause: str | None = None,
    from_: datetime | None = None,
    to: datetime | None = None,
    customer_id: str | None = None,
    limit: int | None = None,
) -> Listing[RefusalRow]:
    """Refused handoffs by hour, service and cause, the newest hour first; of the last 24 hours
    where `from_` and `to` are left out. cause: a code of the edge. customer_id: operators may name
    one."""
    query: dict[str, Value] = {
        # What is the default is not sent: a server without it would refuse the name.
        "by": None if by == "hour" else by,
        "service_id": service_id,
        "cause": cause,
        "from": from_,
        "to": to,
        "customer_id": customer_id,
        "limit": limit,
    }
    return listing("/v1/refusals", RefusalRow, query=query)


def concurrency(
    service_id: str | None = None,
    *,
    customer_id: str | None = None,
    by: Literal["minute", "hour", "day"] = "hour",
    from_: datetime | None = None,
    to: datetime | None = None,
    region: str | None = None,
) -> Call[tuple[ConcurrencyRow, ...]]:
    """How many connections of a service, or of all services together, were open at once: a row for
    every period till now, also where nothing was open. Invalid: `range_too_long`
    (2 hours of minutes, 31 days of hours, 366 days), `too_many_connections`, `connections_gone`."""
    read = json_of(_Concurrency)

    def rows(reply: Reply) -> tuple[ConcurrencyRow, ...]:
        return read(reply).data

    query: dict[str, Value] = {
        "service_id": service_id,
        "customer_id": customer_id,
        "by": by,
        "from": from_,
        "to": to,
        "region": region,
    }
    return call("GET", "/v1/concurrency", rows, query=query)
