"""`handoff reconcile`: asks a running system for all that it recorded, metered and billed of one
customer, and holds it against witness files or edges' journals.

It owns the questions and the table; what a difference is, `reconcile` decides. Over the REST API
and, for a journal, its file, which it only reads: its edge may run meanwhile.
"""

import asyncio
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from handoff_billing.pricebook import MINUTES
from handoff_common import codec
from handoff_common.errors import HandoffError, Unreadable
from handoff_common.events import ConnectionClosed, ConnectionEvent, ParkedDecision
from handoff_common.instants import rfc3339, to_ms
from handoff_common.log import Partition
from handoff_common.log_sqlite import SqliteLog
from handoff_common.minutes import HOUR_MS
from handoff_common.topics import CONNECTIONS
from handoff_edge.journals import JOURNAL
from handoff_standalone.admin import (
    DEFAULT_API,
    DEFAULT_DATA,
    ApiUrl,
    DataDir,
    Token,
    operator_token,
)
from handoff_standalone.journal import found_in
from handoff_standalone.reconcile import (
    ALWAYS,
    SLACK_MS,
    Difference,
    Held,
    Recorded,
    Report,
    Sums,
    Window,
    Witness,
    reconcile,
    recorded_of,
    undelivered,
    witness_of,
)
from handoff_standalone.rest import Api

_BATCH = 5_000
_LOOK_SECONDS = 0.5
_SHOWN = 50


class BadWitness(HandoffError):
    """A line of a witness file that is not of its form: says where, and what is allowed."""

    code = "bad_witness"


async def recorded(api: Api, customer_id: str, window: Window = ALWAYS) -> list[Recorded]:
    """The connections that lived in the window."""
    rows = await api.pages("/v1/connections", customer_id=customer_id, **_range(window))
    return [recorded_of(row) for row in rows]


async def sums(api: Api, customer_id: str, window: Window = ALWAYS) -> Sums:
    """Of the usage, and of the invoices and drafts that it is on."""
    by = "month" if window == ALWAYS else "hour"
    rows = await api.pages("/v1/usage", by=by, customer_id=customer_id, **_range(window))
    billed = late = 0
    for one in await api.pages("/v1/invoices", customer_id=customer_id, limit="100"):
        if not (
            _ms(one["period_start"]) < window.to_ms and _ms(one["period_end"]) > window.from_ms
        ):
            continue
        invoice = await api.call("GET", f"/v1/invoices/{one['invoice_id']}")
        if window == ALWAYS:
            billed += invoice["minutes"] + _corrected_minutes(invoice)
            late += _late_minutes(invoice)
        else:
            billed += await _billed_within(api, invoice, window)
    totals = {name: sum(row[name] for row in rows) for name in ("minutes", "opened", "closed")}
    return Sums(**totals, billed_minutes=billed, late_minutes=late)


async def compare(
    api: Api,
    customer_id: str,
    witnesses: Sequence[Witness],
    *,
    window: Window = ALWAYS,
    slack_ms: int = SLACK_MS,
) -> Report:
    """What the clients saw against what the system says now."""
    rows = await recorded(api, customer_id, window)
    # Before the sums are asked for: what is open has lived at least until here.
    now_ms = time.time_ns() // 1_000_000
    found = await sums(api, customer_id, window)
    return reconcile(witnesses, rows, found, now_ms=now_ms, slack_ms=slack_ms, window=window)


async def compare_journal(api: Api, customer_id: str, folder: Path, report: Report) -> None:
    """Add to the report what the journal in `folder` still holds and metering does not have."""
    edge_id, held = await holdings(folder, customer_id)
    # Asked after the journal was read: what it has forwarded meanwhile is no difference.
    rows = await api.pages("/v1/connections", customer_id=customer_id, edge=edge_id)
    before = report.held or 0
    undelivered(report, held, [recorded_of(row) for row in rows])
    report.held = before + len(held)


async def holdings(folder: Path, customer_id: str) -> tuple[str, list[Held]]:
    """(edge id, the customer's connections of which the journal holds or has yet to forward
    something). Raises LogError."""
    journal = await SqliteLog.open(folder / JOURNAL, read_only=True)
    held: dict[str, Held] = {}
    try:
        for value in (await journal.held(CONNECTIONS.name)).values():
            _keep(held, value, customer_id)
        source = Partition(CONNECTIONS.name, 0)
        at, end = (await journal.ends(CONNECTIONS.name))[0]
        while at < end:
            records, at = await journal.records(source, at, _BATCH)
            for record in records:
                _keep(held, record.value, customer_id)
    finally:
        await journal.close()
    return journal.owner_id, sorted(held.values())


def _keep(held: dict[str, Held], value: bytes, customer_id: str) -> None:
    try:
        event: ConnectionEvent | ParkedDecision = codec.decode(CONNECTIONS.name, value)
    except Unreadable:
        # Forwarded as it is, and parked by metering: `handoff parked list` shows it.
        return
    if isinstance(event, ParkedDecision) or event.data.customer_id != customer_id:
        return
    data, closed = event.data, isinstance(event, ConnectionClosed)
    found = Held(data.connection_id, to_ms(data.accepted_at), data.elapsed_ms, closed)
    known = held.get(data.connection_id)
    if known is None or (known.closed, known.elapsed_ms) < (closed, data.elapsed_ms):
        held[data.connection_id] = found


def read_witnesses(files: Iterable[Path]) -> list[Witness]:
    """All lines of the files. Raises BadWitness with file and line, OSError."""
    found = []
    for file in files:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    value = json.loads(line)
                    if not isinstance(value, dict):
                        raise ValueError("is no object; allowed: one JSON object per line")
                    found.append(witness_of(value))
                except (ValueError, RecursionError) as error:
                    raise BadWitness(f"{file}, line {number}: {error}") from None
    return found


def run(
    witnesses: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="WITNESS…",
            exists=True,
            dir_okay=False,
            help="what the customer's clients saw; the form is in docs/operations.md",
        ),
    ] = None,
    customer: Annotated[str, typer.Option("--customer", help="its id")] = "",
    journal: Annotated[
        list[Path] | None,
        typer.Option(
            "--journal",
            exists=True,
            file_okay=False,
            help="an edge's data folder, or one of its journals/N: what is not delivered",
        ),
    ] = None,
    from_: Annotated[
        str | None, typer.Option("--from", help="from this full UTC hour on, RFC 3339")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", help="before this full UTC hour")] = None,
    slack_ms: Annotated[
        int, typer.Option(min=0, help="what client and edge may see apart of one connection")
    ] = SLACK_MS,
    wait: Annotated[
        float, typer.Option(min=0, help="seconds to look again while it does not balance")
    ] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="the report as one JSON object")] = False,
    api: ApiUrl = DEFAULT_API,
    token: Token = "",
    data: DataDir = DEFAULT_DATA,
) -> None:
    """Hold what clients saw, or what journals hold, against what was recorded, metered and billed;
    exit 1 with each difference where it does not balance."""
    files, journals = witnesses or [], journal or []
    if not customer:
        raise typer.BadParameter("--customer is missing; give the id of the customer to look at")
    if not files and not journals:
        raise typer.BadParameter("nothing to compare with; give a witness file, or --journal")
    window = _window(from_, to)
    folders = [one for folder in journals for one in found_in(folder)]
    seen = read_witnesses(files)

    async def once() -> Report:
        async with Api(api, token or operator_token(data)) as client:
            if files:
                report = await compare(client, customer, seen, window=window, slack_ms=slack_ms)
            else:
                report = Report(0, 0)
            for folder in folders:
                await compare_journal(client, customer, folder, report)
            return report

    async def balanced() -> Report:
        loop = asyncio.get_running_loop()
        until = loop.time() + wait
        while True:
            report = await once()
            if report.balanced or loop.time() >= until:
                return report
            await asyncio.sleep(_LOOK_SECONDS)

    report = asyncio.run(balanced())
    if as_json:
        typer.echo(json.dumps(as_object(report)))
    else:
        show(report, Console(soft_wrap=True), witnessed=bool(files))
    raise typer.Exit(0 if report.balanced else 1)


def as_object(report: Report) -> dict[str, Any]:
    """The report for programs."""
    found = asdict(report) | {"balanced": report.balanced}
    for name in ("differences", "explained"):
        found[name] = [one._asdict() for one in getattr(report, name)]
    return found


def show(report: Report, console: Console, *, witnessed: bool) -> None:
    """The report for people."""
    table = Table(box=box.SIMPLE, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    if witnessed:
        table.add_row("witnessed", str(report.witnessed))
        table.add_row("recorded", str(report.recorded))
        table.add_row("minutes", str(report.minutes))
        table.add_row("billed minutes", str(report.billed_minutes))
        table.add_row("unbilled seconds", f"{report.unbilled_ms / 1000:.3f}")
    if report.held is not None:
        table.add_row("held by journals", str(report.held))
    table.add_row("differences", str(len(report.differences)))
    table.add_row("explained", str(len(report.explained)))
    console.print(table)
    for title, found in (("different", report.differences), ("explained", report.explained)):
        for one in found[:_SHOWN]:
            console.print(f"{title}  {_line(one)}", markup=False, highlight=False)
        if len(found) > _SHOWN:
            console.print(f"{title}  … {len(found) - _SHOWN} more; --json lists all")
    console.print("balanced" if report.balanced else "NOT balanced")


def _line(one: Difference) -> str:
    return f"{one.code}  {one.connection_id or '-'}  {one.text}"


def _window(from_: str | None, to: str | None) -> Window:
    return Window(
        ALWAYS.from_ms if from_ is None else _hour("--from", from_),
        ALWAYS.to_ms if to is None else _hour("--to", to),
    )


def _hour(name: str, text: str) -> int:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        instant = None
    if instant is not None and instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    if instant is None or to_ms(instant) % HOUR_MS:
        raise typer.BadParameter(
            f"{name} {text!r}: takes a full UTC hour, such as 2026-11-01T00:00:00Z"
        )
    return to_ms(instant)


def _range(window: Window) -> dict[str, str]:
    query = {}
    if window.from_ms != ALWAYS.from_ms:
        query["from"] = rfc3339(window.from_ms)
    if window.to_ms != ALWAYS.to_ms:
        query["to"] = rfc3339(window.to_ms)
    return query


def _corrected_minutes(invoice: dict[str, Any]) -> int:
    """Of earlier months, as a final invoice corrects them. What a draft corrects is still counted
    as late by the invoice of its month."""
    if invoice["status"] != "final":
        return 0
    return sum(
        line["raw_quantity"]
        for line in invoice["lines"]
        if line["corrects"] is not None and line["product"] == MINUTES.name
    )


def _late_minutes(invoice: dict[str, Any]) -> int:
    late = invoice["late_usage"]
    if late is None:
        return 0
    return sum(line["raw_quantity"] for line in late["lines"] if line["product"] == MINUTES.name)


async def _billed_within(api: Api, invoice: dict[str, Any], window: Window) -> int:
    found = 0
    for line in invoice["lines"]:
        if line["kind"] != "usage" or line["product"] != MINUTES.name:
            continue
        path = f"/v1/invoices/{invoice['invoice_id']}/lines/{line['number']}/usage"
        for row in await api.pages(path):
            if row["kind"] == "usage" and window.has(_ms(row["usage"]["hour"])):
                found += row["usage"]["minutes"]
    return found


def _ms(text: str) -> int:
    return to_ms(datetime.fromisoformat(text))
