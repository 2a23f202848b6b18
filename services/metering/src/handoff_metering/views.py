"""What metering keeps in memory of other topics: edges with their watermarks, services with owners.

Thin shells around `View`: the folds are in `watermarks` and `orphans`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from handoff_common import codec
from handoff_common.errors import Unreadable
from handoff_common.events import (
    EdgeEvent,
    EdgeRefusals,
    EdgeWatermark,
    ServiceData,
    ServiceSnapshot,
)
from handoff_common.log import EventLog, Partition
from handoff_common.topics import EDGES, SERVICES
from handoff_common.view import View
from handoff_metering import orphans, watermarks

_BATCH = 5_000


async def read_to_end(log: EventLog, topic: str, fold: Callable[[Any, int], None]) -> None:
    """Fold a topic once, from its start to its present end. Records that cannot be decoded are
    passed over, as `View` does.
    """

    async def from_start(_: Sequence[Partition]) -> Mapping[Partition, int]:
        return {}

    subscription = log.subscribe([topic], group=None, positions=from_start)
    try:
        while True:
            batches = await subscription.fetch(max_records=_BATCH, timeout=0)
            for batch in batches:
                for record in batch.records:
                    try:
                        event = codec.decode(record.topic, record.value)
                    except Unreadable:
                        continue
                    fold(event, record.partition)
            if not batches and await subscription.caught_up():
                return
    finally:
        await subscription.close()


class EdgesView:
    """Every edge's watermarks and silence."""

    def __init__(self, log: EventLog, *, ticks_until_lost: int) -> None:
        self.edges: watermarks.Edges = {}
        self.silence: orphans.Edges = {}
        self._limit = ticks_until_lost
        self._changed: Callable[[], None] | None = None
        self.view = View(log, [EDGES.name], self.fold, name="edges")

    def on_change(self, changed: Callable[[], None]) -> None:
        """Call this after each watermark or tick, in the loop that reads them."""
        self._changed = changed

    async def run(self) -> None:
        await self.view.run()

    @property
    def lost(self) -> frozenset[str]:
        return orphans.lost(self.silence)

    def fold(self, event: EdgeEvent, partition: int) -> None:
        if isinstance(event, EdgeRefusals):
            return
        if isinstance(event, EdgeWatermark):
            self.edges = watermarks.fold(self.edges, event)
        self.silence = orphans.fold(self.silence, event, partition=partition, limit=self._limit)
        if self._changed is not None:
            self._changed()


class ServicesView:
    """Whose each service is, and what it is called."""

    def __init__(self, log: EventLog) -> None:
        self._services: dict[str, ServiceData] = {}
        self.view = View(log, [SERVICES.name], self._fold, name="services")

    async def run(self) -> None:
        await self.view.run()

    async def find(self, service_id: str) -> ServiceData | None:
        """A service; one that is not known is looked for up to the log's end first."""
        if service_id not in self._services:
            await self.view.catch_up(timeout=2.0)
        return self._services.get(service_id)

    def name_of(self, service_id: str) -> str:
        service = self._services.get(service_id)
        return service.name if service else service_id

    def _fold(self, event: ServiceSnapshot, _partition: int) -> None:
        known = self._services.get(event.data.service_id)
        if known is None or known.revision < event.data.revision:
            self._services[event.data.service_id] = event.data
