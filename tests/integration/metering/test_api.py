"""Every call of the API: its shapes, who may call it, and what it says to bad input."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from handoff_common.events import COUNTER_NAMES, EndConnection
from handoff_common.instants import from_ms, rfc3339
from handoff_common.minutes import HOUR_MS, MINUTE_MS, month_of
from support.metering_edge import Edge, Script, carried
from support.metering_system import MONTH_END, NOW_MS, System, system, until

HOUR = MONTH_END - HOUR_MS
RECENT = NOW_MS - NOW_MS % MINUTE_MS - 30 * MINUTE_MS


class Place:
    """A system with two customers: alice has two services, bob one."""

    def __init__(self, s: System, edge: Edge, tokens: dict[str, str], scripts: list[Script]):
        self.system = s
        self.edge = edge
        self.tokens = tokens
        self.scripts = scripts

    async def get(self, path: str, who: str = "alice", **query: str) -> httpx.Response:
        async with self.system.client(self.tokens.get(who, "")) as client:
            return await client.get(path, params=query or None)

    async def json(self, path: str, who: str = "alice", **query: str) -> Any:
        answer = await self.get(path, who, **query)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with system(tmp_path) as s:
        tokens = {
            "alice": await s.token("user", "alice"),
            "engineer": await s.token("engineer", "alice"),
            "reader": await s.token("engineer", "alice", "global:read"),
            "bob": await s.token("superuser", "bob"),
            "operator": await s.token("operator"),
        }
        for service_id, customer_id in (("a-1", "alice"), ("a-2", "alice"), ("b-1", "bob")):
            await s.make_service(service_id, customer_id)
        edge = Edge(s.log)

        def script(accepted_ms: int, name: str, service_id: str, region: str) -> Script:
            customer_id = "bob" if service_id == "b-1" else "alice"
            return edge.script(
                accepted_ms, name, service_id=service_id, customer_id=customer_id, region=region
            )

        crossing = script(MONTH_END - 90_000, "crossing", "a-1", "europe")
        usa = script(HOUR, "usa", "a-1", "usa")
        still_open = script(HOUR + 1, "open", "a-2", "europe")
        bobs = script(HOUR + 2, "bobs", "b-1", "europe")
        recent = script(RECENT, "recent", "a-2", "asia")
        await edge.append(*(x.accepted() for x in (crossing, usa, still_open, bobs, recent)))
        await edge.append(
            crossing.bytes(89_999, carried(50)),
            crossing.closed(120_001, carried(100)),
            usa.closed(60_000, carried(7)),
            bobs.closed(30_000),
            recent.bytes(61_000, carried(20)),
            recent.closed(90_000, carried(30)),
        )
        await edge.vouch(MONTH_END + 30_000)
        async with s.metering():
            await s.caught_up()

            async def accrued() -> bool:
                return (await s.total()).minutes == 3 + 1 + 61 + 1 + 2

            await until(accrued, "the open connection has accrued")
            yield Place(s, edge, tokens, [crossing, usa, still_open, bobs, recent])


RANGE = {"from": rfc3339(HOUR), "to": rfc3339(MONTH_END + HOUR_MS)}


def sent(counters: Any) -> dict[str, int]:
    return {f"websocket_{name}": n for name, n in counters._asdict().items()}


# --- Statistics ---


async def test_stats_of_a_service_by_hour(place: Place) -> None:
    body = await place.json("/stats/service/a-1", **RANGE, by="hour")
    assert body["status"] == "success"
    assert body["msg"] is None
    assert body["meta"] == {
        "from": from_ms(HOUR).strftime("%Y-%m-%d %H:%M:%S UTC"),
        "to": from_ms(MONTH_END + HOUR_MS).strftime("%Y-%m-%d %H:%M:%S UTC"),
        "by": "hour",
        "region": "all",
    }
    first = carried(50).plus(carried(7))
    second = carried(100).minus(carried(50))
    assert body["data"] == [
        {
            "service_id": "a-1",
            "start_time": HOUR // 1000,
            **sent(first),
            "websocket_conn_time_ms": 3 * 60_000,
            "requests": 2,
            "bandwidth": sum(first[n] for n in (2, 3, 4, 5)),
        },
        {
            "service_id": "a-1",
            "start_time": MONTH_END // 1000,
            **sent(second),
            "websocket_conn_time_ms": 60_000,
            "requests": 0,
            "bandwidth": sum(second[n] for n in (2, 3, 4, 5)),
        },
    ]


async def test_stats_by_day_and_region(place: Place) -> None:
    body = await place.json("/stats/service/a-1", **RANGE, by="day", region="usa")
    assert body["meta"]["region"] == "usa"
    assert [row["websocket_conn_time_ms"] for row in body["data"]] == [60_000]
    day = (MONTH_END - 86_400_000) // 1000
    assert [row["start_time"] for row in body["data"]] == [day]


async def test_stats_by_minute_for_the_last_two_hours(place: Place) -> None:
    body = await place.json(
        "/stats/service/a-2", by="minute", **{"from": str(RECENT // 1000 - 600)}
    )
    rows = {row["start_time"] * 1000: row for row in body["data"]}
    found = {
        at: (row["websocket_conn_time_ms"], row["websocket_req_body_bytes"], row["requests"])
        for at, row in rows.items()
    }
    assert found == {RECENT: (60_000, 0, 1), RECENT + MINUTE_MS: (60_000, 30, 0)}
    early = await place.get("/stats/service/a-2", by="minute", **{"from": "3 hours ago"})
    assert early.status_code == 400
    assert "use by=hour" in early.json()["detail"]


async def test_stats_of_all_services(place: Place) -> None:
    body = await place.json("/stats", **RANGE, by="hour")
    assert set(body["data"]) == {"a-1", "a-2"}
    assert [row["websocket_conn_time_ms"] for row in body["data"]["a-2"]] == [60 * 60_000, 60_000]
    everyone = await place.json("/stats", "operator", **RANGE)
    assert set(everyone["data"]) == {"a-1", "a-2", "b-1"}
    one = await place.json("/stats", "operator", **RANGE, customer_id="bob")
    assert set(one["data"]) == {"b-1"}


async def test_one_field(place: Place) -> None:
    one = await place.json("/stats/service/a-1/field/websocket_conn_time_ms", **RANGE, by="hour")
    assert one["data"][1] == {
        "service_id": "a-1",
        "start_time": MONTH_END // 1000,
        "websocket_conn_time_ms": 60_000,
    }
    every = await place.json("/stats/field/requests", **RANGE)
    assert {s: sum(r["requests"] for r in rows) for s, rows in every["data"].items()} == {
        "a-1": 2,
        "a-2": 1,
    }


async def test_aggregate_and_regions(place: Place) -> None:
    body = await place.json("/stats/aggregate", **RANGE, by="hour")
    assert [row["websocket_conn_time_ms"] // 60_000 for row in body["data"]] == [63, 2]
    assert "service_id" not in body["data"][0]
    regions = (await place.json("/stats/regions"))["data"]
    assert "europe" in regions
    assert "saudi_arabia" in regions


async def test_usage_by_region_service_and_month(place: Place) -> None:
    usa = {"bandwidth": 129 + 7 + 410 + 7, "requests": 1}
    by_region = (await place.json("/stats/usage", **RANGE))["data"]
    assert by_region["usa"] == usa
    by_service = (await place.json("/stats/usage_by_service", **RANGE))["data"]
    assert by_service["usa"] == {"a-1": usa}
    assert set(by_service["europe"]) == {"a-1", "a-2"}
    month = from_ms(HOUR)
    asked = {"year": f"{month.year}", "month": f"{month.month:02d}"}
    data = (await place.json("/stats/usage_by_month", **asked))["data"]
    assert data["customer_id"] == "alice"
    assert data["services"]["a-1"]["name"] == "a-1!"
    assert data["services"]["a-1"]["usa"] == usa
    assert data["total"]["usa"] == usa
    billable = await place.json("/stats/usage_by_month", **asked, billable_units="True")
    assert billable["data"]["total"]["usa"] == {"bandwidth": 553 / 10**9, "requests": 1 / 10**4}


@pytest.mark.parametrize(
    ("path", "query", "said"),
    [
        ("/stats", {"by": "second"}, "by: 'second'; allowed: minute, hour, day"),
        ("/stats", {"from": "soon"}, "from: 'soon' is not a time; allowed: epoch seconds"),
        ("/stats", {"to": "2026-02-30"}, "to: '2026-02-30' is not a time"),
        ("/stats", {"region": "mars"}, "region: 'mars'; allowed: all, africa_std"),
        ("/stats", {"from": "now", "to": "yesterday"}, "from: lies after `to`"),
        ("/stats/field/hits", {}, "field: 'hits'; allowed: bandwidth"),
        ("/stats/usage_by_month", {"month": "13"}, "month: '13'; allowed: 1 to 12"),
        ("/stats/usage_by_month", {"month": "²"}, "month: '²'; allowed: 1 to 12"),
        ("/stats/usage_by_month", {"year": "9" * 4_500}, "allowed: 1970 to 9998"),
        ("/stats/usage_by_month", {"year": "soon"}, "year: 'soon'; allowed: 1970 to 9998"),
    ],
)
async def test_bad_statistics_calls_say_what_is_allowed(
    place: Place, path: str, query: dict[str, str], said: str
) -> None:
    answer = await place.get(path, **query)
    assert answer.status_code == 400
    assert answer.json()["msg"] == "Bad request"
    assert said in answer.json()["detail"]


# --- Usage ---


async def test_usage_by_period_service_and_region(place: Place) -> None:
    body = await place.json("/v1/usage", **RANGE, by="hour")
    found = [(r["start"], r["service_id"], r["region"], r["minutes"]) for r in body["data"]]
    assert found == [
        (rfc3339(HOUR), "a-1", "europe", 2),
        (rfc3339(HOUR), "a-1", "usa", 1),
        (rfc3339(HOUR), "a-2", "europe", 60),
        (rfc3339(MONTH_END), "a-1", "europe", 1),
        (rfc3339(MONTH_END), "a-2", "europe", 1),
    ]
    assert set(COUNTER_NAMES) | {"opened", "closed", "lost"} <= body["data"][0].keys()
    assert body["data"][1] | {"req_body_bytes": 7} == body["data"][1]
    assert body["meta"] == {"limit": 100, "next_cursor": None}


async def test_usage_by_month_adds_up(place: Place) -> None:
    rows = (await place.json("/v1/usage", **RANGE, by="month", service_id="a-1"))["data"]
    months = {(row["start"], row["region"]): row["minutes"] for row in rows}
    assert months == {
        (rfc3339(month_of(HOUR)), "europe"): 2,
        (rfc3339(month_of(HOUR)), "usa"): 1,
        (rfc3339(MONTH_END), "europe"): 1,
    }


@pytest.mark.parametrize("by", ["hour", "day", "month"])
async def test_usage_pages_are_the_whole(place: Place, by: str) -> None:
    whole = (await place.json("/v1/usage", **RANGE, by=by))["data"]
    paged: list[Any] = []
    query = {**RANGE, "by": by, "limit": "2"}
    while True:
        page = await place.json("/v1/usage", **query)
        paged += page["data"]
        assert len(page["data"]) <= 2
        if page["meta"]["next_cursor"] is None:
            break
        query["cursor"] = page["meta"]["next_cursor"]
    assert paged == whole


# --- Connections ---


async def test_a_connection_that_is_open(place: Place) -> None:
    found = await place.json("/v1/connections/open")
    assert found["state"] == "open"
    assert found["minutes"] == 61
    assert found["proof_of_life"] == rfc3339(MONTH_END + 30_000)
    assert found["ended_at"] is None
    assert found["reason"] is None
    assert found["domain"] == "chat.example.com"
    assert found["client_network"] == "192.0.2.0/24"


async def test_a_connection_with_every_event(place: Place) -> None:
    found = await place.json("/v1/connections/crossing")
    assert (found["state"], found["reason"], found["closed_by"]) == (
        "closed",
        "client_closed",
        "client",
    )
    assert (found["close_code"], found["minutes"], found["elapsed_ms"]) == (1000, 3, 120_001)
    assert found["ended_at"] == rfc3339(MONTH_END + 30_001)
    events = found["events"]
    assert [(e["type"], e["seq"], e["effect"]) for e in events] == [
        ("accepted", 0, "counted"),
        ("bytes", 1, "counted"),
        ("closed", 2, "counted"),
    ]
    assert [e["event_id"] for e in events] == ["crossing-0", "crossing-1", "crossing-2"]
    assert events[1]["time"] == rfc3339(MONTH_END - 1)
    assert events[2]["req_body_bytes"] == 100
    assert events[2]["added"]["req_body_bytes"] == 50
    summed = {name: sum(e["added"][name] for e in events) for name in COUNTER_NAMES}
    assert summed == {name: found[name] for name in COUNTER_NAMES}
    page = await place.json("/v1/connections/crossing/events", limit="2")
    rest = await place.json(
        "/v1/connections/crossing/events", limit="2", cursor=page["meta"]["next_cursor"]
    )
    assert page["data"] + rest["data"] == events


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({}, ["recent", "crossing", "open", "usa"]),
        ({"state": "open"}, ["open"]),
        ({"state": "closed", "service_id": "a-1"}, ["crossing", "usa"]),
        ({"region": "usa"}, ["usa"]),
        ({"reason": "client_closed", "region": "asia"}, ["recent"]),
        ({"reason": "edge_lost"}, []),
        ({"edge": "edge-1", "service_id": "a-2"}, ["recent", "open"]),
        ({"edge": "edge-9"}, []),
        ({"from": rfc3339(MONTH_END), "to": rfc3339(MONTH_END + 1)}, ["crossing", "open"]),
        ({"to": rfc3339(HOUR + 1)}, ["usa"]),
    ],
)
async def test_connections_are_found(place: Place, query: dict[str, str], names: list[str]) -> None:
    body = await place.json("/v1/connections", **query)
    assert [row["connection_id"] for row in body["data"]] == names


async def test_minutes_in_a_range_add_up_to_the_invoice_line(place: Place) -> None:
    month = {"from": rfc3339(month_of(HOUR)), "to": rfc3339(MONTH_END)}
    rows = (await place.json("/v1/connections", **month, service_id="a-1"))["data"]
    inside = {row["connection_id"]: row["minutes_in_range"] for row in rows}
    assert inside == {"crossing": 2, "usa": 1}
    used = (await place.json("/v1/usage", **month, by="month", service_id="a-1"))["data"]
    assert sum(row["minutes"] for row in used) == sum(inside.values())


async def test_pages_of_connections_are_the_whole(place: Place) -> None:
    first = await place.json("/v1/connections", limit="3")
    rest = await place.json("/v1/connections", limit="3", cursor=first["meta"]["next_cursor"])
    names = [row["connection_id"] for row in first["data"] + rest["data"]]
    assert names == ["recent", "crossing", "open", "usa"]
    assert rest["meta"]["next_cursor"] is None


async def test_a_connection_can_be_ended(place: Place) -> None:
    async with place.system.client(place.tokens["engineer"]) as client:
        answer = await client.delete("/v1/connections/open", params={"reason": "maintenance"})
        assert answer.status_code == 202
        assert answer.json()["close_code"] == 1008
        assert answer.json()["reason"] == "maintenance"
        again = await client.delete("/v1/connections/crossing")
        assert again.status_code == 409
        assert "client_closed" in again.json()["detail"]
        assert (await client.delete("/v1/connections/bobs")).status_code == 404
        assert (await client.delete("/v1/connections/nothing")).status_code == 404

    async def asked() -> list[EndConnection]:
        return await place.system.controls()

    controls = await until(asked_once(asked), "the edges are asked")
    assert controls.subject == "connection/open"
    assert controls.data.connection_id == "open"
    assert controls.data.customer_id == "alice"
    assert controls.data.reason == "maintenance"
    assert (controls.data.expires_at - controls.time).total_seconds() == 300


def asked_once(asked: Any) -> Any:
    async def one() -> EndConnection | None:
        found = await asked()
        return found[0] if found else None

    return one


@pytest.mark.parametrize(("who", "status"), [("alice", 403), ("reader", 403), ("nobody", 401)])
async def test_who_may_not_end_connections(place: Place, who: str, status: int) -> None:
    async with place.system.client(place.tokens.get(who, "")) as client:
        answer = await client.delete("/v1/connections/open")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert await place.system.controls() == []


@pytest.mark.parametrize(
    ("path", "query", "status", "named"),
    [
        ("/v1/usage", {"by": "minute"}, 422, "by"),
        ("/v1/usage", {"colour": "red"}, 422, "colour"),
        ("/v1/usage", {"from": "soon"}, 400, "from"),
        ("/v1/usage", {"from": "now", "to": "1 day ago"}, 400, "from"),
        ("/v1/usage", {"region": "mars"}, 400, "region"),
        ("/v1/usage", {"limit": "0"}, 422, "limit"),
        ("/v1/usage", {"limit": "1001"}, 422, "limit"),
        ("/v1/usage", {"cursor": "nonsense"}, 400, "cursor"),
        ("/v1/connections", {"state": "ajar"}, 422, "state"),
        ("/v1/connections", {"reason": "boredom"}, 422, "reason"),
        ("/v1/connections", {"cursor": "WyJhIl0"}, 400, "cursor"),
        ("/v1/connections/open/events", {"limit": "x"}, 422, "limit"),
    ],
)
async def test_bad_calls_name_the_parameter(
    place: Place, path: str, query: dict[str, str], status: int, named: str
) -> None:
    answer = await place.get(path, **query)
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body["status"] == status
    assert named in [error["property"] for error in body["errors"]]


# --- Tenants ---


@pytest.mark.parametrize(
    "path",
    [
        "/stats/service/a-1",
        "/stats/service/a-1/field/requests",
        "/stats/service/unknown",
        "/v1/connections/open",
        "/v1/connections/open/events",
        "/v1/usage?service_id=a-1",
        "/v1/connections?service_id=a-1",
    ],
)
async def test_a_customer_never_sees_that_anothers_object_exists(place: Place, path: str) -> None:
    answer = await place.get(path, "bob")
    assert answer.status_code == 404


async def test_lists_hold_only_ones_own(place: Place) -> None:
    names = [r["connection_id"] for r in (await place.json("/v1/connections", "bob"))["data"]]
    assert names == ["bobs"]
    rows = (await place.json("/v1/usage", "bob", **RANGE))["data"]
    assert {row["service_id"] for row in rows} == {"b-1"}
    assert set((await place.json("/stats", "bob", **RANGE))["data"]) == {"b-1"}
    assert (await place.json("/stats/usage_by_service", "bob", **RANGE))["data"].keys() == {
        "europe"
    }
    every = (await place.json("/v1/connections", "operator"))["data"]
    assert len(every) == 5


async def test_only_an_operator_may_name_another_customer(place: Place) -> None:
    for path in ("/v1/usage", "/v1/connections", "/stats", "/stats/aggregate"):
        assert (await place.get(path, "bob", customer_id="alice")).status_code == 404
        assert (await place.get(path, "bob", customer_id="bob")).status_code == 200


async def test_without_a_token_nothing_is_told(place: Place) -> None:
    for path in ("/stats", "/v1/usage", "/v1/connections", "/v1/watermarks", "/v1/reconciliation"):
        assert (await place.get(path, "nobody")).status_code == 401


# --- Watermarks and reconciliation ---


async def test_watermarks_say_what_holds_a_month_open(place: Place) -> None:
    body = await place.json("/v1/watermarks", "operator")
    [edge] = body["data"]
    assert edge["edge_id"] == "edge-1"
    assert edge["through"] == rfc3339(MONTH_END + 30_000)
    assert (edge["accepted_total"], edge["closed_total"]) == (5, 4)
    assert all(partition["passed"] for partition in edge["partitions"])
    assert [one["through"] for one in body["slices"]] == [rfc3339(MONTH_END + 30_000)] * 2
    assert body["slices"][0]["lag"] == 0
    assert body["slices"][0]["held_by"][0]["edge_id"] == "edge-1"
    assert body["month"]["complete"] is False
    assert "edge-1" in body["month"]["held_by"][0]

    await place.edge.vouch(NOW_MS)

    async def is_complete() -> bool:
        found = await place.json("/v1/watermarks", "alice")
        return bool(found["month"]["complete"])

    await until(is_complete, "the last month is complete")
    seen = (await place.json("/v1/watermarks", "alice"))["data"][0]
    assert seen["accepted_total"] is None
    assert seen["open_connections"] is None


async def test_reconciliation(place: Place) -> None:
    body = await place.json("/v1/reconciliation", "operator")
    assert body == {
        "accepted": 5,
        "open": 1,
        "closed": 4,
        "lost": 0,
        "parked": 0,
        "balanced": True,
        "difference": 0,
        "edges": [
            {
                "edge_id": "edge-1",
                "accepted_total": 5,
                "closed_total": 4,
                "accepted_projected": 5,
                "closed_projected": 4,
                "accepted_missing": 0,
                "closed_missing": 0,
            }
        ],
    }
    mine = await place.json("/v1/reconciliation", "bob")
    assert (mine["accepted"], mine["open"], mine["closed"]) == (1, 0, 1)
    assert mine["edges"] is None
    place.edge.accepted |= {"never", "arrived"}
    await place.edge.vouch(MONTH_END + 40_000)

    async def is_missed() -> bool:
        return bool((await place.json("/v1/reconciliation", "operator"))["difference"] == 2)

    await until(is_missed, "what the edge delivered is missed")
    assert not (await place.json("/v1/reconciliation", "operator"))["balanced"]


async def test_the_published_client_can_read_the_statistics(place: Place) -> None:
    """Its own models take what it is answered."""
    from fastly.api_client import ApiClient
    from fastly.configuration import Configuration
    from fastly.model.historical_regions_response import HistoricalRegionsResponse
    from fastly.model.historical_stats_aggregated_response import HistoricalStatsAggregatedResponse
    from fastly.model.historical_stats_by_service_response import HistoricalStatsByServiceResponse
    from fastly.model.historical_usage_aggregated_response import HistoricalUsageAggregatedResponse
    from fastly.model.historical_usage_month_response import HistoricalUsageMonthResponse
    from fastly.model.historical_usage_service_response import HistoricalUsageServiceResponse
    from fastly.model_utils import validate_and_convert_types

    configuration = Configuration()
    ApiClient(configuration)
    for path, model in (
        ("/stats/regions", HistoricalRegionsResponse),
        ("/stats/service/a-1", HistoricalStatsAggregatedResponse),
        ("/stats/aggregate", HistoricalStatsAggregatedResponse),
        ("/stats", HistoricalStatsByServiceResponse),
        ("/stats/usage", HistoricalUsageAggregatedResponse),
        ("/stats/usage_by_service", HistoricalUsageServiceResponse),
        ("/stats/usage_by_month", HistoricalUsageMonthResponse),
    ):
        body = await place.json(path, **(RANGE if path.startswith("/stats/s") else {}))
        validate_and_convert_types(body, (model,), ["answer"], True, True, configuration)
