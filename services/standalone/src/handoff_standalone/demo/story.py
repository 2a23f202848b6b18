"""What the demo does, step by step, against a running system, through its public interfaces."""

import asyncio
import secrets
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from rich.console import Console
from rich.live import Live
from rich.table import Table
from websockets.exceptions import WebSocketException

from handoff_common.errors import HandoffError
from handoff_standalone.demo import clients, recording
from handoff_standalone.demo.place import DOMAIN, Customer, Place
from handoff_standalone.rest import Api
from handoff_standalone.verification import prove

_SECONDS_OF_TRAFFIC = 12.0
_BACK_SECONDS = 5.0
T = TypeVar("T")


class DemoFailed(HandoffError):
    """Something did not come out as the clients themselves saw it."""

    code = "demo_failed"


@asynccontextmanager
async def origin(port: int = 0) -> AsyncIterator[int]:
    """The chat server in its own process, at `port`, or at a free one; yields its port.

    Raises DemoFailed where it does not start, as where the port is taken.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "handoff_standalone.demo.origin",
        str(port),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        async with asyncio.timeout(20):
            line = await process.stdout.readline()
        if not line.strip():
            raise DemoFailed("the demo's origin did not start; standard error says why")
        yield int(line)
    finally:
        process.stdin.close()
        try:
            async with asyncio.timeout(5):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def set_up(
    place: Place, origin_port: int, console: Console, origin_host: str = "127.0.0.1"
) -> Customer:
    """A customer with a contract, and a service that an engineer of it configures and enables."""
    async with Api(place.api_url, place.operator_token) as operator:
        customer = await operator.call(
            "POST",
            "/v1/customers",
            {"name": "Example GmbH", "account_type": "paid", "billing_email": "b@example.com"},
        )
        customer_id = customer["id"]
        starts = (datetime.now(UTC) - timedelta(days=90)).strftime("%Y-%m-%dT00:00:00Z")
        await operator.call(
            "POST",
            f"/v1/customers/{customer_id}/contracts",
            {"product": "websockets", "starts_at": starts, "ends_at": None},
        )
        tokens = {}
        password = secrets.token_urlsafe(12)
        for role in ("superuser", "engineer", "billing", "user"):
            user = await operator.call(
                "POST",
                f"/v1/customers/{customer_id}/users",
                {
                    "login": f"{role}@example.com",
                    "name": role.title(),
                    "role": role,
                    "password": password,
                },
            )
            made = await operator.call(
                "POST", f"/v1/users/{user['id']}/tokens", {"name": "demo", "scope": "global"}
            )
            tokens[role] = made["access_token"]
    console.print("  a paid customer with a contract for WebSockets, an engineer, a biller")
    async with Api(place.api_url, tokens["engineer"]) as engineer:
        service = await engineer.call("POST", "/service", {"name": "Chat", "type": "vcl"})
        version = f"/service/{service['id']}/version/1"
        await engineer.call("POST", f"{version}/domain", {"name": DOMAIN})
        await engineer.call(
            "POST",
            f"{version}/backend",
            {"name": "chat", "address": origin_host, "port": origin_port, "use_ssl": False},
        )
        await engineer.call("PUT", f"{version}/activate")
        console.print("  a service with a domain and a backend; WebSockets are off by default:")
        witness = clients.Witness()
        await clients.refused(clients.Edge(place.edge_port, DOMAIN), witness, DOMAIN)
        console.print(f"    an upgrade request is refused: [yellow]{_one(witness.refused)}[/]")
        path = f"/enabled-products/v1/websockets/services/{service['id']}"
        await engineer.call("PUT", path)
        console.print("  the engineer enables WebSockets")
    return Customer(customer_id, service["id"], tokens["engineer"], tokens["billing"], password)


async def go_on(place: Place, stop: asyncio.Event) -> None:
    """A few clients that come and go until `stop`, so that there is something to look at."""
    edge = clients.Edge(place.edge_port, DOMAIN)
    witness = clients.Witness()

    async def again(one: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await one()
            except (WebSocketException, OSError):
                # Ended from the web interface, or refused since somebody switched it off there.
                await asyncio.sleep(_BACK_SECONDS)

    async with asyncio.TaskGroup() as group:
        running = [
            *(
                group.create_task(
                    again(partial(clients.chatty, edge, witness, 100 + 35 * n, f"guest-{n}"))
                )
                for n in range(4)
            ),
            *(
                group.create_task(again(partial(clients.idle, edge, witness, 240 + 60 * n)))
                for n in range(6)
            ),
        ]
        await stop.wait()
        for task in running:
            task.cancel()


async def traffic(place: Place, customer: Customer, console: Console) -> clients.Witness:
    """Real clients of every kind, with usage shown while they are connected."""
    witness = clients.Witness()
    edge = clients.Edge(place.edge_port, DOMAIN)
    seconds = _SECONDS_OF_TRAFFIC
    async with asyncio.TaskGroup() as group:
        users = [
            *(clients.chatty(edge, witness, seconds - n, f"user-{n}") for n in range(6)),
            *(clients.bulk(edge, witness, seconds - 2 - n) for n in range(2)),
            *(clients.idle(edge, witness, seconds - n / 4) for n in range(24)),
            *(clients.abrupt(edge, witness, seconds / 2 + n) for n in range(4)),
            *(clients.refused(edge, witness, "nobody.example.com") for _ in range(3)),
        ]
        running = [group.create_task(user) for user in users]
        await _show_until(running, place, customer, witness, console)
    return witness


async def _show_until(
    running: list["asyncio.Task[None]"],
    place: Place,
    customer: Customer,
    witness: clients.Witness,
    console: Console,
) -> None:
    async with (
        Api(place.api_url, customer.engineer_token) as stats,
        Api(place.api_url, customer.billing_token) as billing,
    ):
        with Live(console=console, refresh_per_second=4, transient=not console.is_terminal) as live:
            while not all(task.done() for task in running):
                used = await month_usage(stats, datetime.now(UTC))
                cost = await billing.call("GET", "/billing/v3/invoices/month-to-date")
                live.update(_live_table(witness, used, cost))
                if not console.is_terminal:
                    console.print(
                        f"  open {witness.open_now:3}  minutes so far {used['minutes']:4}  "
                        f"month to date {cost['monthly_transaction_amount']}"
                    )
                await asyncio.sleep(1 if console.is_terminal else 3)


def _live_table(witness: clients.Witness, used: dict[str, int], cost: dict[str, Any]) -> Table:
    table = Table(title="while connections are open", title_justify="left")
    for name in ("open", "opened", "refused", "messages", "MB sent", "minutes", "month to date"):
        table.add_column(name, justify="right")
    table.add_row(
        str(witness.open_now),
        str(witness.opened),
        _one(witness.refused),
        str(witness.messages),
        str(witness.sent // 1_000_000),
        str(used["minutes"]),
        f"{cost['monthly_transaction_amount']} {cost.get('currency_code', '')}",
    )
    return table


async def compare(place: Place, customer: Customer, witness: clients.Witness) -> dict[str, int]:
    """What metering says against what the clients counted. Raises DemoFailed where they differ."""
    owed = sum(max(1, -(-ns // 60_000_000_000)) for ns in witness.durations_ns)
    async with Api(place.api_url, customer.engineer_token) as stats:

        async def all_closed() -> dict[str, int] | None:
            used = await month_usage(stats, datetime.now(UTC))
            return used if used["closed"] >= witness.closed else None

        used = await eventually(all_closed, "metering has seen every connection close")
    if used["opened"] != witness.opened or used["minutes"] != owed:
        raise DemoFailed(f"clients: {witness.opened} opened, {owed} minutes; metering: {used}")
    return used


async def month_usage(stats: Api, now: datetime) -> dict[str, int]:
    """This month's totals over all services: minutes, opened, closed."""
    start = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    query = {"by": "month", "from": _rfc(start), "to": _rfc(now + timedelta(hours=1))}
    rows = (await stats.call("GET", "/v1/usage", query=query))["data"]
    return {name: sum(row[name] for row in rows) for name in ("minutes", "opened", "closed")}


async def close_a_month(place: Place, customer: Customer, console: Console) -> dict[str, Any]:
    """Append the recording, wait until billing has it, finalize, and return the invoice."""
    assert place.log is not None, "a recorded month is appended to the log"
    start, end = recording.closed_month(datetime.now(UTC))
    count = await recording.append(place.log, customer.customer_id, customer.service_id, end)
    expected = recording.expected_minutes(end)
    console.print(f"  {count} recorded events of connections across the end of {start:%B %Y}")
    async with Api(place.api_url, place.operator_token) as operator:
        query = {"customer_id": customer.customer_id}

        async def draft() -> dict[str, Any] | None:
            every = (await operator.call("GET", "/v1/invoices", query=query))["data"]
            for invoice in every:
                if invoice["period_start"] == _rfc(start):
                    whole = await operator.call("GET", f"/v1/invoices/{invoice['invoice_id']}")
                    if whole["minutes"] == expected:
                        return dict(whole)
            return None

        found = await eventually(draft, f"billing has {expected} minutes for {start:%B %Y}")

        async def finalized() -> dict[str, Any] | None:
            path = f"/v1/invoices/{found['invoice_id']}/finalize"
            try:
                return dict(await operator.call("POST", path, {}))
            except HandoffError as error:
                console.log(str(error)) if console.is_terminal else None
                return None

        return await eventually(finalized, "nothing holds the invoice")


def print_invoice(invoice: dict[str, Any], console: Console) -> None:
    table = Table(title=f"invoice {invoice['number']}", title_justify="left")
    for name in ("line", "quantity", "unit", "amount"):
        table.add_column(name, justify="left" if name in ("line", "unit") else "right")
    for line in invoice["lines"]:
        table.add_row(line["description"], str(line["quantity"]), line["unit"], line["amount"])
    table.add_section()
    table.add_row("total", "", invoice["currency"], invoice["total"], style="bold")
    console.print(table)


async def verify(place: Place, invoice: dict[str, Any], console: Console) -> None:
    """Prove the invoice from the log alone."""
    assert place.log is not None, "the proof reads the log"
    proof = await prove(place.log, invoice["number"])
    if not proof.ok:
        raise DemoFailed(f"the invoice cannot be proved: {proof.difference}")
    console.print(f"  {proof.events} events folded again: hash [green]{proof.rebuilt_hash}[/]")


async def eventually(ask: Callable[[], Awaitable[T | None]], what: str, seconds: float = 30.0) -> T:
    deadline = time.monotonic() + seconds
    while True:
        found = await ask()
        if found is not None:
            return found
        if time.monotonic() > deadline:
            raise DemoFailed(f"after {seconds:.0f} s it is still not so that {what}")
        await asyncio.sleep(0.1)


def _one(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} × {code}" for code, count in counts.items()) or "0"


def _rfc(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ")
