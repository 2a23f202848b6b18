"""Records that must not be folded are kept, counted and said, until somebody decides."""

import asyncio
import base64
from pathlib import Path

from handoff_common import codec
from handoff_common.events import ParkedDecision, ParkedDecisionData
from handoff_common.instants import from_ms
from handoff_common.log import Message, Position
from handoff_common.minutes import HOUR_MS
from handoff_common.topics import CONNECTIONS
from handoff_metering.rebuild import rebuild, snapshot_tables
from support.metering_edge import Edge
from support.metering_system import MONTH_END, NOW_MS, System, system, until

HOUR = MONTH_END - HOUR_MS


async def decide(s: System, place: Position, what: str) -> None:
    event = ParkedDecision(
        id=f"{what}-{place.offset}",
        source="/operators",
        subject="parked",
        time=from_ms(MONTH_END),
        data=ParkedDecisionData(
            partition=place.partition,
            offset=place.offset - 1,
            decision="retry" if what == "retry" else "discard",
            reason="looked at it",
            decided_by="me",
        ),
    )
    message = Message("parked", codec.encode(event), place.partition)
    await s.log.append(CONNECTIONS.name, [message])


async def parked(s: System, token: str) -> int:
    async with s.client(token) as client:
        return int((await client.get("/v1/reconciliation")).json()["parked"])


async def test_what_cannot_be_folded_waits_for_a_decision(tmp_path: Path) -> None:
    async with system(tmp_path) as s, s.metering():
        operator = await s.token("operator")
        owner = await s.token("user", "customer-1")
        other = await s.token("user", "customer-2")
        edge = Edge(s.log)
        ahead = edge.script(NOW_MS + 30 * HOUR_MS, "ahead").accepted()
        # Its `time` is honest about an instant that its data is not.
        liar = edge.script(HOUR, "liar").bytes(60_000)
        lying = codec.encode(liar).replace(b'"elapsed_ms":60000', b'"elapsed_ms":99999999999999')
        places = await s.log.append(
            CONNECTIONS.name,
            [
                Message("ahead", codec.encode(ahead)),
                Message("liar", lying),
                Message("broken", b"\xff\xfe"),
            ],
        )
        await edge.append(edge.script(HOUR, "good").accepted())
        await edge.vouch(HOUR)
        await s.caught_up()
        assert (await s.total()).opened == 1
        assert await parked(s, operator) == 3
        assert await parked(s, owner) == 2
        assert await parked(s, other) == 0

        async def is_said() -> bool:
            counts: dict[str, int] = {}
            for said in (await s.progress()).values():
                for customer, count in said.parked.items():
                    counts[customer] = counts.get(customer, 0) + count
            # Each slice speaks to both partitions of the usage topic.
            return counts == {"customer-1": 4, "": 2}

        await until(is_said, "billing is told whose records are parked")

        await decide(s, places[0], "retry")
        await decide(s, places[1], "discard")
        await decide(s, places[2], "retry")
        await s.caught_up()
        assert (await s.total()).opened == 2
        assert await parked(s, operator) == 1
        assert await parked(s, owner) == 0
        async with s.client(operator) as client:
            balance = (await client.get("/v1/reconciliation")).json()
        assert not balance["balanced"]


async def test_an_operator_decides_over_the_api(tmp_path: Path) -> None:
    async with system(tmp_path) as s, s.metering():
        operator = await s.token("operator")
        owner = await s.token("superuser", "customer-1")
        edge = Edge(s.log)
        ahead = edge.script(NOW_MS + 30 * HOUR_MS, "ahead").accepted()
        broken = b"\xff\xfe"
        places = await s.log.append(
            CONNECTIONS.name,
            [
                Message("ahead", codec.encode(ahead)),
                Message("broken", broken),
                Message("ahead", codec.encode(edge.script(NOW_MS + 31 * HOUR_MS, "x").accepted())),
            ],
        )
        ahead_at, broken_at, second = [(p.partition, p.offset - 1) for p in places]
        await s.caught_up()

        def path(at: tuple[int, int]) -> str:
            return f"/v1/parked/{at[0]}/{at[1]}/decision"

        async with s.client(owner) as client:
            assert (await client.get("/v1/parked")).status_code == 403
            body = {"decision": "discard", "reason": "mine"}
            assert (await client.post(path(ahead_at), json=body)).status_code == 403
        async with s.client(operator) as client:
            listed = (await client.get("/v1/parked")).json()["data"]
            assert [(r["partition"], r["offset"]) for r in listed] == sorted(
                [ahead_at, broken_at, second]
            )
            found = {(r["partition"], r["offset"]): r for r in listed}
            assert found[ahead_at]["customer_id"] == "customer-1"
            assert found[broken_at]["customer_id"] is None
            assert {found[ahead_at]["kind"], found[broken_at]["kind"]} == {"skewed", "malformed"}
            assert found[broken_at]["value"] is None and found[broken_at]["key"] == "broken"
            rows, query = [], {"limit": "1", "value": "true"}
            while query.get("cursor", "") is not None:
                page = (await client.get("/v1/parked", params=query)).json()
                rows += page["data"]
                query["cursor"] = page["meta"]["next_cursor"]
            assert [(r["partition"], r["offset"]) for r in rows] == sorted(found)
            values = {(r["partition"], r["offset"]): r["value"] for r in rows}
            assert base64.b64decode(values[broken_at]) == broken

            looked = {"decision": "retry", "reason": "the host's clock was wrong"}
            done = await client.post(path(ahead_at), json=looked)
            assert done.status_code == 200, done.text
            assert done.json()["status"] == "decided"
            assert done.json()["decided_by"] == "someone@example.com"
            assert (await s.total()).opened == 1
            again = await client.post(path(ahead_at), json=looked | {"decision": "discard"})
            assert again.status_code == 409
            assert again.json()["type"].endswith(":already_decided")
            assert "someone@example.com" in again.json()["detail"]
            vain = await client.post(path(broken_at), json=looked)
            assert vain.status_code == 409
            assert vain.json()["type"].endswith(":cannot_be_retried")
            gone = await client.post(path(broken_at), json=looked | {"decision": "discard"})
            assert gone.status_code == 200
            none = await client.post(f"/v1/parked/0/{10**6}/decision", json=looked)
            assert none.status_code == 404
            for wrong in ({}, looked | {"reason": " "}, looked | {"decision": "drop"}):
                assert (await client.post(path(broken_at), json=wrong)).status_code == 422

            # Two at once: one decision counts, the other is told which.
            both = await asyncio.gather(
                client.post(path(second), json=looked),
                client.post(path(second), json=looked | {"decision": "discard"}),
            )
            assert sorted(answer.status_code for answer in both) == [200, 409]
            assert (await client.get("/v1/parked")).json()["data"] == []
        live = await snapshot_tables(s.database)
        decided_by = [row["decided_by"] for row in live["parked_decisions"]]
        assert decided_by == ["someone@example.com"] * 3
    async with system(tmp_path) as s:
        await rebuild(s.settings, log=s.log, database=s.database, clock=s.clock)
        assert await snapshot_tables(s.database) == live, "a replay decides the same"
