"""The projection of what edges have refused, from `handoff.edges.v1`: events → counts by hour.

Nothing is billed or proved by it. What it cannot read is passed over, not parked, so that it never
holds an invoice; hours of months that are gone for good are left out.
"""

from collections.abc import Sequence
from typing import Final

from handoff_common.clock import Clock
from handoff_common.database import Tx
from handoff_common.events import EdgeRefusals
from handoff_common.log import Partition
from handoff_common.projection import Folded
from handoff_common.topics import EDGES
from handoff_metering import refusals, retention
from handoff_metering.store import refusals as store

MAX_BATCH: Final = 500
"""Records in a transaction: an edge tells up to some hundred counts in one."""


class RefusalsProjection:
    """See the module; a `handoff_common.projection.Projection`."""

    name = store.PROJECTION
    topics = (EDGES.name,)

    def __init__(self, *, clock: Clock, max_batch: int, keep_months: int) -> None:
        self.max_batch = min(max_batch, MAX_BATCH)
        self._clock = clock
        self._keep_months = keep_months

    async def apply(self, tx: Tx, partition: Partition, batch: Sequence[Folded]) -> None:
        told = [event.data for _, event in batch if isinstance(event, EdgeRefusals)]
        since_ms = retention.first_kept(self._clock.now_ms(), self._keep_months)
        await store.raise_counts(tx, refusals.newest(told, since_ms=since_ms))
