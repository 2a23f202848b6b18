"""Which edges are lost. Pure: a fold of ticks and watermarks in the order in which they are read.

Silence is measured in the log, not by a clock. The owner of the orphan closer appends a tick to
each partition every 10 s and reads it back; an edge of which 90 ticks in a row saw no watermark is
lost. An edge is measured by the ticks of the partition that its watermarks are in: only there does
the log say what came before what, and where its watermarks cannot be written, ticks cannot either.
While the broker or metering is away no tick arrives, so their outage counts as nothing. The topic
is compacted, so a restart may begin to count again, on the safe side.

It decides once per silence: an edge that returns is no longer lost, and may be lost again. An edge
that has ended never is.
"""

from collections.abc import Mapping

from msgspec import Struct, structs

from handoff_common.events import (
    ClosedData,
    ConnectionClosed,
    EdgeEvent,
    EdgeWatermark,
    Reason,
    Tick,
)
from handoff_common.instants import from_ms, to_ms
from handoff_metering.usage import ConnectionState

TICKS_UNTIL_LOST = 90


class Silence(Struct, frozen=True):
    """How long an edge has said nothing: `ticks` since its last watermark, which vouched up to
    `through_ms` and is in `partition`."""

    through_ms: int
    partition: int = 0
    ticks: int = 0
    ended: bool = False
    lost: bool = False


Edges = Mapping[str, Silence]


def fold(
    edges: Edges, event: EdgeEvent, *, partition: int = 0, limit: int = TICKS_UNTIL_LOST
) -> Edges:
    """The edges after one watermark or tick in a partition; nothing else is a sign of life."""
    if isinstance(event, EdgeWatermark):
        data = event.data
        silence = Silence(to_ms(data.through), partition, ended=data.ended)
        return {**edges, data.edge_id: silence}
    if not isinstance(event, Tick):
        return edges
    return {
        edge_id: _ticked(silence, limit) if silence.partition == partition else silence
        for edge_id, silence in edges.items()
    }


def _ticked(silence: Silence, limit: int) -> Silence:
    if silence.ended or silence.lost:
        return silence
    ticks = silence.ticks + 1
    return structs.replace(silence, ticks=ticks, lost=ticks >= limit)


def lost(edges: Edges) -> frozenset[str]:
    return frozenset(edge_id for edge_id, silence in edges.items() if silence.lost)


def closing(state: ConnectionState, through_ms: int) -> ConnectionClosed:
    """The close that a lost edge's open connection gets: at the edge's last `through`, or at the
    connection's own last event where that is later. Provisional: see `usage`.

    Its id names the watermark, so that a second closer writes the same event.
    """
    elapsed_ms = max(through_ms - state.accepted_ms, state.elapsed_ms)
    accepted_at = from_ms(state.accepted_ms)
    return ConnectionClosed(
        id=f"{state.connection_id}-lost-{through_ms}",
        source="/metering/orphans",
        subject=state.connection_id,
        time=from_ms(state.accepted_ms + elapsed_ms),
        data=ClosedData(
            customer_id=state.customer_id,
            service_id=state.service_id,
            region=state.region,
            pop=state.pop,
            edge_id=state.edge_id,
            connection_id=state.connection_id,
            seq=state.seq + 1,
            accepted_at=accepted_at,
            elapsed_ms=elapsed_ms,
            reason=Reason.EDGE_LOST,
            closed_by="lost",
            **state.counters._asdict(),
        ),
    )
