"""Puts the billing service together. Nothing is opened before `on_start`."""

from collections.abc import Sequence

from handoff_billing import api, api_costs, api_prices, api_v3, tables
from handoff_billing.directory import Directory
from handoff_billing.issuing import Issuer
from handoff_billing.ledger import Ledger
from handoff_billing.pricing import Pricing
from handoff_billing.projection import UsageProjection
from handoff_billing.settings import BillingSettings
from handoff_common.access import AccessView
from handoff_common.clock import Clock
from handoff_common.database import Database, migrate
from handoff_common.http import create_app
from handoff_common.log import EventLog
from handoff_common.outbox import Outbox
from handoff_common.projection import Projector
from handoff_common.service import Service
from handoff_common.telemetry import new_registry

PACKAGE = "handoff_billing"
VERSION = "0.1.0"
_STOP_SECONDS = 10.0


def build(settings: BillingSettings, *, log: EventLog, database: Database, clock: Clock) -> Service:
    """The service on a log and a database that the caller opens and closes."""
    registry = new_registry()
    access = AccessView(log, clock)
    directory = Directory(log)
    outbox = Outbox(database, tables.outbox, log)
    projector = Projector(
        UsageProjection(),
        log=log,
        database=database,
        positions=tables.positions,
        parked=tables.parked,
        clock=clock,
        registry=registry,
    )
    pricing = Pricing(database=database, outbox=outbox, clock=clock, settings=settings)
    ledger = Ledger(database=database, directory=directory, clock=clock)
    issuer = Issuer(
        database=database,
        log=log,
        outbox=outbox,
        directory=directory,
        clock=clock,
        settings=settings,
    )

    def not_ready() -> Sequence[str]:
        parts = {
            "tokens": access.view.ready,
            "customers and services": directory.view.ready,
            "usage": projector.ready,
        }
        reading = [f"{name} are still being read" for name, ready in parts.items() if not ready]
        away = database.away
        return reading + ([] if away is None else [f"the database is away: {away}"])

    async def start() -> None:
        await migrate(database, PACKAGE)
        await pricing.seed()

    async def stop() -> None:
        await outbox.flushed(timeout=_STOP_SECONDS)

    app = create_app(
        title="Handoff billing",
        version=VERSION,
        classic_paths=(),
        registry=registry,
        not_ready=not_ready,
    )
    app.state.access = access
    # `/billing/v3/invoices/month-to-date` stands before `/billing/v3/invoices/{invoice_id}`.
    app.include_router(api_v3.routes(ledger, directory))
    app.include_router(api.routes(ledger, issuer, directory))
    app.include_router(api_costs.routes(ledger, directory))
    app.include_router(api_prices.routes(ledger, pricing, directory))
    return Service(
        name="billing",
        app=app,
        loops={
            "billing-access": access.run,
            "billing-directory": directory.view.run,
            "billing-usage": projector.run,
            "billing-outbox": outbox.run,
        },
        on_start=start,
        on_stop=stop,
        not_ready=not_ready,
    )
