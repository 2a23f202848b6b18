"""`handoff admin`: customers, contracts, users, tokens and price books, over the REST API."""

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from handoff_standalone.rest import Api

app = typer.Typer(no_args_is_help=True, help="Customers, contracts, users, tokens, price books.")

ApiUrl = Annotated[str, typer.Option("--api", envvar="HANDOFF_API_URL", help="where the API is")]
Token = Annotated[
    str,
    typer.Option(
        "--token",
        envvar="HANDOFF_TOKEN",
        help="a token; without one, the operator's from the data folder",
    ),
]
DataDir = Annotated[Path, typer.Option("--data", envvar="HANDOFF_DATA_DIR", help="data folder")]

DEFAULT_API = "http://127.0.0.1:8000"
DEFAULT_DATA = Path("handoff-data")


@app.callback()
def connection(
    context: typer.Context,
    api: ApiUrl = DEFAULT_API,
    token: Token = "",
    data: DataDir = DEFAULT_DATA,
) -> None:
    context.obj = (api, token, data)


@app.command()
def customer(
    context: typer.Context,
    name: str,
    account_type: Annotated[str, typer.Option(help="paid or trial")] = "paid",
    billing_email: str = "",
) -> None:
    """Make a customer."""
    body = {"name": name, "account_type": account_type, "billing_email": billing_email}
    _print(context, "POST", "/v1/customers", body)


@app.command()
def customers(context: typer.Context) -> None:
    """List customers."""
    _print(context, "GET", "/v1/customers")


@app.command()
def contract(
    context: typer.Context,
    customer_id: str,
    starts_at: Annotated[str, typer.Option(help="RFC 3339, UTC")],
    ends_at: Annotated[str | None, typer.Option(help="RFC 3339; open-ended without")] = None,
    product: str = "websockets",
) -> None:
    """Give a customer a contract for a product."""
    body = {"product": product, "starts_at": starts_at, "ends_at": ends_at}
    _print(context, "POST", f"/v1/customers/{customer_id}/contracts", body)


@app.command()
def user(
    context: typer.Context,
    customer_id: str,
    login: str,
    name: str = "",
    role: Annotated[str, typer.Option(help="superuser, engineer, billing or user")] = "engineer",
) -> None:
    """Make a user of a customer."""
    body = {"login": login, "name": name or login, "role": role}
    _print(context, "POST", f"/v1/customers/{customer_id}/users", body)


@app.command()
def token(
    context: typer.Context,
    user_id: str,
    name: str = "command line",
    scope: Annotated[str, typer.Option(help="global or global:read")] = "global",
) -> None:
    """Make a token for a user; it is shown this once."""
    _print(context, "POST", f"/v1/users/{user_id}/tokens", {"name": name, "scope": scope})


@app.command()
def password(
    context: typer.Context,
    user_id: str,
    own: Annotated[
        bool, typer.Option("--own", help="the token is the user's own: ask for the present one too")
    ] = False,
) -> None:
    """Set a user's password, which ends its sessions.

    Asked for on a terminal; else read from standard input: a line with the present password where
    --own is given, then a line with the new one. An argument would stand in process lists.
    """
    body = {"current_password": _secret("Present password")} if own else {}
    body["password"] = _secret("New password", twice=True)
    _call(context, "PUT", f"/v1/users/{user_id}/password", body)
    typer.echo(f"the password of user {user_id} is set; its sessions have ended")


@app.command()
def price_books(context: typer.Context) -> None:
    """List price books."""
    _print(context, "GET", "/v1/price-books")


@app.command()
def price_book(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True)],
) -> None:
    """Add a price book from a JSON file."""
    try:
        book = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"{file} is not JSON: {error}") from None
    _print(context, "POST", "/v1/price-books", book)


@app.command()
def finalize(
    context: typer.Context, invoice_id: str, force: bool = False, reason: str = ""
) -> None:
    """Make an invoice final; `--force --reason …` overrides what holds it."""
    body: dict[str, Any] = {"force": True, "reason": reason} if force else {}
    _print(context, "POST", f"/v1/invoices/{invoice_id}/finalize", body)


def operator_token(data: Path) -> str:
    """The token that the deployment wrote at its first start."""
    file = data / "operator-token"
    if not file.exists():
        raise typer.BadParameter(
            f"no --token given, and {file} is not there; start `handoff up` once, or name the "
            "data folder with --data"
        )
    return file.read_text().strip()


def _secret(prompt: str, *, twice: bool = False) -> str:
    if sys.stdin.isatty():
        text: str = typer.prompt(prompt, hide_input=True, confirmation_prompt=twice)
        return text
    line = sys.stdin.readline()
    if not line:
        raise typer.BadParameter(f"standard input has no line for: {prompt.lower()}")
    return line.rstrip("\r\n")


def _print(
    context: typer.Context, method: str, path: str, body: Mapping[str, Any] | None = None
) -> None:
    typer.echo(json.dumps(_call(context, method, path, body), indent=2))


def _call(
    context: typer.Context, method: str, path: str, body: Mapping[str, Any] | None = None
) -> Any:
    api, given, data = context.obj

    async def call() -> Any:
        async with Api(api, given or operator_token(data)) as client:
            return await client.call(method, path, body)

    return asyncio.run(call())
