"""How the config service is put together. Opens nothing: that is `on_start`'s business."""

from handoff_common.access import AccessView
from handoff_common.clock import Clock
from handoff_common.database import Database, migrate
from handoff_common.log import EventLog
from handoff_common.outbox import Outbox
from handoff_common.service import Service
from handoff_common.telemetry import new_registry
from handoff_config import tables
from handoff_config.api import application
from handoff_config.bootstrap import FILE_NAME, ensure_operator_token
from handoff_config.credentials import Credentials
from handoff_config.hashing import Hasher
from handoff_config.settings import ConfigSettings
from handoff_config.sign_in import SignIn
from handoff_config.store import Store
from handoff_config.writes import Context, WriteQuota, Writer

PACKAGE = "handoff_config"


def build(settings: ConfigSettings, *, log: EventLog, database: Database, clock: Clock) -> Service:
    """The service: its application, its outbox and its view of the tokens."""
    store = Store(database, clock)
    outbox = Outbox(database, tables.outbox, log)
    access = AccessView(log, clock)
    registry = new_registry()
    writer = Writer(store, outbox, log, settings.settle_seconds, registry)
    quota = WriteQuota(settings.write_limit, clock)
    sign_in = SignIn(Credentials(database, clock), Hasher(), clock, registry)
    context = Context(settings, store, writer, quota, clock, sign_in)

    def not_ready() -> list[str]:
        return [] if access.view.ready else ["tokens: not read to the end of the log yet"]

    async def on_start() -> None:
        await migrate(database, PACKAGE)
        await ensure_operator_token(store, clock, settings.data_dir / FILE_NAME)

    async def once_running() -> None:
        await writer.settle()

    async def on_stop() -> None:
        await outbox.flushed(timeout=settings.settle_seconds)

    return Service(
        name="config",
        app=application(context, access, registry, not_ready),
        loops={"outbox": outbox.run, "access": access.run},
        on_start=on_start,
        once_running=once_running,
        on_stop=on_stop,
        not_ready=not_ready,
    )
