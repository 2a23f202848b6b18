"""What the API takes and answers. Names are those of the events; counts are JSON integers."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from handoff_common.events import COUNTER_NAMES, Counters, Reason
from handoff_common.http import StrictModel
from handoff_common.instants import rfc3339
from handoff_metering.concurrency import Bucket
from handoff_metering.store import refusals
from handoff_metering.store.reports import EventRow, Found, Row
from handoff_metering.usage import Totals

REGIONS = (
    "africa_std",
    "anzac",
    "asia",
    "asia_india",
    "asia_southkorea",
    "europe",
    "latam",
    "mexico",
    "saudi_arabia",
    "southamerica_std",
    "usa",
)
"""The billing regions."""

BILLED_NAMES = frozenset(n for n in COUNTER_NAMES if n.startswith(("resp_", "bereq_")))
"""What counts as bandwidth: what the edge sends, to clients and to origins."""

Limit = Annotated[int, Field(ge=1, le=1_000, description="rows of a page; 1 to 1000")]


def bandwidth(counters: Counters) -> int:
    return sum(n for name, n in counters._asdict().items() if name in BILLED_NAMES)


class Query(BaseModel):
    """Query parameters under `/v1`: unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    from_: str | None = Field(None, alias="from", description="from this instant on")
    to: str | None = Field(None, description="before this instant")
    service_id: str | None = None
    region: str | None = None
    customer_id: str | None = Field(None, description="operators only: of this customer")
    limit: Limit = 100
    cursor: str | None = Field(None, description="meta.next_cursor of the page before")


class UsageQuery(Query):
    by: Literal["hour", "day", "month"] = "day"


class ConnectionsQuery(Query):
    state: Literal["open", "closed"] | None = None
    edge: str | None = Field(None, description="id of the edge")
    reason: Reason | None = None


class RefusalsQuery(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    from_: str | None = Field(
        None, alias="from", description="from the hour of this instant on; 24 hours by default"
    )
    to: str | None = Field(None, description="hours that begin before this instant")
    service_id: str | None = None
    customer_id: str | None = Field(None, description="operators only: of this customer")
    cause: Annotated[
        str | None,
        Field(pattern="^[a-z0-9_]{1,64}$", description="a code of the edge, such as not_enabled"),
    ] = None
    by: refusals.By = "hour"
    limit: Limit = 100
    cursor: str | None = Field(None, description="meta.next_cursor of the page before")


class RefusalRow(BaseModel):
    """Handoffs of one service that were refused for one cause. hour: start of the hour, with
    `by=day` of the day; null with `by=total`. service_id: null where no service was asked for."""

    service_id: str | None
    hour: str | None
    cause: str
    count: int

    @classmethod
    def of(cls, row: refusals.Row) -> "RefusalRow":
        return cls(
            service_id=row.service_id,
            hour=None if row.start_ms is None else rfc3339(row.start_ms),
            cause=row.cause,
            count=row.refused,
        )


class ConcurrencyQuery(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    service_id: str | None = Field(None, description="of this service; else of all together")
    customer_id: str | None = Field(None, description="operators only: of this customer")
    from_: str | None = Field(None, alias="from", description="from the period that holds this on")
    to: str | None = Field(None, description="before this instant; now where it is later")
    by: Literal["minute", "hour", "day"] = "hour"
    region: str | None = None


class PageQuery(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: Limit = 100
    cursor: str | None = None


class ParkedQuery(PageQuery):
    customer_id: str | None = Field(None, description="of this customer")
    value: bool = Field(False, description="true: with each record's value, in base64")


class ParkedOut(BaseModel):
    """A record that was not folded. kind: `malformed`, `unknown_type`, `skewed` (its instant lies
    too far from the log's) or `retired` (its month is over). customer_id: None where it cannot be
    told; then it holds back every customer's invoices. value: base64."""

    topic: str
    partition: int
    offset: int
    key: str
    kind: str
    detail: str
    customer_id: str | None
    appended_at: str
    parked_at: str
    value: str | None = None


class DecisionIn(StrictModel):
    decision: Literal["retry", "discard"] = Field(
        description="retry: fold it now, with the instant that it bears; discard: never"
    )
    reason: Annotated[
        str,
        Field(
            min_length=1,
            max_length=500,
            pattern=r"^[^\x00-\x1f\x7f]*\S[^\x00-\x1f\x7f]*$",
            description="why, for the record: one line of 1 to 500 characters",
        ),
    ]


class DecisionOut(BaseModel):
    """status: `pending` where the decision is in the log's queue and not folded yet."""

    partition: int
    offset: int
    decision: Literal["retry", "discard"]
    reason: str
    decided_by: str
    decided_at: str
    status: Literal["decided", "pending"]


class Bytes(BaseModel):
    """The eight counters, in bytes."""

    req_header_bytes: int
    req_body_bytes: int
    resp_header_bytes: int
    resp_body_bytes: int
    bereq_header_bytes: int
    bereq_body_bytes: int
    beresp_header_bytes: int
    beresp_body_bytes: int


class UsageRow(Bytes):
    """Totals of one service in one region in the period that begins at `start`."""

    start: str
    service_id: str
    region: str
    minutes: int
    opened: int
    closed: int
    lost: int

    @classmethod
    def of(cls, row: Row) -> "UsageRow":
        return cls(
            start=rfc3339(row.start_ms),
            service_id=row.service_id,
            region=row.region,
            minutes=row.totals.minutes,
            opened=row.totals.opened,
            closed=row.totals.closed,
            lost=row.totals.lost,
            **row.totals.counters._asdict(),
        )


class ConnectionOut(Bytes):
    """A connection as far as its events were folded.

    minutes: owed so far, live while it is open. proof_of_life: the last instant at which it is
    known to have lived: its end, its last event, or its edge's last watermark. provisional: whether
    its end may still be overridden by its edge. minutes_in_range: of `minutes`, those that start
    within the `from` and `to` asked for.
    """

    connection_id: str
    customer_id: str
    service_id: str
    region: str
    pop: str
    edge_id: str
    state: Literal["open", "closed"]
    accepted_at: str
    ended_at: str | None
    elapsed_ms: int
    minutes: int
    minutes_in_range: int | None = None
    proof_of_life: str
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

    @classmethod
    def of(
        cls, found: Found, proof_of_life_ms: int, minutes_in_range: int | None = None
    ) -> "ConnectionOut":
        state = found.state
        end, accept = state.end, state.accept
        return cls(
            connection_id=state.connection_id,
            customer_id=state.customer_id,
            service_id=state.service_id,
            region=state.region,
            pop=state.pop,
            edge_id=state.edge_id,
            state="open" if end is None else "closed",
            accepted_at=rfc3339(state.accepted_ms),
            ended_at=None if end is None else rfc3339(state.seen_ms),
            elapsed_ms=max(0, proof_of_life_ms - state.accepted_ms),
            minutes=state.minutes,
            minutes_in_range=minutes_in_range,
            proof_of_life=rfc3339(proof_of_life_ms),
            reason=None if end is None else end.reason.value,
            closed_by=None if end is None else end.closed_by,
            close_code=None if end is None else end.close_code,
            provisional=end is not None and end.provisional,
            domain=accept.domain if accept else None,
            rule=accept.rule if accept else None,
            backend=accept.backend if accept else None,
            service_version=accept.service_version if accept else None,
            subprotocol=accept.subprotocol if accept else None,
            tls=accept.tls if accept else None,
            client_network=accept.client_network if accept else None,
            **state.counters._asdict(),
        )


class ConcurrencyRow(BaseModel):
    """One period; the last ends with the range. opened, closed: connections accepted and ended in
    it. peak: the most that were open at once. average: milliseconds that connections were open in
    it / its length, a decimal string of at most 3 decimals."""

    start: str
    opened: int
    closed: int
    peak: int
    average: str

    @classmethod
    def of(cls, bucket: Bucket) -> "ConcurrencyRow":
        return cls(
            start=rfc3339(bucket.start_ms),
            opened=bucket.opened,
            closed=bucket.closed,
            peak=bucket.peak,
            average=bucket.average,
        )


class ConcurrencyMeta(BaseModel):
    """What the rows are of: `from` and `to` as they were understood. service_id: null for all
    services together."""

    model_config = ConfigDict(populate_by_name=True)

    service_id: str | None
    region: str
    by: Literal["minute", "hour", "day"]
    from_: str = Field(alias="from")
    to: str


class ConcurrencyOut(BaseModel):
    """A row for every period of the range, also where nothing was open."""

    data: list[ConcurrencyRow]
    meta: ConcurrencyMeta


class EventOut(Bytes):
    """One event of a connection as it was folded. Counters are cumulative, `added` is what it added
    to the bill. effect: `counted`, or `stale`: a repeat, or older than what was known."""

    event_id: str
    type: str
    seq: int
    time: str
    elapsed_ms: int
    offset: int
    effect: str
    added: Bytes

    @classmethod
    def of(cls, row: EventRow) -> "EventOut":
        return cls(
            event_id=row.event_id,
            type=row.type,
            seq=row.seq,
            time=rfc3339(row.time_ms),
            elapsed_ms=row.elapsed_ms,
            offset=row.offset,
            effect=row.effect,
            added=Bytes(**row.added._asdict()),
            **row.counters._asdict(),
        )


class EventsMeta(BaseModel):
    limit: int
    next_cursor: str | None = None


class ConnectionDetail(ConnectionOut):
    """With its first 100 events; `events_meta.next_cursor` goes on at `…/events`."""

    events: list[EventOut]
    events_meta: EventsMeta


class Ending(BaseModel):
    """The edges were asked to end the connection; void after `expires_at`."""

    connection_id: str
    status: Literal["ending"] = "ending"
    close_code: int
    reason: str
    expires_at: str


class PartitionOut(BaseModel):
    """edge_position: next offset after the edge's events as of its latest watermark. position: what
    was folded so far."""

    partition: int
    edge_position: int
    position: int
    passed: bool


class EdgeOut(BaseModel):
    """An edge's latest watermark. The counts of connections are for operators only."""

    edge_id: str
    region: str
    pop: str
    through: str
    ended: bool
    lost: bool
    silent_ticks: int
    journal_backlog: int
    journal_age_ms: int
    open_connections: int | None = None
    accepted_total: int | None = None
    closed_total: int | None = None
    partitions: list[PartitionOut]


class HoldOut(BaseModel):
    """What keeps a slice from being later. through None: nothing can be said yet."""

    edge_id: str | None
    through: str | None
    cause: str


class SliceOut(BaseModel):
    slice: int
    position: int
    end: int
    lag: int
    through: str | None
    held_by: list[HoldOut]


class MonthOut(BaseModel):
    """The newest month that has ended. complete: every slice is past its end."""

    month: str
    ends_at: str
    complete: bool
    held_by: list[str]


class WatermarksOut(BaseModel):
    data: list[EdgeOut]
    slices: list[SliceOut]
    month: MonthOut
    meta: dict[str, Any]


class EdgeReconciliation(BaseModel):
    """An edge's own totals against what was projected. missing None: no watermark passed yet."""

    edge_id: str
    accepted_total: int
    closed_total: int
    accepted_projected: int
    closed_projected: int
    accepted_missing: int | None
    closed_missing: int | None


class ReconciliationOut(BaseModel):
    """accepted = open + closed; lost is a part of closed. balanced: nothing missing, nothing
    parked. edges and difference are for operators."""

    accepted: int
    open: int
    closed: int
    lost: int
    parked: int
    balanced: bool
    difference: int | None = None
    edges: list[EdgeReconciliation] | None = None


def stats_row(start_ms: int, totals: Totals, service_id: str | None) -> dict[str, Any]:
    """One row of the statistics API: integers only."""
    row: dict[str, Any] = {} if service_id is None else {"service_id": service_id}
    row["start_time"] = start_ms // 1_000
    for name, count in totals.counters._asdict().items():
        row[f"websocket_{name}"] = count
    row["websocket_conn_time_ms"] = totals.minutes * 60_000
    row["requests"] = totals.opened
    row["bandwidth"] = bandwidth(totals.counters)
    return row


FIELDS = frozenset(stats_row(0, Totals(), None)) - {"start_time"}
"""What `/stats/field/{field}` may ask for."""
