"""Generations of published usage: at a start they are made, at a rebuild they are raised, and each
is published at once.

A reader keeps the row with the greatest (generation, revision); whoever begins with empty tables
must therefore begin above what the log already holds, and must not say anything before it has come
as far: else readers would see usage fall. So a slice of a new generation is *unpublished* until it
has read what the log held when it was taken over. Then all its rows go out in one transaction, with
rows of zeros for what only former generations had. See docs/adr/0009-usage-row-versions.md.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

from handoff_common.away import until_back
from handoff_common.clock import Clock
from handoff_common.database import Database, Tx
from handoff_common.events import COUNTER_NAMES, UsageEvent, UsageTotals
from handoff_common.instants import to_ms
from handoff_common.log import EventLog
from handoff_common.minutes import hour_of
from handoff_common.outbox import enqueue
from handoff_common.telemetry import get_logger
from handoff_common.topics import CONNECTIONS, USAGE
from handoff_metering import publishing, tables, watermarks
from handoff_metering.accrual import due
from handoff_metering.errors import RebuildUnfinished
from handoff_metering.store import slices as store_slices
from handoff_metering.store import states as store
from handoff_metering.usage import Totals, UsageKey
from handoff_metering.views import EdgesView, read_to_end

_LOOK_SECONDS = 0.2


class Published(NamedTuple):
    """What the usage topic holds. generations: slice → the greatest. rows: slice → keys of rows
    whose totals are not all zero."""

    generations: Mapping[int, int]
    rows: Mapping[int, frozenset[UsageKey]]

    @property
    def generation(self) -> int:
        """The greatest of all slices; -1 where there is none."""
        return max(self.generations.values(), default=-1)


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
    fresh = generation is None
    if generation is None:
        generation = (await published(log)).generation + 1
    async with database.transaction() as tx:
        await store_slices.make_slices(
            tx, numbers, generation=generation, unpublished=fresh and generation > 0
        )


class Publisher:
    """Publishes the slices of a new generation, each when it has come far enough.

    own: the slices that this worker projects now. published: called when some were published.
    """

    def __init__(
        self,
        *,
        database: Database,
        log: EventLog,
        edges: EdgesView,
        own: Callable[[], Iterable[int]],
        published: Callable[[], None],
        clock: Clock,
    ) -> None:
        self._database = database
        self._log = log
        self._edges = edges
        self._own = own
        self._published = published
        self._clock = clock
        self._targets: dict[int, int] = {}
        self._logger = get_logger("generations")

    async def run(self) -> None:
        """The loop."""
        waiting = True
        while waiting:
            waiting = await until_back(self.step, what="publish a generation")
            await asyncio.sleep(_LOOK_SECONDS)
        # A loop that ends ends the process.
        await asyncio.Event().wait()

    async def step(self) -> bool:
        """Publish what may be; False where no slice waits, whoever projects it."""
        async with self._database.read() as tx:
            slices = await store_slices.slices(tx)
            positions = await store_slices.read_positions(tx)
        waiting = {number for number, one in slices.items() if one.unpublished}
        mine = waiting & set(self._own())
        if mine - self._targets.keys() and self._edges.view.ready:
            await self._aim(mine)
        self._targets = {n: end for n, end in self._targets.items() if n in mine}
        ready = [n for n, end in sorted(self._targets.items()) if positions.get(n, 0) >= end]
        if ready:
            before = await published(self._log)
            for number in ready:
                await self._publish(number, before)
            self._published()
        return bool(waiting)

    async def _aim(self, mine: Collection[int]) -> None:
        """Where the slices taken over now must have read to: behind all that whoever had them
        before can have folded, and behind each watermark by which it can have let them accrue."""
        if not await self._edges.view.catch_up():
            return
        ends = await self._log.ends(CONNECTIONS.name)
        for number in mine:
            self._targets.setdefault(number, ends[number][1])

    async def _publish(self, number: int, before: Published) -> None:
        async with self._database.transaction() as tx:
            held = await store_slices.lock_slice(tx, number)
            if not held.unpublished:
                return
            position = (await store_slices.read_positions(tx)).get(number, 0)
            revision = held.revision + 1
            await settle(tx, number, position, self._edges.edges, revision)
            rows = await store.all_usage(tx, number)
            zeroed = {key: Totals() for key in before.rows.get(number, frozenset()) - rows.keys()}
            # Above whatever has been published since its tables were begun.
            generation = max(held.generation, before.generations.get(number, -1) + 1)
            version = publishing.Version(generation, revision, position - 1)
            messages = publishing.usage_rows(
                {**rows, **zeroed}, number, version, self._clock.now_ms()
            )
            await store_slices.set_published(
                tx, number, store_slices.Slice(generation, revision, False)
            )
            await enqueue(tx, tables.outbox, messages)
        self._logger.info(
            "generation_published",
            slice=number,
            generation=generation,
            rows=len(rows),
            zeroed=len(zeroed),
        )


async def settle(
    tx: Tx, number: int, position: int, edges: watermarks.Edges, revision: int
) -> None:
    """Let a slice's open connections accrue as far as their edges have vouched."""
    accrued, changes = await due(tx, number, position, edges, limit=None)
    await store.save_minutes(tx, accrued)
    await store.change_usage(tx, number, changes, revision)


async def published(log: EventLog) -> Published:
    """Read the usage topic from its start to its present end."""
    generations: dict[int, int] = {}
    latest: dict[tuple[int, UsageKey], tuple[tuple[int, int], bool]] = {}

    def fold(event: UsageEvent, _partition: int) -> None:
        data = event.data
        generations[data.slice] = max(data.generation, generations.get(data.slice, -1))
        if isinstance(event, UsageTotals):
            _keep(latest, event)

    await read_to_end(log, USAGE.name, fold)
    rows: dict[int, set[UsageKey]] = {}
    for (number, key), (_, counts) in latest.items():
        if counts:
            rows.setdefault(number, set()).add(key)
    return Published(generations, {number: frozenset(keys) for number, keys in rows.items()})


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
