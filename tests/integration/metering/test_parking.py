"""Records that must not be folded are kept, counted and said, until somebody decides."""

from pathlib import Path

from handoff_common import codec
from handoff_common.events import ParkedDecision, ParkedDecisionData
from handoff_common.instants import from_ms
from handoff_common.log import Message, Position
from handoff_common.minutes import HOUR_MS
from handoff_common.topics import CONNECTIONS
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
