"""One connection, sans-IO: its states, its counters, and the events that tell of it.

Owns what an event says and when one is due; not where it goes. Instants are nanoseconds of one
clock; `elapsed_ms` is the rounded-up time since the connection was accepted.

    HANDSHAKING ──accept──▶ ACCEPTED ──establish──▶ RELAYING ──close──▶ CLOSED
                               └────────────────close─────────────────────▲
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from handoff_common.events import (
    AcceptedData,
    BytesData,
    ClosedBy,
    ClosedData,
    ConnectionAccepted,
    ConnectionBytes,
    ConnectionClosed,
    ConnectionData,
    ConnectionEvent,
    Counters,
    Reason,
    counters_of,
)
from handoff_common.instants import from_ms, to_ms
from handoff_common.minutes import month_of

_NS_PER_MS: Final = 1_000_000


class Phase(Enum):
    HANDSHAKING = "handshaking"
    ACCEPTED = "accepted"
    RELAYING = "relaying"
    CLOSED = "closed"


_NEXT: Final[Mapping[Phase, frozenset[Phase]]] = {
    Phase.HANDSHAKING: frozenset({Phase.ACCEPTED}),
    Phase.ACCEPTED: frozenset({Phase.RELAYING, Phase.CLOSED}),
    Phase.RELAYING: frozenset({Phase.CLOSED}),
    Phase.CLOSED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where the edge is: what it says of itself in every event."""

    edge_id: str
    region: str
    pop: str

    @property
    def source(self) -> str:
        return f"/edges/{self.edge_id}"


@dataclass(frozen=True, slots=True)
class Facts:
    """What `accepted` tells besides the common part."""

    domain: str
    rule: str | None
    backend: str
    service_version: int
    subprotocol: str | None
    client_network: str
    tls: bool = False


class Connection:
    """See the module. Counters are given as a whole each time: the handshake's header bytes are
    kept here, body bytes come from the relay."""

    __slots__ = (
        "_headers",
        "_month",
        "_place",
        "_reported",
        "_seq",
        "accepted_ns",
        "connection_id",
        "customer_id",
        "facts",
        "phase",
        "service_id",
    )

    def __init__(
        self, *, place: Place, connection_id: str, customer_id: str, service_id: str
    ) -> None:
        self.connection_id = connection_id
        self.customer_id = customer_id
        self.service_id = service_id
        self.phase = Phase.HANDSHAKING
        self.accepted_ns = 0
        self.facts: Facts | None = None
        self._place = place
        self._headers = Counters()
        self._seq = 0
        self._reported = Counters()
        self._month = 0

    @property
    def accepted_ms(self) -> int:
        return self.accepted_ns // _NS_PER_MS

    def accept(self, now_ns: int, headers: Counters, facts: Facts) -> ConnectionAccepted:
        """The origin answered a valid 101. `headers`: the handshake heads so far."""
        self._move(Phase.ACCEPTED)
        self.accepted_ns = now_ns
        self.facts = facts
        self._headers = headers
        self._month = month_of(self.accepted_ms)
        data = AcceptedData(
            **self._common(0, headers),
            domain=facts.domain,
            rule=facts.rule,
            backend=facts.backend,
            service_version=facts.service_version,
            subprotocol=facts.subprotocol,
            tls=facts.tls,
            client_network=facts.client_network,
        )
        return ConnectionAccepted(**self._envelope(0), data=data)

    def establish(self) -> None:
        self._move(Phase.RELAYING)

    def sent_to_client(self, count: int) -> None:
        """`count` bytes of the 101 were taken by the kernel."""
        sent = self._headers.resp_header_bytes + count
        self._headers = self._headers._replace(resp_header_bytes=sent)

    def counters(self, body: tuple[int, int, int, int]) -> Counters:
        """All eight. `body`: received from and sent to the client, sent to and received from the
        origin, as the relay counts them."""
        req, resp, bereq, beresp = body
        return self._headers._replace(
            req_body_bytes=req,
            resp_body_bytes=resp,
            bereq_body_bytes=bereq,
            beresp_body_bytes=beresp,
        )

    def checkpoint(self, now_ns: int, counters: Counters) -> list[ConnectionEvent]:
        """What is due now: nothing where the counters are as last reported and no month began."""
        events = self._month_end(now_ns, counters)
        if counters != self._reported:
            events.append(self._bytes(self._elapsed(now_ns), counters))
        return events

    def month_end(self, now_ns: int, counters: Counters) -> list[ConnectionEvent]:
        """The checkpoint that the start of a month demands, where it was not made yet."""
        return self._month_end(now_ns, counters)

    def close(
        self,
        now_ns: int,
        counters: Counters,
        *,
        reason: Reason,
        closed_by: ClosedBy,
        close_code: int | None,
    ) -> list[ConnectionEvent]:
        """The end; behind the checkpoint of a month's end where one is still owed."""
        events = self._month_end(now_ns, counters)
        self._move(Phase.CLOSED)
        elapsed = self._elapsed(now_ns)
        data = ClosedData(
            **self._common(elapsed, counters),
            reason=reason,
            closed_by=closed_by,
            close_code=close_code,
        )
        events.append(ConnectionClosed(**self._envelope(elapsed), data=data))
        return events

    def _month_end(self, now_ns: int, counters: Counters) -> list[ConnectionEvent]:
        # Judged by the instant the event would bear, so that no event of the new month can
        # come before the checkpoint that ends the old one.
        month = month_of(self.accepted_ms + self._elapsed(now_ns))
        if month <= self._month:
            return []
        self._month = month
        return [self._bytes(month - 1 - self.accepted_ms, counters)]

    def _bytes(self, elapsed_ms: int, counters: Counters) -> ConnectionBytes:
        data = BytesData(**self._common(elapsed_ms, counters))
        return ConnectionBytes(**self._envelope(elapsed_ms), data=data)

    def _elapsed(self, now_ns: int) -> int:
        return -(-(now_ns - self.accepted_ns) // _NS_PER_MS)

    def _common(self, elapsed_ms: int, counters: Counters) -> dict[str, Any]:
        self._reported = counters
        self._seq += 1
        return {
            "customer_id": self.customer_id,
            "service_id": self.service_id,
            "region": self._place.region,
            "pop": self._place.pop,
            "edge_id": self._place.edge_id,
            "connection_id": self.connection_id,
            "seq": self._seq - 1,
            "accepted_at": from_ms(self.accepted_ms),
            "elapsed_ms": elapsed_ms,
            **counters._asdict(),
        }

    def _envelope(self, elapsed_ms: int) -> dict[str, Any]:
        return {
            "id": f"{self.connection_id}-{self._seq - 1}",
            "source": self._place.source,
            "subject": self.connection_id,
            "time": from_ms(self.accepted_ms + elapsed_ms),
        }

    def _move(self, phase: Phase) -> None:
        if phase not in _NEXT[self.phase]:
            raise AssertionError(f"a connection cannot go from {self.phase} to {phase}")
        self.phase = phase


def lost(latest: ConnectionEvent, place: Place, through_ms: int) -> ConnectionClosed:
    """The end of a connection whose edge died, at its last proof of life: the later of its latest
    event and the edge's last watermark."""
    data: ConnectionData = latest.data
    accepted_ms = to_ms(data.accepted_at)
    elapsed = max(data.elapsed_ms, through_ms - accepted_ms)
    seq = data.seq + 1
    return ConnectionClosed(
        id=f"{data.connection_id}-{seq}",
        source=place.source,
        subject=data.connection_id,
        time=from_ms(accepted_ms + elapsed),
        data=ClosedData(
            customer_id=data.customer_id,
            service_id=data.service_id,
            region=data.region,
            pop=data.pop,
            edge_id=data.edge_id,
            connection_id=data.connection_id,
            seq=seq,
            accepted_at=data.accepted_at,
            elapsed_ms=elapsed,
            **counters_of(data)._asdict(),
            reason=Reason.EDGE_CRASHED,
            closed_by="lost",
        ),
    )
