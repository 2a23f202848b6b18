"""kill -9 of the embedded system: every accepted connection has its `closed`, minutes reach to the
last proof of life, and nothing is billed twice. The clients' own record is the witness."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from handoff_common import codec
from handoff_common.events import ConnectionAccepted, ConnectionClosed
from handoff_common.instants import to_ms
from handoff_common.log import Partition
from handoff_common.log_sqlite import SqliteLog
from handoff_common.minutes import owed
from handoff_common.topics import CONNECTIONS
from support.embedded import Embedded, Tenant, make_tenant
from support.parts.waiting import eventually
from support.witness import Load

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("fault-kill")]
CONNECTIONS_OPEN = 200
KILLS = 5
WATERMARK_MS = 500
SLACK_MS = 1_500


async def log_events(data: Path) -> list[Any]:
    """Every connection event in the log, read beside the system."""

    async def from_start(_: Sequence[Partition]) -> Mapping[Partition, int]:
        return {}

    log = await SqliteLog.open(data / "log.db", read_only=True)
    subscription = log.subscribe([CONNECTIONS.name], group=None, positions=from_start)
    found: list[Any] = []
    while not await subscription.caught_up():
        for batch in await subscription.fetch(max_records=5_000, timeout=0):
            found.extend(codec.decode(r.topic, r.value) for r in batch.records)
    await subscription.close()
    await log.close()
    return found


async def usage(system: Embedded, tenant: Tenant) -> dict[str, int]:
    now = datetime.now(UTC)
    start = (now - timedelta(days=2)).strftime("%Y-%m-%dT%H:00:00Z")
    end = (now + timedelta(hours=1)).strftime("%Y-%m-%dT%H:00:00Z")
    async with system.api(tenant.tokens["user"]) as api:
        rows = (await api.call("GET", "/v1/usage", query={"by": "hour", "from": start, "to": end}))[
            "data"
        ]
    return {name: sum(row[name] for row in rows) for name in ("minutes", "opened", "closed")}


async def everything_closed(system: Embedded, tenant: Tenant, load: Load) -> None:
    """The log, the usage and the clients' record agree."""
    events = await log_events(system.data)
    accepted = {e.data.connection_id: e for e in events if isinstance(e, ConnectionAccepted)}
    closed = [e for e in events if isinstance(e, ConnectionClosed)]
    ends = Counter(e.data.connection_id for e in closed)
    assert set(ends) == set(accepted), "every accepted connection has a closed, and only those"
    assert max(ends.values()) == 1, "none is closed twice"
    # A client that was killed between the journal and its 101 is in the log and not among the seen.
    assert len(load.seen) <= len(accepted) <= len(load.seen) + load.refused
    assert Counter(e.id for e in events).most_common(1)[0][1] == 1, "no event is there twice"
    never = {e.data.connection_id for e in closed if e.data.reason == "never_established"}
    expected = sum(owed(e.data.elapsed_ms) for e in closed if e.data.connection_id not in never)

    async def metered() -> dict[str, int] | None:
        found = await usage(system, tenant)
        return found if found["closed"] == len(accepted) else None

    used = await eventually(metered, f"metering has {len(accepted)} closed connections")
    assert used == {"minutes": expected, "opened": len(accepted), "closed": len(accepted)}


@pytest.mark.parametrize("seed", range(2))
async def test_random_kills_under_load(tmp_path: Path, origin: int, seed: int) -> None:
    chance = random.Random(seed)
    system = Embedded(tmp_path / "data")
    await system.start()
    tenant = await make_tenant(system, origin_port=origin)
    load = Load(system.edge_port, tenant.domain)
    for _ in range(KILLS):
        load.port = system.edge_port
        opening = asyncio.create_task(load.open(CONNECTIONS_OPEN, talk=0.2))
        await asyncio.sleep(chance.uniform(0.05, 2.0))
        await system.kill()
        await opening
        await load.all_ended()
        await system.start()
    await everything_closed(system, tenant, load)
    assert await system.stop() == 0


async def test_kill_after_every_event_was_acknowledged(tmp_path: Path, origin: int) -> None:
    system = Embedded(tmp_path / "data")
    await system.start()
    tenant = await make_tenant(system, origin_port=origin)
    load = Load(system.edge_port, tenant.domain)
    await load.open(CONNECTIONS_OPEN)
    assert len(load.seen) == CONNECTIONS_OPEN

    async def all_metered() -> bool | None:
        return (await usage(system, tenant))["opened"] == CONNECTIONS_OPEN or None

    await eventually(all_metered, "every connection is metered")
    await asyncio.sleep(3 * WATERMARK_MS / 1000)
    killed_ms = time.time_ns() // 1_000_000
    await system.kill()
    await load.all_ended()
    await system.start()
    await everything_closed(system, tenant, load)
    for event in await log_events(system.data):
        if isinstance(event, ConnectionClosed):
            proof_ms = to_ms(event.data.accepted_at) + event.data.elapsed_ms
            assert event.data.reason == "edge_crashed"
            assert killed_ms - WATERMARK_MS - SLACK_MS <= proof_ms <= killed_ms + 50
    assert await system.stop() == 0


async def test_minutes_after_a_kill_are_those_of_the_clients_own_clocks(
    tmp_path: Path, origin: int
) -> None:
    """Each client has a name of its own, so that what the system bills for it stands beside what it
    saw: no minute more than it lived, none less than to the last proof of life."""
    system = Embedded(tmp_path / "data")
    await system.start()
    tenant = await make_tenant(system, origin_port=origin, domain="*.chat.example.com")
    long, short = (
        [Load(system.edge_port, f"{kind}{n}.chat.example.com") for n in range(20)]
        for kind in ("long", "short")
    )

    async def rows(state: str) -> dict[str, dict[str, Any]]:
        async with system.api(tenant.tokens["user"]) as api:
            query = {"state": state, "limit": "100"}
            found = (await api.call("GET", "/v1/connections", query=query))["data"]
        return {row["domain"]: row for row in found}

    await asyncio.gather(*(load.open(1) for load in long))

    async def in_their_second_minute() -> bool | None:
        found = await rows("open")
        return (len(found) == 20 and all(row["minutes"] == 2 for row in found.values())) or None

    await eventually(in_their_second_minute, "live minutes pass one", seconds=90)
    await asyncio.gather(*(load.open(1, talk=0.2) for load in short))

    async def all_metered() -> bool | None:
        return len(await rows("open")) == 40 or None

    await eventually(all_metered, "every connection is metered")
    killed_ns = time.time_ns()
    await system.kill()
    await asyncio.gather(*(load.all_ended() for load in (*long, *short)))
    await system.start()

    async def all_closed() -> dict[str, dict[str, Any]] | None:
        found = await rows("closed")
        return found if len(found) == 40 else None

    billed = await eventually(all_closed, "every connection is closed")
    closes = {
        e.data.connection_id: e.data.elapsed_ms
        for e in await log_events(system.data)
        if isinstance(e, ConnectionClosed)
    }
    for load in (*long, *short):
        [seen] = load.seen
        row = billed[load.domain]
        lived_ms = -(-(seen.ended_ns - seen.opening_ns) // 1_000_000)
        vouched_ms = (killed_ns - seen.opened_ns) // 1_000_000 - WATERMARK_MS - SLACK_MS
        elapsed_ms = closes[row["connection_id"]]
        assert vouched_ms <= elapsed_ms <= lived_ms, load.domain
        assert owed(max(0, vouched_ms)) <= row["minutes"] <= owed(lived_ms), load.domain
    assert {billed[load.domain]["minutes"] for load in long} == {2}
    assert {billed[load.domain]["minutes"] for load in short} == {1}
    assert (await usage(system, tenant))["minutes"] == 60
    assert await system.stop() == 0


async def test_a_second_process_on_the_folder_is_refused(tmp_path: Path) -> None:
    system = Embedded(tmp_path / "data")
    await system.start()
    second = Embedded(system.data)
    endpoints = (system.data / "endpoints.json").read_text()
    with pytest.raises(AssertionError, match="is in use by process"):
        await second.start()
    (system.data / "endpoints.json").write_text(endpoints)
    assert await system.stop() == 0
