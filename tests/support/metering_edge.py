"""An edge as metering sees it: the events that it appends and the watermarks that it vouches with.

`Script` makes the events of one connection; `Edge` appends them to a log as an edge would, and
keeps its own count of what it did: the witness that metering is compared with.
"""

from collections.abc import Sequence
from typing import Any

from handoff_common import codec
from handoff_common.events import (
    AcceptedData,
    BytesData,
    ClosedBy,
    ClosedData,
    ConnectionAccepted,
    ConnectionBytes,
    ConnectionClosed,
    ConnectionEvent,
    Counters,
    EdgeRefusals,
    EdgeWatermark,
    Envelope,
    Reason,
    RefusalCount,
    RefusalsData,
    WatermarkData,
)
from handoff_common.instants import from_ms
from handoff_common.log import EventLog, Message
from handoff_common.topics import CONNECTIONS, EDGES

HEADS = Counters(400, 0, 129, 0, 410, 0, 129, 0)


def carried(body: int) -> Counters:
    """The handshake, and `body` bytes each way."""
    return HEADS._replace(
        req_body_bytes=body, resp_body_bytes=body, bereq_body_bytes=body, beresp_body_bytes=body
    )


class Script:
    """Makes the events of one connection. `seq` counts up by itself."""

    def __init__(
        self,
        accepted_ms: int,
        *,
        connection_id: str = "c-1",
        customer_id: str = "customer-1",
        service_id: str = "service-1",
        region: str = "europe",
        edge_id: str = "edge-1",
    ) -> None:
        self.accepted_ms = accepted_ms
        self.connection_id = connection_id
        self.next_seq = 0
        self._common: dict[str, Any] = {
            "customer_id": customer_id,
            "service_id": service_id,
            "region": region,
            "pop": "fra1",
            "edge_id": edge_id,
            "connection_id": connection_id,
            "accepted_at": from_ms(accepted_ms),
        }

    def accepted(self, counters: Counters = HEADS, *, elapsed_ms: int = 0) -> ConnectionAccepted:
        return ConnectionAccepted(
            **self._envelope(elapsed_ms),
            data=AcceptedData(
                **self._data(elapsed_ms, counters),
                domain="chat.example.com",
                backend="main",
                service_version=3,
                subprotocol="chat",
                client_network="192.0.2.0/24",
            ),
        )

    def bytes(self, elapsed_ms: int, counters: Counters = HEADS) -> ConnectionBytes:
        return ConnectionBytes(
            **self._envelope(elapsed_ms), data=BytesData(**self._data(elapsed_ms, counters))
        )

    def closed(
        self,
        elapsed_ms: int,
        counters: Counters = HEADS,
        *,
        reason: Reason = Reason.CLIENT_CLOSED,
        closed_by: ClosedBy = "client",
    ) -> ConnectionClosed:
        return ConnectionClosed(
            **self._envelope(elapsed_ms),
            data=ClosedData(
                **self._data(elapsed_ms, counters),
                reason=reason,
                closed_by=closed_by,
                close_code=1000 if closed_by == "client" else None,
            ),
        )

    def crashed(self, elapsed_ms: int, counters: Counters = HEADS) -> ConnectionClosed:
        return self.closed(elapsed_ms, counters, reason=Reason.EDGE_CRASHED, closed_by="lost")

    def never_established(self, elapsed_ms: int) -> ConnectionClosed:
        return self.closed(elapsed_ms, reason=Reason.NEVER_ESTABLISHED, closed_by="edge")

    def _envelope(self, elapsed_ms: int) -> dict[str, Any]:
        return {
            "id": f"{self.connection_id}-{self.next_seq}",
            "source": f"/edges/{self._common['edge_id']}",
            "subject": self.connection_id,
            "time": from_ms(self.accepted_ms + elapsed_ms),
        }

    def _data(self, elapsed_ms: int, counters: Counters) -> dict[str, Any]:
        self.next_seq += 1
        return {
            **self._common,
            "seq": self.next_seq - 1,
            "elapsed_ms": elapsed_ms,
            **counters._asdict(),
        }


def watermark(
    edge_id: str = "edge-1",
    *,
    through_ms: int,
    positions: dict[int, int] | None = None,
    accepted: int = 0,
    closed: int = 0,
    ended: bool = False,
) -> EdgeWatermark:
    return EdgeWatermark(
        id=f"{edge_id}-{through_ms}",
        source=f"/edges/{edge_id}",
        subject=edge_id,
        time=from_ms(through_ms),
        data=WatermarkData(
            edge_id=edge_id,
            region="europe",
            pop="fra1",
            through=from_ms(through_ms),
            positions={str(number): at for number, at in (positions or {}).items()},
            open_connections=accepted - closed,
            accepted_total=accepted,
            closed_total=closed,
            ended=ended,
        ),
    )


def refused(
    edge_id: str,
    hour_ms: int,
    count: int,
    *,
    cause: str = "not_enabled",
    owner: tuple[str, str] | None = ("customer-1", "service-1"),
    started_ms: int = 0,
    time_ms: int | None = None,
) -> EdgeRefusals:
    """One count of refusals. owner: (customer, service)."""
    customer_id, service_id = owner or (None, None)
    return EdgeRefusals(
        id=f"{edge_id}-refusals-{hour_ms}-{count}",
        source=f"/edges/{edge_id}",
        subject=edge_id,
        time=from_ms(hour_ms if time_ms is None else time_ms),
        data=RefusalsData(
            edge_id=edge_id,
            region="europe",
            pop="fra1",
            started_at=from_ms(started_ms),
            hour=from_ms(hour_ms),
            counts=(
                RefusalCount(
                    customer_id=customer_id, service_id=service_id, cause=cause, count=count
                ),
            ),
        ),
    )


class Edge:
    """Appends what it is told to, and counts it."""

    def __init__(self, log: EventLog, edge_id: str = "edge-1") -> None:
        self._log = log
        self.edge_id = edge_id
        self.positions: dict[int, int] = {}
        self.accepted: set[str] = set()
        self.closed: set[str] = set()
        self.appended: list[ConnectionEvent] = []

    def script(self, accepted_ms: int, connection_id: str, **identity: str) -> Script:
        return Script(accepted_ms, connection_id=connection_id, edge_id=self.edge_id, **identity)

    async def append(self, *events: ConnectionEvent) -> None:
        """Append connection events; positions and totals follow."""
        written = await self._log.append(
            CONNECTIONS.name,
            [Message(event.subject, codec.encode(event)) for event in events],
        )
        for position in written:
            self.positions[position.partition] = position.offset
        self.appended += events
        for event in events:
            self.accepted.add(event.subject)
            if isinstance(event, ConnectionClosed):
                self.closed.add(event.subject)

    async def vouch(self, through_ms: int, *, ended: bool = False) -> None:
        """Append a watermark over all that was appended so far."""
        await append(
            self._log,
            EDGES.name,
            [
                watermark(
                    self.edge_id,
                    through_ms=through_ms,
                    positions=self.positions,
                    accepted=len(self.accepted),
                    closed=len(self.closed),
                    ended=ended,
                )
            ],
        )


async def tell(log: EventLog, *events: EdgeRefusals) -> None:
    """Append counts, each under a key of its own, as an edge's parts are."""
    messages = []
    for event in events:
        data = event.data
        [one] = data.counts
        key = f"refusals/{data.edge_id}/{data.started_at}/{data.hour}/{one.service_id}/{one.cause}"
        messages.append(Message(key, codec.encode(event)))
    await log.append(EDGES.name, messages)


async def append(log: EventLog, topic: str, events: Sequence[Envelope]) -> None:
    """Append events under their subject."""
    await log.append(topic, [Message(event.subject, codec.encode(event)) for event in events])
