"""How what is in the journal reaches the log that others read.

Two ways: in the embedded system the journal is that log (`Direct`); with Kafka a `forwarder` copies
it. The recorder knows neither: it asks what this edge may vouch for.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from handoff_common import codec
from handoff_common.events import EdgeWatermark
from handoff_common.log import JournaledLog, Message, Position
from handoff_common.topics import CONNECTIONS, EDGES

UNKNOWN = "journal: this edge's id is not in the log yet"
"""Until it is, nobody would wait for this edge: a month might be billed without it."""


class Standing(NamedTuple):
    """What the log that others read holds of this edge, at one moment.

    through_ms: everything of this edge before it is there. positions: partition → position behind
    the last of its events. accepted, closed: how many of each lie before those positions. backlog:
    events that are durable here and not there yet.
    """

    through_ms: int
    positions: Mapping[int, int]
    accepted: int
    closed: int
    backlog: int


class Delivery(Protocol):
    async def start(self) -> None:
        """Take over what a former process has left. Called behind recovery and before any event."""

    def appended(self, positions: Sequence[Position], *, accepted: int, closed: int) -> None:
        """The journal has acknowledged events; so many of them opened or ended a connection."""

    def standing(self, through_ms: int) -> Standing:
        """What may be vouched for, where everything before `through_ms` is in the journal now."""

    async def publish(self, event: EdgeWatermark, alive_ms: int) -> None:
        """Make durable that this edge lives at `alive_ms`, and send the watermark on its way.

        Raises LogError where the journal fails; a log that is away is no failure.
        """

    async def delivered(self, *, timeout: float) -> bool:
        """Wait until all that was appended and published is in the log that others read."""

    @property
    def problems(self) -> list[str]:
        """Why this edge is not ready; empty when it is."""

    @property
    def refusal(self) -> str:
        """Why no new connection may be recorded; empty when they may."""


class Direct:
    """The journal is the log."""

    def __init__(self, log: JournaledLog) -> None:
        self._log = log
        self._positions: dict[int, int] = {}
        self._accepted = 0
        self._closed = 0
        self._acknowledged = False

    async def start(self) -> None:
        self._accepted, self._closed = await self._log.totals(CONNECTIONS.name)
        # Nothing of a former process lies behind the log's present ends. The positions that it
        # named last are not enough: it may have delivered more since.
        ends = await self._log.ends(CONNECTIONS.name)
        self._positions = {number: end for number, (_, end) in ends.items() if end}

    def appended(self, positions: Sequence[Position], *, accepted: int, closed: int) -> None:
        for _, partition, offset in positions:
            self._positions[partition] = max(offset, self._positions.get(partition, 0))
        self._accepted += accepted
        self._closed += closed

    def standing(self, through_ms: int) -> Standing:
        return Standing(through_ms, dict(self._positions), self._accepted, self._closed, 0)

    async def publish(self, event: EdgeWatermark, alive_ms: int) -> None:
        message = Message(event.data.edge_id, codec.encode(event), keep="hold")
        await self._log.append(EDGES.name, [message])
        self._acknowledged = True

    async def delivered(self, *, timeout: float) -> bool:
        return True

    @property
    def problems(self) -> list[str]:
        return [self.refusal] if self.refusal else []

    @property
    def refusal(self) -> str:
        return "" if self._acknowledged else UNKNOWN
