"""What the forwarder says to whoever waits until all is delivered."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from handoff_common.clock import SystemClock
from handoff_common.errors import LogError
from handoff_common.log_sqlite import SqliteLog
from handoff_common.telemetry import new_registry
from handoff_common.topics import CONNECTIONS
from handoff_edge.forwarder import Forwarder
from handoff_edge.journals import open_journal
from handoff_edge.metrics import Metrics
from support.faulty_log import Faulty


class Away(Faulty):
    """Says nothing of its ends while it is away."""

    away = True

    async def ends(self, topic: str) -> Mapping[int, tuple[int, int]]:
        if self.away:
            raise LogError("away")
        return await super().ends(topic)


async def test_a_log_that_comes_back_ends_the_wait_where_there_is_nothing_to_deliver(
    tmp_path: Path,
) -> None:
    journal = await open_journal(tmp_path / "journal")
    log: Any = Away(await SqliteLog.open(tmp_path / "log.db"), CONNECTIONS.name)
    forwarder = Forwarder(journal, log, SystemClock(), Metrics(new_registry()), max_bytes=1_000_000)
    await forwarder.start()
    waiting = asyncio.create_task(forwarder.delivered(timeout=5))
    # It has looked, and waits to be told.
    await asyncio.sleep(0.01)
    assert not waiting.done()
    log.away = False
    forwarding = asyncio.create_task(forwarder.forward())
    try:
        assert await waiting
    finally:
        forwarding.cancel()
        await asyncio.gather(forwarding, return_exceptions=True)
        await log.close()
        await journal.close()
