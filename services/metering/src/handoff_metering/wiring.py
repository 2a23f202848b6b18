"""Puts metering together. `build` opens nothing: the service's start does."""

from handoff_common.access import AccessView
from handoff_common.clock import Clock
from handoff_common.database import Database, migrate
from handoff_common.http import create_app
from handoff_common.log import EventLog
from handoff_common.occupancy import Occupancy
from handoff_common.outbox import Outbox
from handoff_common.projection import ProjectionMetrics, Projector
from handoff_common.service import Service
from handoff_common.telemetry import new_registry
from handoff_metering import api, api_concurrency, api_parked, api_refusals, stats, tables
from handoff_metering.accrual import Accrual
from handoff_metering.closer import OrphanCloser
from handoff_metering.context import Context
from handoff_metering.generations import Publisher, prepare
from handoff_metering.health import Health
from handoff_metering.metrics import Metrics
from handoff_metering.months import Months
from handoff_metering.projection import ConnectionsProjection
from handoff_metering.projection_refusals import RefusalsProjection
from handoff_metering.rebuild import USER
from handoff_metering.settings import MeteringSettings
from handoff_metering.views import EdgesView, ServicesView

PACKAGE = "handoff_metering"
VERSION = "0.1.0"
_FLUSH_SECONDS = 10.0
_REFUSALS_PAUSE_SECONDS = 0.5


async def upgrade(settings: MeteringSettings, *, database: Database, clock: Clock) -> None:
    """Bring the database to this release's tables, with room for the months to come."""
    await migrate(database, PACKAGE)
    await Months(database=database, clock=clock, keep=settings.metering_keep_months).make_room()


def build(
    settings: MeteringSettings, *, log: EventLog, database: Database, clock: Clock
) -> Service:
    """The metering service on a log and a database that the caller opens and closes."""
    metrics = Metrics(new_registry())
    projected = ProjectionMetrics(metrics.registry)
    access = AccessView(log, clock)
    services = ServicesView(log)
    edges = EdgesView(log, ticks_until_lost=settings.ticks_until_lost)
    outbox = Outbox(database, tables.outbox, log)
    accrual = Accrual(
        database=database,
        log=log,
        edges=edges,
        own=lambda: [partition.number for partition in projector.positions],
        outbox=outbox,
        clock=clock,
        metrics=metrics,
    )
    projector = Projector(
        ConnectionsProjection(
            clock=clock,
            metrics=metrics,
            max_batch=settings.metering_batch,
            keep_months=settings.metering_keep_months,
        ),
        log=log,
        database=database,
        positions=tables.positions,
        parked=tables.parked,
        clock=clock,
        metrics=projected,
        committed=accrual.folded,
    )
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
        # The topic is that of ticks and watermarks: a transaction for each is in the way.
        pause=_REFUSALS_PAUSE_SECONDS,
    )
    edges.on_change(accrual.watermarks_changed)
    publisher = Publisher(
        database=database,
        log=log,
        edges=edges,
        own=lambda: [partition.number for partition in projector.positions],
        # Which pokes the outbox, too, and says the slice's progress.
        published=accrual.watermarks_changed,
        clock=clock,
    )
    occupancy = Occupancy(database, USER)
    closer = OrphanCloser(
        database=database, log=log, edges=edges, clock=clock, tick_seconds=settings.tick_seconds
    )
    health = Health(
        projector,
        views={"access": access.view, "services": services.view, "edges": edges.view},
        database=database,
        max_lag=settings.metering_max_lag,
        measured=[refusals],
    )
    app = create_app(
        title="Handoff metering",
        version=VERSION,
        classic_paths=("/stats",),
        registry=metrics.registry,
        not_ready=health.reasons,
    )
    app.state.access = access
    context = Context(
        database=database,
        log=log,
        clock=clock,
        services=services,
        edges=edges,
        projector=projector,
        outbox=outbox,
    )
    app.include_router(stats.router(context))
    app.include_router(api.router(context))
    app.include_router(api_concurrency.router(context))
    app.include_router(api_parked.router(context))
    app.include_router(api_refusals.router(context))

    months = Months(database=database, clock=clock, keep=settings.metering_keep_months)

    async def on_start() -> None:
        await occupancy.enter()
        try:
            await upgrade(settings, database=database, clock=clock)
            await prepare(database, log)
        except BaseException:
            await occupancy.leave()
            raise

    async def on_stop() -> None:
        await outbox.flushed(timeout=_FLUSH_SECONDS)

    return Service(
        name="metering",
        app=app,
        loops={
            "access": access.run,
            "services": services.run,
            "edges": edges.run,
            "projection": projector.run,
            "refusals": refusals.run,
            "accrual": accrual.run,
            "outbox": outbox.run,
            "orphans": closer.run,
            "health": health.run,
            "months": months.run,
            "generations": publisher.run,
            "occupancy": occupancy.run,
        },
        on_start=on_start,
        on_stop=on_stop,
        not_ready=health.reasons,
    )
