"""Refusals as metering keeps and shows them: summed over edges and their processes, each counted
once whatever is repeated, and only to whom the service belongs."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from handoff_common.events import EdgeRefusals
from handoff_common.instants import rfc3339
from handoff_common.log import Message
from handoff_common.minutes import DAY_MS, HOUR_MS, day_of, hour_of, month_of
from handoff_common.topics import EDGES
from handoff_metering import tables
from handoff_metering.months import Months
from handoff_metering.rebuild import rebuild, snapshot_tables
from support.metering_edge import refused, tell
from support.metering_system import NOW_MS, System, system, until

HOUR = hour_of(NOW_MS)
DAY = day_of(NOW_MS)
A1, A2, B1 = ("alice", "a-1"), ("alice", "a-2"), ("bob", "b-1")


class Place:
    """A system that runs, with two customers: alice has two services, bob one."""

    def __init__(self, s: System, tokens: dict[str, str]) -> None:
        self.system = s
        self.tokens = tokens

    async def get(self, who: str, **query: str) -> httpx.Response:
        async with self.system.client(self.tokens.get(who, "")) as client:
            return await client.get("/v1/refusals", params=query or None)

    async def rows(self, who: str, **query: str) -> list[tuple[Any, ...]]:
        """(service, hour, cause, count) of all pages."""
        found: list[tuple[Any, ...]] = []
        cursor: dict[str, str] = {}
        while True:
            answer = await self.get(who, **query, **cursor)
            assert answer.status_code == 200, answer.text
            body = answer.json()
            found += [tuple(row.values()) for row in body["data"]]
            if body["meta"]["next_cursor"] is None:
                return found
            assert len(body["data"]) == body["meta"]["limit"]
            cursor = {"cursor": body["meta"]["next_cursor"]}

    async def told(self, *events: EdgeRefusals) -> None:
        """Append counts and wait until all that the topic holds is folded."""
        await tell(self.system.log, *events)
        await folded(self.system)


async def folded(s: System) -> None:
    ends = await s.log.ends(EDGES.name)
    p = tables.positions.c

    async def is_so() -> bool:
        async with s.database.read() as tx:
            query = select(p.partition, p.next_offset).where(p.topic == EDGES.name)
            at = {row.partition: row.next_offset for row in await tx.execute(query)}
        return all(at.get(number, 0) >= end for number, (_, end) in ends.items())

    await until(is_so, "all counts are folded")


async def stored(s: System) -> int:
    async with s.database.read() as tx:
        return int(await tx.scalar(select(func.count()).select_from(tables.refusals)) or 0)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with system(tmp_path) as s:
        tokens = {
            "alice": await s.token("user", "alice"),
            "bob": await s.token("billing", "bob"),
            "operator": await s.token("operator"),
        }
        for customer_id, service_id in (A1, A2, B1):
            await s.make_service(service_id, customer_id)
        async with s.metering():
            yield Place(s, tokens)


async def test_the_shape_of_an_answer(place: Place) -> None:
    await place.told(refused("e-1", HOUR, 12, owner=A1))
    answer = await place.get("alice")
    assert answer.json() == {
        "data": [{"service_id": "a-1", "hour": rfc3339(HOUR), "cause": "not_enabled", "count": 12}],
        "meta": {"limit": 100, "next_cursor": None},
    }


async def test_edges_and_their_processes_are_added_up_and_repeats_are_not(place: Place) -> None:
    first = refused("e-1", HOUR, 3, owner=A1, started_ms=1)
    newest = refused("e-1", HOUR, 5, owner=A1, started_ms=1)
    await place.told(first)
    await place.told(newest)
    await place.told(newest, first)
    await place.told(
        refused("e-1", HOUR, 10, owner=A1, started_ms=2),
        refused("e-2", HOUR, 100, owner=A1, started_ms=1),
    )
    expected = [("a-1", rfc3339(HOUR), "not_enabled", 115)]
    assert await place.rows("alice") == expected
    # A worker that is started again, or another one, reads on and counts nothing twice.
    async with place.system.metering():
        await place.told(first, newest)
        assert await place.rows("alice") == expected


async def test_periods_and_filters(place: Place) -> None:
    await place.told(
        refused("e-1", DAY - HOUR_MS, 1, owner=A1),
        refused("e-1", DAY - 2 * HOUR_MS, 2, owner=A1),
        refused("e-1", DAY - 3 * HOUR_MS, 4, owner=A1, cause="no_rule"),
        refused("e-1", DAY - 2 * HOUR_MS, 8, owner=A2),
        refused("e-1", DAY - DAY_MS - HOUR_MS, 16, owner=A1),
    )
    wide = {"from": rfc3339(DAY - 2 * DAY_MS), "to": rfc3339(DAY)}
    at = [rfc3339(DAY - n * HOUR_MS) for n in range(26)]
    by_hour = [
        ("a-1", at[1], "not_enabled", 1),
        ("a-1", at[2], "not_enabled", 2),
        ("a-2", at[2], "not_enabled", 8),
        ("a-1", at[3], "no_rule", 4),
        ("a-1", at[25], "not_enabled", 16),
    ]
    by_day = [
        ("a-1", at[24], "no_rule", 4),
        ("a-1", at[24], "not_enabled", 3),
        ("a-2", at[24], "not_enabled", 8),
        ("a-1", rfc3339(DAY - 2 * DAY_MS), "not_enabled", 16),
    ]
    total = [
        ("a-1", None, "no_rule", 4),
        ("a-1", None, "not_enabled", 19),
        ("a-2", None, "not_enabled", 8),
    ]
    for by, expected in (("hour", by_hour), ("day", by_day), ("total", total)):
        for limit in ("1", "2", "100"):
            assert await place.rows("alice", by=by, limit=limit, **wide) == expected, (by, limit)
    assert await place.rows("alice", by="total", cause="no_rule", **wide) == total[:1]
    assert await place.rows("alice", by="total", service_id="a-2", **wide) == total[2:]
    # From within an hour its count is there; one that begins at `to` is not.
    inside = {"from": rfc3339(DAY - 2 * HOUR_MS + 1_000), "to": rfc3339(DAY - HOUR_MS)}
    assert await place.rows("alice", **inside) == by_hour[1:3]


async def test_a_customer_sees_its_own_and_operators_all(place: Place) -> None:
    await place.told(
        refused("e-1", HOUR, 1, owner=A1),
        refused("e-1", HOUR, 2, owner=B1),
        refused("e-1", HOUR, 4, owner=None, cause="unknown_domain"),
    )
    at = rfc3339(HOUR)
    alices, bobs = ("a-1", at, "not_enabled", 1), ("b-1", at, "not_enabled", 2)
    assert await place.rows("alice") == [alices]
    assert await place.rows("bob") == [bobs]
    nobodys = (None, at, "unknown_domain", 4)
    for limit in ("1", "100"):
        assert await place.rows("operator", limit=limit) == [nobodys, alices, bobs]
    assert await place.rows("operator", customer_id="bob") == [bobs]
    assert await place.rows("operator", service_id="a-1") == [alices]
    for query in ({"service_id": "b-1"}, {"customer_id": "bob"}, {"service_id": "none"}):
        assert (await place.get("alice", **query)).status_code == 404
    assert (await place.get("nobody")).status_code == 401


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({"by": "minute"}, "by"),
        ({"cause": "Not Enabled"}, "cause"),
        ({"from": "soon"}, "from"),
        ({"from": "now", "to": "yesterday"}, "from"),
        ({"limit": "0"}, "limit"),
        ({"cursor": "x"}, "cursor"),
        ({"region": "europe"}, "region"),
    ],
)
async def test_bad_input_is_named(place: Place, query: dict[str, str], named: str) -> None:
    answer = await place.get("alice", **query)
    assert answer.status_code in (400, 422)
    assert named in answer.json()["errors"][0]["property"]


async def test_what_cannot_be_read_is_passed_over_and_holds_nothing(place: Place) -> None:
    ahead = refused("e-1", HOUR, 50, owner=A1, cause="no_rule", time_ms=NOW_MS + DAY_MS)
    await tell(place.system.log, ahead)
    await place.system.log.append(
        EDGES.name, [Message("x", b"{"), Message("y", b'{"type": "new"}')]
    )
    await place.told(refused("e-1", HOUR, 1, owner=A1))
    assert await place.rows("alice") == [("a-1", rfc3339(HOUR), "not_enabled", 1)]
    async with place.system.database.read() as tx:
        assert not await tx.scalar(select(func.count()).select_from(tables.parked))
    async with place.system.client() as client:
        metrics = (await client.get("/metrics")).text
    name = "handoff_projection_passed_over_total"
    for kind in ("skewed", "malformed", "unknown_type"):
        assert f'{name}{{kind="{kind}",topic="{EDGES.name}"}} 1.0' in metrics


async def test_a_rebuild_finds_every_hour_again(tmp_path: Path) -> None:
    async with system(tmp_path) as s:
        for hour in range(30):
            for count in (1, 2 + hour):
                event = refused("e-1", HOUR - hour * HOUR_MS, count, owner=A1)
                await tell(s.log, event)
        await tell(s.log, refused("e-1", HOUR, 9, owner=None, cause="unknown_domain"))
        async with s.metering():
            await s.caught_up()
            await folded(s)
        live = await snapshot_tables(s.database)
        assert len(live["refusals"]) == 31
        assert sum(row["refused"] for row in live["refusals"]) == 9 + sum(range(2, 32))
        await rebuild(s.settings, log=s.log, database=s.database, clock=s.clock)
        assert await snapshot_tables(s.database) == live
        async with s.metering():
            await tell(s.log, refused("e-1", HOUR, 100, owner=A1))
            await folded(s)
        assert sum(r["refused"] for r in (await snapshot_tables(s.database))["refusals"]) == (
            9 + sum(range(3, 32)) + 100
        )


async def test_months_that_are_gone_are_dropped_and_do_not_come_back(tmp_path: Path) -> None:
    def start(months: int) -> int:
        at = month_of(NOW_MS)
        for _ in range(months):
            at = month_of(at - 1)
        return at

    async with system(tmp_path, metering_keep_months=120) as s:
        # Of a month that goes, its first and its last hour; the first of the one that stays.
        hours = [start(4), start(3) - HOUR_MS, start(3), HOUR]
        await tell(s.log, *(refused("e-1", hour, 1) for hour in hours))
        async with s.metering():
            await folded(s)
            assert await stored(s) == 4
        months = Months(database=s.database, clock=s.clock, keep=2)
        await months.tend()
        assert await stored(s) == 2
        s.settings = s.settings.model_copy(update={"metering_keep_months": 2})
        await rebuild(s.settings, log=s.log, database=s.database, clock=s.clock)
        assert await stored(s) == 2
