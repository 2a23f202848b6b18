"""Open connections over time, and the connections behind a usage row, over the API."""

from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete

from handoff_common.events import Reason
from handoff_common.instants import rfc3339, to_ms
from handoff_common.minutes import DAY_MS, HOUR_MS, MINUTE_MS
from handoff_metering import api_concurrency, tables
from support.metering_edge import Edge
from support.metering_system import MONTH_END, NOW_MS, System, system, until

HOUR = MONTH_END - HOUR_MS
SERVICE = "chat"


class Place:
    """One customer's service with connections around a month's end; and another's service."""

    def __init__(self, s: System, edge: Edge, tokens: dict[str, str]) -> None:
        self.system = s
        self.edge = edge
        self.tokens = tokens

    async def ask(self, path: str, who: str = "alice", **query: Any) -> Any:
        async with self.system.client(self.tokens[who]) as client:
            return await client.get(path, params={k: str(v) for k, v in query.items()})

    async def json(self, path: str, who: str = "alice", **query: Any) -> Any:
        answer = await self.ask(path, who, **query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def concurrency(self, **query: Any) -> list[tuple[str, int, int, int, str]]:
        body = await self.json("/v1/concurrency", **{"service_id": SERVICE} | query)
        return [
            (row["start"], row["opened"], row["closed"], row["peak"], row["average"])
            for row in body["data"]
        ]


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with system(tmp_path) as s:
        tokens = {"alice": await s.token("user", "alice"), "bob": await s.token("user", "bob")}
        await s.make_service(SERVICE, "alice")
        await s.make_service("game", "alice")
        await s.make_service("other", "bob")
        edge = Edge(s.log)

        async def lived(name: str, accepted_ms: int, *, ms: int, **named: str) -> None:
            identity = {"service_id": SERVICE, "customer_id": "alice", "region": "europe"} | named
            one = edge.script(accepted_ms, name, **identity)
            await edge.append(one.accepted(), one.closed(ms))

        # Over the month's end and three hours.
        await lived("long", HOUR + 59 * MINUTE_MS + 30_000, ms=2 * HOUR_MS + 1)
        await lived("over", MONTH_END - 90_500, ms=150_000)
        await lived("short", HOUR + 10 * MINUTE_MS, ms=6 * MINUTE_MS)
        await lived("usa", HOUR + 12 * MINUTE_MS, ms=3 * MINUTE_MS, region="usa")
        await lived("game", HOUR + 1, ms=2 * HOUR_MS, service_id="game")
        await lived("bobs", HOUR + 1, ms=2 * HOUR_MS, service_id="other", customer_id="bob")
        # Begun a day earlier, and open still.
        still = edge.script(
            HOUR - DAY_MS, "open", service_id=SERVICE, customer_id="alice", region="europe"
        )
        lost = edge.script(
            HOUR + 20 * MINUTE_MS, "lost", service_id=SERVICE, customer_id="alice", region="europe"
        )
        await edge.append(still.accepted(), lost.accepted(), lost.crashed(30 * MINUTE_MS))
        await edge.vouch(MONTH_END + 3 * HOUR_MS)
        async with s.metering():
            await s.caught_up()
            days = (DAY_MS + HOUR_MS + 3 * HOUR_MS) // MINUTE_MS

            async def accrued() -> bool:
                return (await s.total()).minutes == days + 121 + 3 + 6 + 3 + 240 + 30

            await until(accrued, "the open connection has accrued")
            yield Place(s, edge, tokens)


async def test_the_connections_of_an_hour_add_up_to_its_row(place: Place) -> None:
    """Of every service, region and hour, over the end of a month."""
    span = {"from": rfc3339(HOUR - DAY_MS), "to": rfc3339(MONTH_END + 4 * HOUR_MS)}
    rows = (await place.json("/v1/usage", by="hour", limit=1000, **span))["data"]
    assert len(rows) > 30
    found: dict[str, list[int]] = {}
    for row in rows:
        at = row["start"]
        end = rfc3339(_ms(at) + HOUR_MS)
        page = await place.json(
            "/v1/connections",
            **{"from": at, "to": end, "service_id": row["service_id"], "region": row["region"]},
        )
        inside = {one["connection_id"]: one["minutes_in_range"] for one in page["data"]}
        assert sum(inside.values()) == row["minutes"], row
        for name, count in inside.items():
            found.setdefault(name, []).append(count)
    assert found["long"] == [1, 60, 60]
    assert found["over"] == [2, 1]
    assert {name: sum(counts) for name, counts in found.items()} == {
        one["connection_id"]: one["minutes"]
        for one in (await place.json("/v1/connections"))["data"]
    }


async def test_by_hour_over_the_months_end(place: Place) -> None:
    span = {"from": rfc3339(HOUR), "to": rfc3339(MONTH_END + 3 * HOUR_MS)}
    first = HOUR_MS + 6 * MINUTE_MS + 3 * MINUTE_MS + 30 * MINUTE_MS + 90_500 + 30_000
    second = HOUR_MS + HOUR_MS + 59_500
    third = HOUR_MS + HOUR_MS - 30_000 + 1
    assert await place.concurrency(by="hour", **span) == [
        (rfc3339(HOUR), 5, 3, 3, _average(first, HOUR_MS)),
        (rfc3339(MONTH_END), 0, 1, 3, _average(second, HOUR_MS)),
        (rfc3339(MONTH_END + HOUR_MS), 0, 1, 2, _average(third, HOUR_MS)),
        (rfc3339(MONTH_END + 2 * HOUR_MS), 0, 0, 1, "1"),
    ]


async def test_by_minute_from_within_an_hour(place: Place) -> None:
    """What began before the range in its first hour is open in it; what ended before it is not."""
    from_ms = HOUR + 14 * MINUTE_MS
    span = {"from": rfc3339(from_ms + 1), "to": rfc3339(from_ms + 2 * MINUTE_MS + 30_000)}
    assert await place.concurrency(by="minute", **span) == [
        (rfc3339(from_ms), 0, 0, 3, "3"),
        (rfc3339(from_ms + MINUTE_MS), 0, 1, 2, "2"),
        (rfc3339(from_ms + 2 * MINUTE_MS), 0, 1, 1, "1"),
    ]


async def test_by_day_and_of_one_region(place: Place) -> None:
    span = {"from": rfc3339(HOUR), "to": rfc3339(MONTH_END)}
    day = MONTH_END - DAY_MS
    assert await place.concurrency(by="day", region="usa", **span) == [
        (rfc3339(day), 1, 1, 1, _average(3 * MINUTE_MS, DAY_MS))
    ]
    [(_, opened, closed, peak, _)] = await place.concurrency(by="day", **span)
    assert (opened, closed, peak) == (5, 3, 3)


async def test_nothing_is_said_of_what_lies_ahead(place: Place) -> None:
    body = await place.json("/v1/concurrency", service_id=SERVICE, by="minute", to="2999-01-01")
    assert body["meta"]["to"] <= rfc3339(NOW_MS + HOUR_MS)
    assert {row["peak"] for row in body["data"]} == {1}
    assert {(row["opened"], row["average"]) for row in body["data"]} == {(0, "1")}


async def test_the_answer_says_what_it_is_of(place: Place) -> None:
    query = {"service_id": SERVICE, "from": rfc3339(HOUR + 5), "to": rfc3339(HOUR + 7)}
    body = await place.json("/v1/concurrency", **query)
    assert body["meta"] == {
        "service_id": SERVICE,
        "region": "all",
        "by": "hour",
        "from": rfc3339(HOUR),
        "to": rfc3339(HOUR + 7),
    }


@pytest.mark.parametrize(
    ("query", "status", "code", "named", "allowed"),
    [
        ({"by": "second"}, 422, "invalid", "by", "minute"),
        ({"colour": "red"}, 422, "invalid", "colour", ""),
        ({"region": "mars"}, 400, "bad_parameter", "region", "europe"),
        ({"from": "soon"}, 400, "bad_parameter", "from", "RFC 3339"),
        ({"from": "2999-01-01"}, 400, "bad_parameter", "from", "till now"),
        ({"from": "now", "to": "1 day ago"}, 400, "bad_parameter", "from", "before"),
        ({"by": "minute", "from": "3 hours ago"}, 400, "range_too_long", "from", "2 hours"),
        ({"by": "hour", "from": "32 days ago"}, 400, "range_too_long", "from", "31 days"),
        ({"by": "day", "from": "367 days ago"}, 400, "range_too_long", "from", "366 days"),
    ],
)
async def test_what_is_refused_says_what_is_allowed(
    place: Place, query: dict[str, str], status: int, code: str, named: str, allowed: str
) -> None:
    answer = await place.ask("/v1/concurrency", **{"service_id": SERVICE} | query)
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body["type"].endswith(code)
    [error] = body["errors"]
    assert error["property"] == named
    assert allowed in error["reason"]


async def test_all_services_of_a_customer_together(place: Place) -> None:
    """The most that were open at one instant, not the sum of what each had at its own."""
    span = {"from": rfc3339(HOUR), "to": rfc3339(MONTH_END + 3 * HOUR_MS), "by": "hour"}
    body = await place.json("/v1/concurrency", **span)
    assert body["meta"]["service_id"] is None
    assert [(row["opened"], row["closed"], row["peak"]) for row in body["data"]] == [
        (6, 3, 4),
        (0, 1, 4),
        (0, 2, 3),
        (0, 0, 1),
    ]
    [usa, *_] = (await place.json("/v1/concurrency", region="usa", **span))["data"]
    assert (usa["opened"], usa["peak"]) == (1, 1)


async def test_the_service_and_the_customer_are_ones_own(place: Place) -> None:
    for service_id in ("other", "unknown"):
        assert (await place.ask("/v1/concurrency", service_id=service_id)).status_code == 404
    assert (await place.ask("/v1/concurrency", "bob", service_id=SERVICE)).status_code == 404
    assert (await place.ask("/v1/concurrency", "bob", customer_id="alice")).status_code == 404
    span = {"from": rfc3339(HOUR), "to": rfc3339(MONTH_END)}
    [row] = (await place.json("/v1/concurrency", "bob", **span))["data"]
    assert (row["opened"], row["closed"], row["peak"]) == (1, 0, 1)


async def test_more_than_is_read_at_once_is_refused_before_it_is_read(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_concurrency, "MOST_MARKS", 9)
    span = {"service_id": SERVICE, "from": rfc3339(HOUR), "to": rfc3339(MONTH_END + 3 * HOUR_MS)}
    answer = await place.ask("/v1/concurrency", **span)
    assert answer.status_code == 400
    body = answer.json()
    assert body["type"].endswith("too_many_connections")
    assert "10" in body["errors"][0]["reason"] and "at most 9" in body["errors"][0]["reason"]
    assert (await place.ask("/v1/concurrency", **span, region="usa")).status_code == 200


async def test_a_time_whose_connections_are_gone_is_refused_not_guessed(place: Place) -> None:
    """As when a month's partition is dropped: the hourly totals stay."""
    async with place.system.database.transaction() as tx:
        c = tables.connections.c
        await tx.execute(delete(tables.connections).where(c.reason == Reason.CLIENT_CLOSED.value))
    span = {"service_id": SERVICE, "to": rfc3339(MONTH_END + 3 * HOUR_MS)}
    answer = await place.ask("/v1/concurrency", **span, **{"from": rfc3339(HOUR)})
    assert answer.status_code == 400
    assert answer.json()["type"].endswith("connections_gone")
    later = {"from": rfc3339(MONTH_END + 2 * HOUR_MS)}
    [row] = (await place.json("/v1/concurrency", **span, **later))["data"]
    assert (row["opened"], row["closed"], row["peak"]) == (0, 0, 1)


def _average(open_ms: int, length_ms: int) -> str:
    thousandths = (2_000 * open_ms + length_ms) // (2 * length_ms)
    return f"{thousandths // 1000}.{thousandths % 1000:03d}".rstrip("0").rstrip(".")


def _ms(text: str) -> int:
    return to_ms(datetime.fromisoformat(text))
