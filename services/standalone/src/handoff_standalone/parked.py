"""`handoff parked`: records that metering could not fold, and what is decided about them.

Over the REST API, as everything an operator does is: the decision is written to the log by
metering, with who made it and why.
"""

import asyncio
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from handoff_standalone.admin import (
    DEFAULT_API,
    DEFAULT_DATA,
    ApiUrl,
    DataDir,
    Token,
    operator_token,
)
from handoff_standalone.rest import Api

app = typer.Typer(
    no_args_is_help=True, help="Records that were not folded: look at them, decide about them."
)

Partition = Annotated[int, typer.Argument(min=0, help="as `handoff parked list` shows it")]
Offset = Annotated[int, typer.Argument(min=0, help="as `handoff parked list` shows it")]
Reason = Annotated[str, typer.Option("--reason", help="why, for the record")]

_COLUMNS = ("partition", "offset", "kind", "customer_id", "appended_at", "parked_at", "detail")


@app.callback()
def connection(
    context: typer.Context,
    api: ApiUrl = DEFAULT_API,
    token: Token = "",
    data: DataDir = DEFAULT_DATA,
) -> None:
    context.obj = (api, token, data)


@app.command("list")
def list_(
    context: typer.Context,
    customer: Annotated[str | None, typer.Option(help="only this customer's")] = None,
    value: Annotated[
        bool, typer.Option("--value", help="what each record holds, in base64, below it")
    ] = False,
) -> None:
    """Records that wait for a decision, by partition and offset."""
    query = {"customer_id": customer} if customer else {}
    rows = asyncio.run(_rows(context, query | ({"value": "true"} if value else {})))
    if not rows:
        typer.echo("nothing is parked")
        return
    table = Table(*(name.removesuffix("_id") for name in _COLUMNS), box=box.SIMPLE)
    for row in rows:
        table.add_row(*(str(row[name] if row[name] is not None else "-") for name in _COLUMNS))
    # Whole lines, so that they can be searched and cut.
    console = Console(soft_wrap=True, width=400)
    console.print(table)
    if value:
        for row in rows:
            typer.echo(f"{row['partition']}/{row['offset']} {row['value']}")


@app.command()
def retry(context: typer.Context, partition: Partition, offset: Offset, reason: Reason) -> None:
    """Fold the record after all, with the instant that it bears."""
    _decide(context, partition, offset, "retry", reason)


@app.command()
def discard(context: typer.Context, partition: Partition, offset: Offset, reason: Reason) -> None:
    """Give the record up: it will never count."""
    _decide(context, partition, offset, "discard", reason)


def _decide(
    context: typer.Context, partition: int, offset: int, decision: str, reason: str
) -> None:
    path = f"/v1/parked/{partition}/{offset}/decision"
    done = asyncio.run(_call(context, "POST", path, {"decision": decision, "reason": reason}))
    if done["status"] == "pending":
        typer.echo(f"{decision} of {partition}/{offset} is written; metering has not read it yet")
        return
    typer.echo(f"{decision} of {partition}/{offset}, by {done['decided_by']}: {done['reason']}")


async def _rows(context: typer.Context, query: dict[str, str]) -> list[dict[str, Any]]:
    api, given, data = context.obj
    async with Api(api, given or operator_token(data)) as client:
        return await client.pages("/v1/parked", **query)


async def _call(context: typer.Context, method: str, path: str, body: dict[str, str]) -> Any:
    api, given, data = context.obj
    async with Api(api, given or operator_token(data)) as client:
        return await client.call(method, path, body)
