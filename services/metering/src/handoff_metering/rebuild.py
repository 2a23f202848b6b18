"""Metering's tables, made again from the log: in a database that no worker uses. Workers may go on
with another one meanwhile.

The projection tables are emptied, the log is replayed to its end with nothing published, open
connections accrue as far as their edges have vouched, and the generation is raised. The workers
that are started on the database next read on from there, and publish each slice at once when it has
come as far as whoever had it before (`generations.Publisher`). An interrupted rebuild leaves a mark
that keeps metering from starting until it has been run again.
"""

from typing import Any, NamedTuple

from handoff_common.clock import Clock
from handoff_common.database import Database, migrate
from handoff_common.log import EventLog
from handoff_common.occupancy import alone
from handoff_common.projection import ProjectionMetrics, Projector
from handoff_common.telemetry import new_registry
from handoff_common.topics import CONNECTIONS, EDGES
from handoff_metering import tables, watermarks
from handoff_metering.generations import published, settle
from handoff_metering.metrics import Metrics
from handoff_metering.months import Months
from handoff_metering.projection import ConnectionsProjection
from handoff_metering.projection_refusals import RefusalsProjection
from handoff_metering.settings import MeteringSettings
from handoff_metering.store import refusals as store_refusals
from handoff_metering.store import slices as store_slices
from handoff_metering.store import states as store
from handoff_metering.usage import Totals, UsageKey
from handoff_metering.views import EdgesView, read_to_end

PACKAGE = "handoff_metering"
USER = "metering"
"""By this name workers and rebuilds know of each other."""


class Rebuilt(NamedTuple):
    """What a rebuild did. events: those that were folded; what was parked is none of them.
    dropped: rows that no longer exist and will be published as zero."""

    generation: int
    events: int
    rows: int
    dropped: int


async def rebuild(
    settings: MeteringSettings, *, log: EventLog, database: Database, clock: Clock
) -> Rebuilt:
    """Drop metering's projections and make them again, up to the log's present end.

    Raises DatabaseInUse where workers run on the database.
    """
    async with alone(database, USER):
        return await _rebuild(settings, log=log, database=database, clock=clock)


async def _rebuild(
    settings: MeteringSettings, *, log: EventLog, database: Database, clock: Clock
) -> Rebuilt:
    await migrate(database, PACKAGE)
    await Months(database=database, clock=clock, keep=settings.metering_keep_months).make_room()
    numbers = range(await log.partitions(CONNECTIONS.name))
    before = await published(log)
    async with database.transaction() as tx:
        known = await store_slices.slices(tx)
        former = {number: frozenset(await store.all_usage(tx, number)) for number in numbers}
        generation = 1 + max([before.generation, *(one.generation for one in known.values())])
        await store_slices.begin_rebuild(tx, numbers, generation)
    metrics = Metrics(new_registry())
    projected = ProjectionMetrics(metrics.registry)
    projector = Projector(
        ConnectionsProjection(
            clock=clock,
            metrics=metrics,
            max_batch=settings.metering_batch,
            keep_months=settings.metering_keep_months,
            rebuilding=True,
        ),
        log=log,
        database=database,
        positions=tables.positions,
        parked=tables.parked,
        clock=clock,
        metrics=projected,
    )
    await projector.run_to_end()
    refusals = Projector(
        RefusalsProjection(
            clock=clock,
            max_batch=settings.metering_batch,
            keep_months=settings.metering_keep_months,
        ),
        log=log,
        database=database,
        positions=tables.positions,
        parked=None,
        clock=clock,
        metrics=projected,
    )
    await refusals.run_to_end()
    edges = EdgesView(log, ticks_until_lost=settings.ticks_until_lost)
    await read_to_end(log, EDGES.name, edges.fold)
    rows = dropped = 0
    for number in numbers:
        made = await _settle(database, edges.edges, number)
        rows += len(made)
        dropped += len((former[number] | before.rows.get(number, frozenset())) - made)
    async with database.transaction() as tx:
        await store_slices.end_rebuild(tx)
    folded = metrics.registry.get_sample_value(
        "handoff_projection_events_total", {"topic": CONNECTIONS.name}
    )
    return Rebuilt(generation, int(folded or 0), rows, dropped)


async def _settle(database: Database, edges: watermarks.Edges, number: int) -> frozenset[UsageKey]:
    """The slice's rows, with what its open connections have accrued."""
    async with database.transaction() as tx:
        held = await store_slices.lock_slice(tx, number, rebuilding=True)
        position = (await store_slices.read_positions(tx)).get(number, 0)
        revision = held.revision + 1
        await settle(tx, number, position, edges, revision)
        await store_slices.set_revision(tx, number, revision)
        return frozenset(await store.all_usage(tx, number))


_BOOKKEEPING = {"revision", "parked_ms", "identity"}


async def snapshot_tables(database: Database) -> dict[str, list[dict[str, Any]]]:
    """Table → its rows in key order, of all that is projected, but for the bookkeeping of what was
    published, and for positions in the edges' topic, which grows by itself. A usage row of zeros
    says the same as none and is left out."""
    snapshot: dict[str, list[dict[str, Any]]] = {}
    async with database.read() as tx:
        for table in tables.PROJECTED:
            rows = await store_slices.all_rows(tx, table)
            snapshot[table.name] = [
                {name: value for name, value in row._mapping.items() if name not in _BOOKKEEPING}
                for row in rows
                if _counts(table.name, row)
            ]
    return snapshot


def _counts(table: str, row: Any) -> bool:
    if table == tables.positions.name:
        return bool(row.projection != store_refusals.PROJECTION)
    return table != tables.usage.name or store.totals_of(row) != Totals()
