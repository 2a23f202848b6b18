"""Keeps the months of connections and refusals: room made ahead of time, what is over dropped.

What may be dropped is decided by `retention`; how, by `store.months`. Each worker runs this loop:
the database lets one at a time do something.
"""

import asyncio

from handoff_common.away import until_back
from handoff_common.clock import Clock
from handoff_common.database import Database
from handoff_common.instants import from_ms
from handoff_common.telemetry import get_logger
from handoff_metering import retention
from handoff_metering.store import months as store
from handoff_metering.store import refusals as store_refusals

_LOOK_SECONDS = 3_600.0


class Months:
    """keep: months for which closed connections are kept after their own."""

    def __init__(self, *, database: Database, clock: Clock, keep: int) -> None:
        self._database = database
        self._clock = clock
        self._keep = keep
        self._logger = get_logger("months")

    async def run(self) -> None:
        while True:
            await until_back(self.tend, what="tend months")
            await asyncio.sleep(_LOOK_SECONDS)

    async def tend(self) -> None:
        await self.make_room()
        now_ms = self._clock.now_ms()
        async with self._database.transaction() as tx:
            dropped, held = await store.drop_over(tx, now_ms, self._keep)
        for month in dropped:
            self._logger.info("month_dropped", month=_text(month))
        for month in held:
            self._logger.warning("month_held_by_open_connection", month=_text(month))
        before_ms = retention.first_kept(now_ms, self._keep)
        while await self._drop_refusals(before_ms):
            pass

    async def _drop_refusals(self, before_ms: int) -> bool:
        """A day in a transaction, so that none of them is long."""
        async with self._database.transaction() as tx:
            return await store_refusals.drop_before(tx, before_ms)

    async def make_room(self) -> None:
        """Partitions of the months that are kept, and of the next ones."""
        now_ms = self._clock.now_ms()
        async with self._database.transaction() as tx:
            made = await store.make(tx, list(retention.wanted(now_ms, self._keep)))
        if made:
            self._logger.info("months_made", months=[_text(month) for month in made])


def _text(month_ms: int) -> str:
    return f"{from_ms(month_ms):%Y-%m}"
