"""The journals of a node: one folder each below the data folder, and one process that owns it.

`journals/0`, `journals/1`, …: each holds `journal.db` and the rule book that its worker saved. The
kernel's lock says whether a journal is owned. One that nobody owns is adopted: its connections are
closed at their last proof of life, what it holds is forwarded, and its edge says that it has ended.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from handoff_common import codec
from handoff_common.clock import Clock
from handoff_common.errors import AlreadyInUse, LogError, Unreadable
from handoff_common.log import EventLog
from handoff_common.log_sqlite import SqliteLog
from handoff_common.telemetry import get_logger, new_registry
from handoff_common.topics import EDGES
from handoff_edge.connection import Place
from handoff_edge.forwarder import Forwarder
from handoff_edge.metrics import Metrics
from handoff_edge.recorder import Recorder
from handoff_edge.recovery import recover
from handoff_edge.settings import EdgeSettings

JOURNAL = "journal.db"
_FOLDER = "journals"


class Adopted(NamedTuple):
    """What became of an abandoned journal. recovered: connections that were open in it. forwarded:
    whether all of it is in the log, and the edge has ended; problems: why not, where that is
    known."""

    edge_id: str
    recovered: int
    forwarded: bool
    problems: Sequence[str] = ()


def folders(data_dir: Path) -> list[Path]:
    """The journals' folders that are there, in order of their numbers."""
    found = (data_dir / _FOLDER).glob("[0-9]*")
    return sorted((f for f in found if f.name.isdigit()), key=lambda f: int(f.name))


def wanted(data_dir: Path, workers: int) -> list[Path]:
    """A folder for each worker: those that are there first, so that they go on."""
    there = folders(data_dir)[:workers]
    used = {folder.name for folder in there}
    number = 0
    while len(there) < workers:
        if str(number) not in used:
            there.append(data_dir / _FOLDER / str(number))
        number += 1
    return there


async def open_journal(folder: Path) -> SqliteLog:
    """Raises AlreadyInUse, LogCorrupt, LogError."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    return await SqliteLog.open(folder / JOURNAL, partitions=1)


async def adopt(
    folder: Path,
    settings: EdgeSettings,
    *,
    log: EventLog,
    clock: Clock,
    timeout: float,
    appended_at: Callable[[], int | None] = lambda: None,
) -> Adopted:
    """Close and forward an abandoned journal. What takes longer than `timeout` seconds stays.

    Raises AlreadyInUse where it is owned after all, LogCorrupt, LogError.
    """
    journal = await open_journal(folder)
    try:
        metrics = Metrics(new_registry())
        place = await _place_of(journal, settings)
        recovered = await recover(journal, place, metrics)
        forwarder = Forwarder(
            journal,
            log,
            clock,
            metrics,
            max_bytes=settings.journal_max_bytes,
            appended_at=appended_at,
        )
        recorder = Recorder(journal, forwarder, place, clock, metrics)
        await recorder.start()
        loops = [
            asyncio.create_task(forwarder.forward()),
            asyncio.create_task(forwarder.announce()),
        ]
        try:
            done = await forwarder.delivered(timeout=timeout)
            if done:
                await recorder.watermark(ended=True)
                done = await forwarder.delivered(timeout=timeout) and not forwarder.problems
            await forwarder.trim()
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
        return Adopted(journal.owner_id, len(recovered), done, () if done else forwarder.problems)
    finally:
        await journal.close()


async def _place_of(journal: SqliteLog, settings: EdgeSettings) -> Place:
    """Where the journal's edge was: as its last watermark says, else as the settings do. A node may
    have been given another place since, and a journal may have been taken elsewhere."""
    edge_id = journal.owner_id
    held = (await journal.held(EDGES.name)).get(edge_id)
    if held is not None:
        with suppress(Unreadable):
            data = codec.decode(EDGES.name, held).data
            return Place(edge_id, data.region, data.pop)
    return Place(edge_id, settings.region, settings.pop)


async def adopt_all(
    data_dir: Path,
    own: list[Path],
    settings: EdgeSettings,
    *,
    log: EventLog,
    clock: Clock,
    timeout: float,
) -> list[Path]:
    """Adopt every journal that is not among `own` and that nobody owns; returns those that must be
    tried again."""
    logger = get_logger("journals")
    left = []
    for folder in folders(data_dir):
        if folder in own:
            continue
        try:
            adopted = await adopt(folder, settings, log=log, clock=clock, timeout=timeout)
        except AlreadyInUse:
            # By a worker that is still draining, perhaps.
            left.append(folder)
            continue
        except (LogError, OSError, TimeoutError) as error:
            # One that cannot be opened keeps nobody else waiting.
            logger.error("journal_not_adopted", folder=str(folder), detail=str(error))
            left.append(folder)
            continue
        logger.warning("journal_adopted", folder=str(folder), **adopted._asdict())
        if not adopted.forwarded:
            left.append(folder)
    return left
