"""The system of docker-compose.yml, tried for real: each part is killed under its clients.

`make up-check` runs it against a system that `make up` started, with empty volumes. It is no part
of `make test`, which has no Docker. The clients' own record is the witness: whatever was killed,
metering must end up with every connection that they opened, each closed, each with the minutes that
they count.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from rich.console import Console
from websockets.exceptions import InvalidStatus, WebSocketException

from handoff_common.errors import HandoffError
from handoff_standalone.demo import clients, story
from handoff_standalone.rest import Api

PARTS = ("gateway", "config", "metering", "billing", "origin", "postgres", "kafka", "edge")
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


async def agrees(place: story.Place, customer: story.Customer, witness: clients.Witness) -> float:
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


async def main(parts: list[str]) -> int:
    console = Console(highlight=False, soft_wrap=True)
    place = story.Place(
        f"http://127.0.0.1:{published('gateway', 8000)}",
        published("edge", 8080),
        None,
        compose("exec", "--no-TTY", "config", "cat", "/var/lib/handoff/operator-token"),
    )
    customer = await story.set_up(place, 9000, console, origin_host="origin")
    edge = clients.Edge(place.edge_port, story.DOMAIN)
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
    for part in parts or PARTS:
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
        took = await agrees(place, customer, witness)
        console.print(
            f"{part:9} killed, all ready again after {back:4.1f} s; {witness.opened - before} more "
            f"connections, agreed {took:.1f} s after their end"
        )
    return 0


if __name__ == "__main__":
    os.environ.setdefault("COMPOSE_ANSI", "never")
    raise SystemExit(asyncio.run(main(sys.argv[1:])))
