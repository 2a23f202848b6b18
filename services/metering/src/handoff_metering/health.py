"""Whether this worker is ready, and which of its partitions keep it from being so."""

import asyncio
from collections.abc import Mapping, Sequence

from handoff_common.database import Database
from handoff_common.errors import DatabaseAway, LogUnreachable
from handoff_common.log import Partition
from handoff_common.projection import Projector
from handoff_common.view import View

_LOOK_SECONDS = 1.0


class Health:
    """Looks at the lag once a second, so that a probe costs nothing.

    max_lag: records that a partition may lag behind once all have been caught up with.
    measured: others whose lag is a metric and no reason: nothing that is billed waits for them.
    """

    def __init__(
        self,
        projector: Projector,
        views: Mapping[str, View],
        *,
        database: Database,
        max_lag: int,
        measured: Sequence[Projector] = (),
    ) -> None:
        self._projector = projector
        self._views = views
        self._database = database
        self._max_lag = max_lag
        self._measured = measured
        self._lag: Mapping[Partition, int] = {}
        self._log_away = ""

    async def run(self) -> None:
        while True:
            try:
                self._lag = await self._projector.lag()
                for other in self._measured:
                    await other.lag()
                self._log_away = ""
            except DatabaseAway:
                pass  # The database says so itself.
            except LogUnreachable as error:
                self._log_away = f"the log is away: {error}"
            await asyncio.sleep(_LOOK_SECONDS)

    def reasons(self) -> list[str]:
        """Why not; empty when ready."""
        found = [f"{name} are not read yet" for name, view in self._views.items() if not view.ready]
        own = self._projector.positions
        allowed = self._max_lag if self._projector.ready else 0
        late = [
            f"{partition.topic}[{partition.number}] lags {lag} records behind"
            for partition, lag in sorted(self._lag.items())
            if lag > allowed and (not own or partition in own)
        ]
        if not self._projector.ready and not late:
            late = ["connections are not read yet"]
        if self._log_away:
            found.append(self._log_away)
        away = self._database.away
        return found + late + ([] if away is None else [f"the database is away: {away}"])
