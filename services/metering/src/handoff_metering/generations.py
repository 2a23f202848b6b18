"""Generations of published usage: at a start they are made, at a rebuild they are raised.

A reader keeps the row with the greatest (generation, revision); whoever begins with empty tables
must therefore begin above what the log already holds. See docs/adr/0009-usage-row-versions.md.
"""

from collections.abc import Mapping
from typing import NamedTuple

from handoff_common.database import Database
from handoff_common.events import COUNTER_NAMES, UsageEvent, UsageTotals
from handoff_common.instants import to_ms
from handoff_common.log import EventLog
from handoff_common.minutes import hour_of
from handoff_common.topics import CONNECTIONS, USAGE
from handoff_metering.errors import RebuildUnfinished
from handoff_metering.store import slices as store_slices
from handoff_metering.usage import UsageKey
from handoff_metering.views import read_to_end


class Published(NamedTuple):
    """What the usage topic holds. generation: the greatest, -1 where there is none. rows: slice →
    keys of rows whose totals are not all zero."""

    generation: int
    rows: Mapping[int, frozenset[UsageKey]]


async def prepare(database: Database, log: EventLog) -> None:
    """Make the slices' rows where there are none yet.

    Raises RebuildUnfinished where a rebuild was interrupted.
    """
    async with database.read() as tx:
        known = await store_slices.slices(tx)
        unfinished = await store_slices.is_rebuilding(tx)
    if unfinished:
        raise RebuildUnfinished(
            "a rebuild of metering was interrupted, so its tables are not whole; "
            "run `handoff rebuild` again"
        )
    numbers = range(await log.partitions(CONNECTIONS.name))
    if known.keys() >= set(numbers):
        return
    generation = max((one.generation for one in known.values()), default=None)
    if generation is None:
        generation = (await published(log)).generation + 1
    async with database.transaction() as tx:
        await store_slices.make_slices(tx, numbers, generation=generation)


async def published(log: EventLog) -> Published:
    """Read the usage topic from its start to its present end."""
    generation = -1
    latest: dict[tuple[int, UsageKey], tuple[tuple[int, int], bool]] = {}

    def fold(event: UsageEvent, _partition: int) -> None:
        nonlocal generation
        generation = max(generation, event.data.generation)
        if isinstance(event, UsageTotals):
            _keep(latest, event)

    await read_to_end(log, USAGE.name, fold)
    rows: dict[int, set[UsageKey]] = {}
    for (number, key), (_, counts) in latest.items():
        if counts:
            rows.setdefault(number, set()).add(key)
    return Published(generation, {number: frozenset(keys) for number, keys in rows.items()})


def _keep(
    latest: dict[tuple[int, UsageKey], tuple[tuple[int, int], bool]], event: UsageTotals
) -> None:
    data = event.data
    key = UsageKey(data.customer_id, data.service_id, data.region, hour_of(to_ms(data.hour)))
    version = (data.generation, data.revision)
    counts = any(
        getattr(data, name) for name in ("minutes", *COUNTER_NAMES, "opened", "closed", "lost")
    )
    known = latest.get((data.slice, key))
    if known is None or known[0] <= version:
        latest[data.slice, key] = (version, counts)
