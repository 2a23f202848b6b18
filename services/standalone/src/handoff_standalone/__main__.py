"""The `handoff` command."""

import asyncio
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from handoff_common import log_salvage
from handoff_common import settings as common_settings
from handoff_common.errors import HandoffError, SettingError
from handoff_common.log_sqlite import SqliteLog
from handoff_common.telemetry import configure_logs
from handoff_standalone import admin, journal, parked, reconciliation
from handoff_standalone.settings import StandaloneSettings, check_names

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A self-hosted WebSocket edge that meters and bills what it carries.",
)
log_app = typer.Typer(no_args_is_help=True, help="The embedded log's file.")
app.add_typer(admin.app, name="admin")
app.add_typer(parked.app, name="parked")
app.add_typer(journal.app, name="journal")
app.command("reconcile")(reconciliation.run)
app.add_typer(log_app, name="log")

DataDir = Annotated[Path, typer.Option("--data", envvar="HANDOFF_DATA_DIR", help="the data folder")]


class NoData(HandoffError):
    """The data folder holds no log."""

    code = "no_data"


def run(work: Coroutine[Any, Any, int]) -> int:
    """Run on uvloop where it is installed: the edge's measured choice."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


@app.command()
def up(
    example: Annotated[
        bool,
        typer.Option(
            "--example/--no-example",
            help="in a new data folder: a customer, an invoice and clients to look at",
        ),
    ] = False,
) -> None:
    """Run the whole system in this process until SIGTERM or Ctrl-C.

    Settings come from the environment; docs/operations.md lists them.
    """
    environ = dict(os.environ)
    check_names(environ)
    settings = common_settings.load(StandaloneSettings, environ)
    configure_logs(level=settings.log_level)
    if example:
        from handoff_standalone.demo.example import serve
    else:
        from handoff_standalone.system import serve
    raise typer.Exit(run(serve(settings, environ)))


@app.command()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="leave everything running")] = False,
) -> None:
    """Show the whole path on this machine: real clients, live usage, a proved invoice."""
    from handoff_standalone.demo.run import main

    raise typer.Exit(run(main(keep=keep)))


@app.command()
def verify_invoice(
    invoice: Annotated[str, typer.Argument(help="its id or its number")],
    data: DataDir = admin.DEFAULT_DATA,
) -> None:
    """Prove a final invoice from the log alone; exit 1 with the first difference if it fails."""
    from handoff_metering.settings import MeteringSettings
    from handoff_standalone.verification import prove

    keep = common_settings.load(MeteringSettings, os.environ).metering_keep_months

    async def work() -> int:
        log = await SqliteLog.open(log_file(data), read_only=True)
        try:
            proof = await prove(log, invoice, keep_months=keep)
        finally:
            await log.close()
        console = Console(soft_wrap=True)
        console.print(f"invoice     {proof.invoice.number} ({proof.invoice.invoice_id})")
        console.print(f"events      {proof.events} folded, {proof.unreadable} unreadable")
        delivery = proof.delivery
        console.print(
            f"delivery    {delivery.proved} rows found in the log, {delivery.superseded} cannot be "
            "compared: later figures took their place"
        )
        console.print(f"in invoice  {proof.invoice.content_hash}")
        console.print(f"rebuilt     {proof.rebuilt_hash or '-'}")
        if proof.difference is not None:
            different = proof.difference
            console.print(f"different   {different.path}")
            console.print(f"  from the log    {different.expected}")
            console.print(f"  in the invoice  {different.found}")
        console.print("proved" if proof.ok else "NOT proved")
        return 0 if proof.ok else 1

    raise typer.Exit(asyncio.run(work()))


@app.command()
def rebuild(data: DataDir = admin.DEFAULT_DATA) -> None:
    """Rebuild metering's projections from the log, with the system stopped."""
    from handoff_standalone.system import rebuild as rebuild_metering

    configure_logs(level="warning")
    log_file(data)
    done = asyncio.run(rebuild_metering(StandaloneSettings(data_dir=data), os.environ))
    typer.echo(
        f"generation {done.generation}: {done.events} events folded into {done.rows} rows; "
        f"{done.dropped} rows no longer exist"
    )


@log_app.command()
def check(data: DataDir = admin.DEFAULT_DATA) -> None:
    """Read every record; exit 1 with the places of those that cannot be read."""
    raise typer.Exit(_salvage(data, None))


@log_app.command()
def salvage(target: Path, data: DataDir = admin.DEFAULT_DATA) -> None:
    """Copy every readable record to a new file; the source stays as it is."""
    if target.exists():
        raise typer.BadParameter(f"{target} exists; name a file that does not")
    raise typer.Exit(_salvage(data, target))


def _salvage(data: Path, target: Path | None) -> int:
    found = log_salvage.salvage(log_file(data), target)
    typer.echo(f"{found.copied} records are readable, {found.lost} are not")
    if found.before:
        typer.echo(f"{found.before} were lost in an earlier salvage")
    for note in found.notes:
        typer.echo(f"  {note}")
    return 1 if found.notes else 0


def log_file(data: Path) -> Path:
    """The data folder's log, which must be there. Raises NoData."""
    path = data / "log.db"
    if not path.exists():
        raise NoData(f"{path} is not there; name the data folder with --data or HANDOFF_DATA_DIR")
    return path


def main() -> None:
    try:
        app()
    except SettingError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    except (HandoffError, OSError) as error:
        sys.stderr.write(f"handoff: {error}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
