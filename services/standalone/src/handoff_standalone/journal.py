"""`handoff journal forward`: delivers the journal of an edge that will not come back.

Its volume is all that is left of it. What was open is closed at its last proof of life, all that
the log does not have is forwarded, and the edge says that it has ended: what any node does with an
abandoned journal at its start (`handoff_edge.journals.adopt`), for who has no node to start.
"""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from handoff_common.clock import SystemClock
from handoff_common.errors import AlreadyInUse, HandoffError
from handoff_common.log_kafka import SCHEME as KAFKA
from handoff_common.log_kafka import KafkaLog
from handoff_common.settings import load, variable
from handoff_common.telemetry import configure_logs
from handoff_edge.journals import JOURNAL, Adopted, adopt, folders
from handoff_edge.settings import EdgeSettings

app = typer.Typer(no_args_is_help=True, help="The journals of edges.")


class NoJournal(HandoffError):
    """A folder holds no journal, neither itself nor in `journals/N`."""

    code = "no_journal"


def found_in(folder: Path) -> list[Path]:
    """The folders of the journals that a path names: itself, or those of a data folder.

    Raises NoJournal.
    """
    if (folder / JOURNAL).exists():
        return [folder]
    found = [one for one in folders(folder) if (one / JOURNAL).exists()]
    if not found:
        raise NoJournal(
            f"{folder} holds no journal: neither {folder / JOURNAL} nor "
            f"{folder / 'journals' / 'N' / JOURNAL} is there; name an edge's data folder, or one "
            "of its journals/N"
        )
    return found


@app.callback()
def journals() -> None:
    """One command so far; without this it would have no name of its own."""


@app.command()
def forward(
    folder: Annotated[
        Path,
        typer.Argument(
            exists=True,
            file_okay=False,
            help="an edge's data folder, or one of its journals/N",
        ),
    ],
    log: Annotated[
        str, typer.Option("--log", envvar="HANDOFF_LOG", help="kafka://host:port[,host:port]")
    ],
    region: Annotated[
        str | None,
        typer.Option(
            envvar="HANDOFF_REGION", help="the edge's, where its journal holds no watermark"
        ),
    ] = None,
    pop: Annotated[
        str | None,
        typer.Option(envvar="HANDOFF_POP", help="the edge's, where its journal holds no watermark"),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=1.0, help="seconds for each journal; what is left stays in it")
    ] = 60.0,
) -> None:
    """Deliver the journals of an edge that is gone; exit 1 where something stays behind."""
    if not log.startswith(KAFKA) or len(log) == len(KAFKA):
        raise typer.BadParameter(f"--log {log!r}: takes kafka://host:port[,host:port]")
    given = {"log": log, "region": region, "pop": pop}
    settings = load(EdgeSettings, {variable(n): v for n, v in given.items() if v is not None})
    configure_logs(level="error")
    raise typer.Exit(0 if asyncio.run(_forward(found_in(folder), settings, timeout)) else 1)


async def _forward(found: list[Path], settings: EdgeSettings, timeout: float) -> bool:
    kafka = KafkaLog(settings.log.removeprefix(KAFKA))
    try:
        done = [await _one(folder, settings, kafka, timeout) for folder in found]
    finally:
        await kafka.close()
    return all(done)


async def _one(folder: Path, settings: EdgeSettings, log: KafkaLog, timeout: float) -> bool:
    try:
        adopted = await adopt(folder, settings, log=log, clock=SystemClock(), timeout=timeout)
    except AlreadyInUse as error:
        typer.echo(f"{folder}: {error}: its edge runs, and delivers it itself", err=True)
        return False
    except HandoffError as error:
        typer.echo(f"{folder}: {error}", err=True)
        return False
    typer.echo(f"{folder}: {_said(adopted, timeout)}")
    return adopted.forwarded


def _said(adopted: Adopted, timeout: float) -> str:
    closed = f"{adopted.recovered} connections closed at their last proof of life"
    if adopted.forwarded:
        return f"edge {adopted.edge_id}, {closed}; all of it is in the log, and the edge has ended"
    why = "; ".join(adopted.problems) or f"{timeout:g} s did not do"
    return (
        f"edge {adopted.edge_id}, {closed}; NOT all of it is in the log ({why}): the rest stays in "
        "the journal, run this again"
    )
