"""The event schema: what crosses the log, as frozen msgspec structs with explicit wire tags.

Envelope: CloudEvents 1.0, JSON, structured mode; `type` is the tag. A compatible change adds an
optional field; anything else is a new type. No path, query, login or full client address enters an
event. JSON Schemas are exported into `libs/common/schemas` and reviewed in diffs.

Three families:
- connection events (edges → metering): any single one is enough to bill by;
- snapshots (config → everyone): the whole state of one service, customer or token, with a global
  revision; a reader keeps the greatest. Deletion is a state, never a tombstone;
- usage and invoices (metering → billing → other teams).
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta, Struct

UInt63 = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Revision = Annotated[int, Meta(ge=1, le=2**63 - 1)]

COUNTER_NAMES = (
    "req_header_bytes",
    "req_body_bytes",
    "resp_header_bytes",
    "resp_body_bytes",
    "bereq_header_bytes",
    "bereq_body_bytes",
    "beresp_header_bytes",
    "beresp_body_bytes",
)
"""Bytes client → edge (`req`), edge → client (`resp`), edge → origin (`bereq`), origin → edge
(`beresp`). `header` is the handshake head, `body` everything after it."""


class Counters(NamedTuple):
    """The eight counters of COUNTER_NAMES, in that order; cumulative in events."""

    req_header_bytes: int = 0
    req_body_bytes: int = 0
    resp_header_bytes: int = 0
    resp_body_bytes: int = 0
    bereq_header_bytes: int = 0
    bereq_body_bytes: int = 0
    beresp_header_bytes: int = 0
    beresp_body_bytes: int = 0

    def minus(self, other: "Counters") -> "Counters":
        return Counters(*(a - b for a, b in zip(self, other, strict=True)))

    def plus(self, other: "Counters") -> "Counters":
        return Counters(*(a + b for a, b in zip(self, other, strict=True)))

    def at_least(self, other: "Counters") -> "Counters":
        return Counters(*(max(a, b) for a, b in zip(self, other, strict=True)))


class Reason(StrEnum):
    """Why a connection ended. CLOSE_CODES says what its peers are told."""

    CLIENT_CLOSED = "client_closed"
    ORIGIN_CLOSED = "origin_closed"
    CLIENT_RESET = "client_reset"
    ORIGIN_RESET = "origin_reset"
    IDLE_TIMEOUT = "idle_timeout"
    MAX_DURATION = "max_duration"
    DEAD_PEER = "dead_peer"
    DRAINED = "drained"
    DISABLED = "disabled"
    ENDED_BY_OPERATOR = "ended_by_operator"
    CONTRACT_ENDED = "contract_ended"
    OVER_BUDGET = "over_budget"
    NEVER_ESTABLISHED = "never_established"
    EDGE_CRASHED = "edge_crashed"
    EDGE_LOST = "edge_lost"


CLOSE_CODES: dict[Reason, int] = {
    Reason.IDLE_TIMEOUT: 1001,
    Reason.MAX_DURATION: 1001,
    Reason.DRAINED: 1001,
    Reason.DISABLED: 1001,
    Reason.ENDED_BY_OPERATOR: 1008,
    Reason.CONTRACT_ENDED: 1008,
    Reason.OVER_BUDGET: 1013,
}
"""The close code that the edge sends where the edge is what ends a connection. For a reason that is
not listed the edge sends none; `close_code` in the event is then the peer's own, if it sent one."""

ClosedBy = Literal["client", "origin", "edge", "lost"]

PROVISIONAL = frozenset({Reason.EDGE_CRASHED, Reason.EDGE_LOST})
"""Closes written on an edge's behalf: a later event from the edge itself overrides them."""


# --- Connection events: handoff.connections.v1, key = connection id ---


class ConnectionData(Struct, frozen=True, kw_only=True, gc=False):
    """What every connection event bears. `elapsed_ms` is monotonic since `accepted_at`, rounded
    up. Counters are cumulative since the start of the connection."""

    customer_id: str
    service_id: str
    region: str
    pop: str
    edge_id: str
    connection_id: str
    seq: UInt63
    accepted_at: datetime
    elapsed_ms: UInt63
    req_header_bytes: UInt63 = 0
    req_body_bytes: UInt63 = 0
    resp_header_bytes: UInt63 = 0
    resp_body_bytes: UInt63 = 0
    bereq_header_bytes: UInt63 = 0
    bereq_body_bytes: UInt63 = 0
    beresp_header_bytes: UInt63 = 0
    beresp_body_bytes: UInt63 = 0


class AcceptedData(ConnectionData, frozen=True, kw_only=True, gc=False):
    """The origin answered a valid 101. `client_network` is the client's /24 or /48."""

    domain: str
    rule: str | None = None
    backend: str
    service_version: UInt63
    subprotocol: str | None = None
    tls: bool = False
    client_network: str = ""


class BytesData(ConnectionData, frozen=True, kw_only=True, gc=False):
    """A checkpoint of the counters."""


class ClosedData(ConnectionData, frozen=True, kw_only=True, gc=False):
    """The end. `close_code` is what the peer that closed said, or what the edge told both."""

    reason: Reason
    closed_by: ClosedBy
    close_code: int | None = None


class Envelope(Struct, frozen=True, kw_only=True, tag_field="type", gc=False):
    """CloudEvents 1.0 attributes. `time` is the instant of the event."""

    specversion: Literal["1.0"] = "1.0"
    id: str
    source: str
    subject: str
    time: datetime
    datacontenttype: Literal["application/json"] = "application/json"


class ConnectionAccepted(Envelope, frozen=True, kw_only=True, tag="handoff.connection.accepted.v1"):
    data: AcceptedData


class ConnectionBytes(Envelope, frozen=True, kw_only=True, tag="handoff.connection.bytes.v1"):
    data: BytesData


class ConnectionClosed(Envelope, frozen=True, kw_only=True, tag="handoff.connection.closed.v1"):
    data: ClosedData


class ParkedDecisionData(Struct, frozen=True, kw_only=True):
    """What was decided about a parked record, so that a replay decides the same."""

    partition: UInt63
    offset: UInt63
    decision: Literal["retry", "discard"]
    reason: str
    decided_by: str


class ParkedDecision(Envelope, frozen=True, kw_only=True, tag="handoff.parked.decision.v1"):
    data: ParkedDecisionData


ConnectionEvent = ConnectionAccepted | ConnectionBytes | ConnectionClosed


# --- Edges: handoff.edges.v1, key = edge id (a tick: tick/<partition>; refusals:
# refusals/<edge id>/<start of the process, epoch ms>/<hour>/<part>) ---


class WatermarkData(Struct, frozen=True, kw_only=True):
    """What an edge vouches for: every event of it up to `through` is in the log, and each of its
    connections without a `closed` was alive at `through`.

    positions: partition → offset after the edge's last acknowledged event there (absent: none).
    """

    edge_id: str
    region: str
    pop: str
    through: datetime
    positions: dict[str, UInt63]
    open_connections: UInt63
    accepted_total: UInt63
    closed_total: UInt63
    journal_backlog: UInt63 = 0
    journal_age_ms: UInt63 = 0
    ended: bool = False


class EdgeWatermark(Envelope, frozen=True, kw_only=True, tag="handoff.edge.watermark.v1"):
    data: WatermarkData


class TickData(Struct, frozen=True, kw_only=True):
    owner: str


class Tick(Envelope, frozen=True, kw_only=True, tag="handoff.metering.tick.v1"):
    """The orphan closer's heartbeat: silence of an edge is counted in these, not by a clock."""

    data: TickData


Cause = Annotated[str, Meta(pattern="^[a-z0-9_]{1,64}$")]


class RefusalCount(Struct, frozen=True, kw_only=True):
    """Handshakes that led to no connection. cause: a code of the edge. service_id, customer_id:
    None where no service has the domain that was asked for, or none was asked for."""

    customer_id: str | None = None
    service_id: str | None = None
    cause: Cause
    count: UInt63


class RefusalsData(Struct, frozen=True, kw_only=True):
    """What one process of an edge has refused in one UTC hour: absolute counts, so the greatest of
    each (edge, started_at, hour, service, cause) is the one that counts.

    part: an hour of many services is told in parts; a service's cause stays in its part. `counts`
    holds all that the part has, so the last event of a key says everything that its others did.
    """

    edge_id: str
    region: str
    pop: str
    started_at: datetime
    hour: datetime
    part: UInt63 = 0
    counts: tuple[RefusalCount, ...]


class EdgeRefusals(Envelope, frozen=True, kw_only=True, tag="handoff.edge.refusals.v1"):
    """For customers to see. Not billed, no part of any proof; a kill may lose the last seconds."""

    data: RefusalsData


EdgeEvent = EdgeWatermark | Tick | EdgeRefusals


# --- Snapshots from config ---


class BackendSnapshot(Struct, frozen=True, kw_only=True):
    """Where a handoff may go. `address` is a name or an IP address."""

    name: str
    address: str
    port: Annotated[int, Meta(ge=1, le=65535)]
    use_ssl: bool = False
    override_host: str | None = None


class NameValue(Struct, frozen=True, kw_only=True):
    """A header or query parameter to match; `value` None means that it is present at all."""

    name: str
    value: str | None = None


class RuleSnapshot(Struct, frozen=True, kw_only=True):
    """One WebSocket rule. Every condition given must hold. `path_pattern` is a glob in which `*`
    stands for any run of characters; a rule has a prefix or a pattern, not both."""

    name: str
    host: str | None = None
    path_prefix: str | None = None
    path_pattern: str | None = None
    header: NameValue | None = None
    query: NameValue | None = None
    subprotocol: str | None = None
    backend: str


class Limits(Struct, frozen=True, kw_only=True):
    """Per service; None is no limit. They hold per node."""

    max_connections: UInt63 | None = None
    max_new_per_second: UInt63 | None = None
    max_bytes_per_second: UInt63 | None = None
    idle_timeout_ms: UInt63 = 600_000
    half_closed_timeout_ms: UInt63 = 30_000
    max_duration_ms: UInt63 | None = None


class ServiceData(Struct, frozen=True, kw_only=True):
    """A service as its active version has it. `rules` are in matching order.

    keep_open: how it was disabled: True leaves open connections alone.
    """

    revision: Revision
    service_id: str
    customer_id: str
    name: str
    active_version: UInt63 | None = None
    websockets_enabled: bool = False
    websockets_changed_at: datetime | None = None
    keep_open: bool = False
    ngwaf_enabled: bool = False
    domains: tuple[str, ...] = ()
    backends: tuple[BackendSnapshot, ...] = ()
    rules: tuple[RuleSnapshot, ...] = ()
    limits: Limits = Limits()
    created_at: datetime | None = None
    deleted_at: datetime | None = None


class ServiceSnapshot(Envelope, frozen=True, kw_only=True, tag="handoff.service.snapshot.v1"):
    data: ServiceData


class ContractSnapshot(Struct, frozen=True, kw_only=True):
    """In force for `starts_at <= instant < ends_at`; `ends_at` None is open-ended."""

    contract_id: str
    product: str
    starts_at: datetime
    ends_at: datetime | None = None


class CustomerData(Struct, frozen=True, kw_only=True):
    revision: Revision
    customer_id: str
    name: str
    account_type: Literal["trial", "paid"]
    billing_email: str = ""
    suspended: bool = False
    contracts: tuple[ContractSnapshot, ...] = ()
    created_at: datetime | None = None
    deleted_at: datetime | None = None


class CustomerSnapshot(Envelope, frozen=True, kw_only=True, tag="handoff.customer.snapshot.v1"):
    data: CustomerData


class AccessData(Struct, frozen=True, kw_only=True):
    """One token. `token_sha256` is hex; the token itself is nowhere. An operator's token belongs
    to no customer."""

    revision: Revision
    token_id: str
    token_sha256: str
    user_id: str | None = None
    customer_id: str | None = None
    login: str = ""
    role: Literal["operator", "superuser", "engineer", "billing", "user"]
    scope: Literal["global", "global:read"] = "global"
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None


class AccessSnapshot(Envelope, frozen=True, kw_only=True, tag="handoff.access.snapshot.v1"):
    data: AccessData


# --- Controls: handoff.controls.v1 ---


class EndConnectionData(Struct, frozen=True, kw_only=True):
    """End one connection with 1008 and `reason`; void after `expires_at`."""

    connection_id: str
    customer_id: str
    service_id: str
    reason: str
    requested_by: str
    expires_at: datetime


class EndConnection(Envelope, frozen=True, kw_only=True, tag="handoff.control.end_connection.v1"):
    data: EndConnectionData


class HardCapData(Struct, frozen=True, kw_only=True):
    """A customer's hard cap: `on` refuses new handoffs; `end_open` ends the open ones too."""

    customer_id: str
    on: bool
    end_open: bool = False


class HardCap(Envelope, frozen=True, kw_only=True, tag="handoff.control.hard_cap.v1"):
    data: HardCapData


Control = EndConnection | HardCap


# --- Usage: handoff.usage.v1 ---


class UsageData(Struct, frozen=True, kw_only=True):
    """Absolute totals of one (customer, service, region, UTC hour, slice).

    Readers keep the row with the greatest (generation, revision). `offset` is that of the last
    connection record folded in. `lost` counts connections that the edge's own outage ended.
    """

    customer_id: str
    service_id: str
    region: str
    hour: datetime
    slice: UInt63
    generation: UInt63
    revision: UInt63
    offset: int
    minutes: UInt63
    req_header_bytes: UInt63 = 0
    req_body_bytes: UInt63 = 0
    resp_header_bytes: UInt63 = 0
    resp_body_bytes: UInt63 = 0
    bereq_header_bytes: UInt63 = 0
    bereq_body_bytes: UInt63 = 0
    beresp_header_bytes: UInt63 = 0
    beresp_body_bytes: UInt63 = 0
    opened: UInt63 = 0
    closed: UInt63 = 0
    lost: UInt63 = 0


class UsageTotals(Envelope, frozen=True, kw_only=True, tag="handoff.usage.totals.v1"):
    data: UsageData


class ProgressData(Struct, frozen=True, kw_only=True):
    """How far one slice has come, written to every partition behind the rows it speaks of.

    position: next offset of the slice's connections partition. through: smallest watermark of the
    edges that still count, each passed by this slice. parked: undecided records per customer; those
    whose customer cannot be told are under "". difference: events that edges say they delivered
    and that were not found, over all partitions.
    """

    slice: UInt63
    slices: UInt63
    generation: UInt63
    revision: UInt63
    position: UInt63
    through: datetime
    open_orphans: UInt63 = 0
    parked: dict[str, UInt63] = {}
    difference: UInt63 = 0


class UsageProgress(Envelope, frozen=True, kw_only=True, tag="handoff.usage.progress.v1"):
    data: ProgressData


UsageEvent = UsageTotals | UsageProgress


# --- Delivery and invoices ---


class DeliveryData(Struct, frozen=True, kw_only=True):
    """Delivery bytes that another team's system sent for a customer: absolute for this
    (customer, region, hour, source); the greatest revision counts."""

    customer_id: str
    region: str
    hour: datetime
    source: str
    bytes: UInt63
    revision: Revision


class DeliveryUsage(Envelope, frozen=True, kw_only=True, tag="handoff.delivery.usage.v1"):
    data: DeliveryData


class InvoiceData(Struct, frozen=True, kw_only=True):
    """A final invoice, for ever. `content` is the canonical document (RFC 8785) as text, byte for
    byte what `content_hash` is the SHA-256 of. positions: slice → next offset of the connections
    partition at the cut; through: slice → the watermark that the cut vouches for.
    delivery_revision: the greatest among the customer's delivery rows when the month was rated; 0
    where there were none, None from a release that did not write it."""

    invoice_id: str
    number: str
    customer_id: str
    issued_at: datetime
    content: str
    content_hash: str
    chain_hash: str
    previous_chain_hash: str
    positions: dict[str, UInt63]
    through: dict[str, datetime]
    delivery_revision: UInt63 | None = None
    forced_reason: str | None = None


class InvoiceFinalized(Envelope, frozen=True, kw_only=True, tag="handoff.invoice.finalized.v1"):
    data: InvoiceData


Event = (
    ConnectionEvent
    | ParkedDecision
    | EdgeEvent
    | ServiceSnapshot
    | CustomerSnapshot
    | AccessSnapshot
    | Control
    | UsageEvent
    | DeliveryUsage
    | InvoiceFinalized
)


def counters_of(data: ConnectionData | UsageData) -> Counters:
    return Counters(
        data.req_header_bytes,
        data.req_body_bytes,
        data.resp_header_bytes,
        data.resp_body_bytes,
        data.bereq_header_bytes,
        data.bereq_body_bytes,
        data.beresp_header_bytes,
        data.beresp_body_bytes,
    )
