"""The system of docker-compose.yml, tried for real: each part is killed under its clients.

`make up-check` runs it against a system that `make up` started, with empty volumes. It is no part
of `make test`, which has no Docker. The clients' own record is the witness: whatever was killed,
metering must end up with every connection that they opened, each closed, each with the minutes that
they count. Beside them somebody signs in to the web interface and stays signed in to the end.
"""

import asyncio
import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import httpx
from rich.console import Console
from websockets.exceptions import InvalidStatus, WebSocketException

from handoff_common.errors import HandoffError
from handoff_console.security import CONTENT_SECURITY_POLICY
from handoff_standalone.demo import clients, story
from handoff_standalone.demo.place import DOMAIN, Customer, Place
from handoff_standalone.rest import Api

PARTS = (
    *("gateway", "console", "config", "metering", "billing"),
    *("origin", "postgres", "kafka", "edge"),
)
CLIENTS = 15
CUTS_CLIENTS = frozenset({"edge", "origin"})
# Below a minute, so that a connection owes exactly one, also where its end is only known by the
# last proof of life.
TRAFFIC_SECONDS = 20.0
RECOVERY_SECONDS = 90.0


def compose(*arguments: str) -> str:
    done = subprocess.run(
        ["docker", "compose", *arguments], check=False, capture_output=True, text=True, timeout=300
    )
    if done.returncode != 0:
        raise SystemExit(f"docker compose {' '.join(arguments)}:\n{done.stderr[-2000:]}")
    return done.stdout.strip()


def published(service: str, port: int) -> int:
    return int(compose("port", service, str(port)).rpartition(":")[2])


async def user(edge: clients.Edge, witness: clients.Witness, number: int) -> None:
    """One client of a kind; where the edge or the origin is killed, its end is no failure."""
    kinds = (clients.chatty, clients.bulk, clients.idle)
    with contextlib.suppress(WebSocketException, OSError, EOFError):
        kind = kinds[number % len(kinds)]
        if kind is clients.chatty:
            await clients.chatty(edge, witness, TRAFFIC_SECONDS, f"user-{number}")
        elif kind is clients.bulk:
            await clients.bulk(edge, witness, TRAFFIC_SECONDS / 2)
        else:
            await clients.idle(edge, witness, TRAFFIC_SECONDS)


@contextlib.asynccontextmanager
async def traffic(edge: clients.Edge, witness: clients.Witness) -> AsyncIterator[None]:
    """CLIENTS clients for as long as the block runs or TRAFFIC_SECONDS, whichever is longer."""
    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(user(edge, witness, number))
        await asyncio.sleep(2)
        yield


async def agrees(place: Place, customer: Customer, witness: clients.Witness) -> float:
    """Waits until metering says what the clients counted; the seconds it took."""
    owed = sum(max(1, -(-ns // 60_000_000_000)) for ns in witness.durations_ns)
    wanted = {"minutes": owed, "opened": witness.opened, "closed": witness.closed}
    began = time.monotonic()
    said: object = None
    while time.monotonic() - began < RECOVERY_SECONDS:
        try:
            async with Api(place.api_url, customer.engineer_token) as stats:
                said = await story.month_usage(stats, datetime.now(UTC))
        except HandoffError as error:
            said = str(error)
        if said == wanted:
            return time.monotonic() - began
        await asyncio.sleep(0.5)
    raise SystemExit(f"clients: {wanted}; metering after {RECOVERY_SECONDS:.0f} s: {said}")


async def sign_in(browser: httpx.AsyncClient, token: str) -> None:
    """As a person does, through the gateway: the page under its policy, a file of it, the form."""
    page = await browser.get("/sign-in")
    style = re.search(r'href="(/static/app\.css\?v=\w+)"', page.text)
    csrf = re.search(r'name="csrf" value="([^"]+)"', page.text)
    if page.status_code != 200 or style is None or csrf is None:
        raise SystemExit(f"/sign-in: {page.status_code} {page.text[:500]}")
    if (policy := page.headers.get("Content-Security-Policy")) != CONTENT_SECURITY_POLICY:
        raise SystemExit(f"/sign-in: Content-Security-Policy: {policy}")
    file = await browser.get(style[1])
    if file.status_code != 200 or "immutable" not in file.headers.get("Cache-Control", ""):
        raise SystemExit(f"{style[1]}: {file.status_code} {dict(file.headers)}")
    # A browser states where a form comes from.
    origin = str(browser.base_url).rstrip("/")
    form = {"csrf": csrf[1], "token": token, "next": ""}
    answer = await browser.post("/sign-in", data=form, headers={"Origin": origin})
    if answer.status_code != 303:
        raise SystemExit(f"signing in: {answer.status_code} {answer.text[:500]}")
    await still_signed_in(browser)


async def still_signed_in(browser: httpx.AsyncClient) -> None:
    target = (await browser.get("/")).headers.get("Location")
    if target != "/operations":
        raise SystemExit(f"an operator who has signed in is sent from / to {target}")


async def main(parts: list[str]) -> int:
    console = Console(highlight=False, soft_wrap=True)
    place = Place(
        f"http://127.0.0.1:{published('gateway', 8000)}",
        published("edge", 8080),
        None,
        compose("exec", "--no-TTY", "config", "cat", "/var/lib/handoff/operator-token"),
    )
    async with httpx.AsyncClient(base_url=place.api_url, timeout=10) as browser:
        await sign_in(browser, place.operator_token)
        console.print("the operator has signed in to the web interface, through the gateway")
        await kill_each(place, browser, console, parts or list(PARTS))
    return 0


async def kill_each(
    place: Place, browser: httpx.AsyncClient, console: Console, parts: list[str]
) -> None:
    """Clients through the system, then again while each part is killed under them."""
    customer = await story.set_up(place, 9000, console, origin_host="origin")
    edge = clients.Edge(place.edge_port, DOMAIN)
    witness = clients.Witness()

    async def handed_off() -> bool | None:
        # The edge is another process than the API: what the API took reaches it a moment later.
        try:
            await clients.idle(edge, witness, 0)
        except InvalidStatus:
            return None
        return True

    await story.eventually(handed_off, "the edge knows the service", 2.0)
    async with traffic(edge, witness):
        pass
    if witness.opened != 1 + CLIENTS:
        raise SystemExit(f"of {CLIENTS} clients only {witness.opened - 1} were handed off")
    took = await agrees(place, customer, witness)
    console.print(f"clients and metering agree on {witness.opened} connections after {took:.1f} s")
    for part in parts:
        before = witness.opened
        async with traffic(edge, witness):
            began = time.monotonic()
            await asyncio.to_thread(compose, "kill", part)
            await asyncio.sleep(5)
            # `kill` counts as the user's own stop, so nothing restarts it: this does, in order.
            await asyncio.to_thread(compose, "up", "--detach", "--wait", "--no-build")
            back = time.monotonic() - began
        if part not in CUTS_CLIENTS and witness.opened - before != CLIENTS:
            through = witness.opened - before
            raise SystemExit(f"{part} was killed, and {through} of {CLIENTS} clients got through")
        await still_signed_in(browser)
        took = await agrees(place, customer, witness)
        console.print(
            f"{part:9} killed, all ready again after {back:4.1f} s; {witness.opened - before} more "
            f"connections, agreed {took:.1f} s after their end"
        )


if __name__ == "__main__":
    os.environ.setdefault("COMPOSE_ANSI", "never")
    raise SystemExit(asyncio.run(main(sys.argv[1:])))
