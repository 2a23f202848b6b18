"""The orphan closer: appends ticks, and ends the connections of edges that are lost.

One process owns it at a time, by a lease in the database. It holds no decision: `orphans` says who
is lost, the projection says what is open. A connection is closed again at each tick until its close
has been folded; the event is the same each time, and a repeat counts for nothing.
"""

import asyncio
from collections.abc import Sequence

from handoff_common.clock import Clock
from handoff_common.codec import encode
from handoff_common.database import Database, time_of
from handoff_common.errors import DatabaseAway, LogUnreachable, LogWriteFailed
from handoff_common.events import Tick, TickData
from handoff_common.ids import uuid7
from handoff_common.instants import from_ms
from handoff_common.log import EventLog, Message, Position
from handoff_common.telemetry import get_logger
from handoff_common.topics import CONNECTIONS, EDGES
from handoff_metering import orphans
from handoff_metering.store import slices as store_slices
from handoff_metering.store import states as store
from handoff_metering.views import EdgesView

_LEASE = "ticks"
_CONNECTIONS_PER_APPEND = 500


class OrphanCloser:
    """tick_seconds: between two ticks. The lease lasts three of them."""

    def __init__(
        self,
        *,
        database: Database,
        log: EventLog,
        edges: EdgesView,
        clock: Clock,
        tick_seconds: float,
    ) -> None:
        self._database = database
        self._log = log
        self._edges = edges
        self._clock = clock
        self._tick_seconds = tick_seconds
        self._holder = uuid7()
        self._known: frozenset[str] = frozenset()
        self._logger = get_logger("orphans")

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._tick_seconds)
            try:
                if not await self._owns():
                    continue
                ticks = await self.tick()
                # Nobody is given up before the ticks have been read back behind all else.
                if self._edges.view.ready and await self._edges.view.has_read(
                    ticks, timeout=self._tick_seconds
                ):
                    await self.close_lost()
            except (LogWriteFailed, LogUnreachable) as error:
                # No tick, no silence: an outage of the log counts as nothing.
                self._logger.warning("tick_failed", detail=str(error))
            except DatabaseAway as error:
                self._logger.warning("database_away", doing="close orphans", detail=str(error))

    async def tick(self) -> Sequence[Position]:
        """Append a tick to each partition; it counts when the edges' view reads it back."""
        now_ms = self._clock.now_ms()
        event = Tick(
            id=f"tick-{now_ms}",
            source="/metering/orphans",
            subject="tick",
            time=from_ms(now_ms),
            data=TickData(owner=self._holder),
        )
        text = encode(event)
        ticks = [
            Message(f"tick/{number}", text, number)
            for number in range(await self._log.partitions(EDGES.name))
        ]
        return await self._log.append(EDGES.name, ticks)

    async def close_lost(self) -> int:
        """End the open connections of lost edges; returns how many closes were appended."""
        lost = self._edges.lost
        for edge_id in sorted(lost - self._known):
            self._logger.error("edge_lost", edge_id=edge_id)
        self._known = lost
        closed = 0
        for edge_id in sorted(lost):
            for number in range(await self._log.partitions(CONNECTIONS.name)):
                closed += await self._close(edge_id, number)
        return closed

    async def _close(self, edge_id: str, number: int) -> int:
        edge = self._edges.edges[edge_id]
        async with self._database.read() as tx:
            position = (await store_slices.read_positions(tx)).get(number, 0)
            if not edge.latest.passed_by(number, position):
                return 0
            states = await store.open_connections(tx, number, edge_id, _CONNECTIONS_PER_APPEND)
        events = [orphans.closing(state, edge.latest.through_ms) for state in states]
        await self._log.append(
            CONNECTIONS.name, [Message(event.subject, encode(event)) for event in events]
        )
        return len(events)

    async def _owns(self) -> bool:
        lasts_ms = max(1, int(3_000 * self._tick_seconds))
        async with self._database.transaction() as tx:
            now_ms = await time_of(tx, self._clock)
            return await store_slices.hold_lease(
                tx, _LEASE, self._holder, now_ms=now_ms, until_ms=now_ms + lasts_ms
            )
