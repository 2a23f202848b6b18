"""An edge dies with connections open and does not come back: `handoff journal forward` delivers
what its disk holds, and `handoff reconcile --journal` says before and after what is missing."""

import json
from pathlib import Path
from typing import Any

import pytest

from handoff_common import codec
from handoff_common.events import EdgeWatermark
from handoff_common.log import Partition
from handoff_common.log_kafka import KafkaLog
from handoff_common.topics import EDGES
from handoff_edge.journals import folders
from support.distributed import Distributed, distributed
from support.embedded import Tenant, make_tenant
from support.parts.kafka import Broker
from support.parts.postgres import Database
from support.parts.waiting import eventually
from support.reconciliation import reconciled
from support.witness import Load

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("fault-kafka")]


async def forward(system: Distributed, folder: Path, *more: str) -> tuple[int, str]:
    command = ("handoff_standalone", "journal", "forward", str(folder), *more)
    return await system.command("forward", *command, "--log", f"kafka://{system.bootstrap}")


async def missing(system: Distributed, tenant: Tenant, folder: Path) -> dict[str, Any]:
    """What `handoff reconcile --journal` reports; all that it asks is metering's."""
    found = await system.command(
        "reconcile",
        *("handoff_standalone", "reconcile", "--json", "--customer", tenant.customer_id),
        *("--journal", str(folder), "--api", f"http://127.0.0.1:{system.ports['metering']}"),
        *("--token", system.operator_token),
    )
    status, said = found
    report: dict[str, Any] = json.loads(said.strip().splitlines()[-1])
    assert status == (0 if report["balanced"] else 1)
    return report


async def last_watermarks(bootstrap: str) -> dict[str, Any]:
    log = KafkaLog(bootstrap)
    found = {}

    async def from_start(_: object) -> dict[Partition, int]:
        return {}

    subscription = log.subscribe([EDGES.name], group=None, positions=from_start)
    try:
        while not await subscription.caught_up():
            for batch in await subscription.fetch(max_records=1_000, timeout=0.5):
                for record in batch.records:
                    event = codec.decode(EDGES.name, record.value)
                    if isinstance(event, EdgeWatermark):
                        found[event.data.edge_id] = event.data
    finally:
        await subscription.close()
        await log.close()
    return found


async def test_the_journal_of_a_dead_edge_is_delivered(
    tmp_path: Path, origin: int, kafka: Broker, server: Database
) -> None:
    async with distributed(
        tmp_path / "system",
        kafka.bootstrap,
        server.address,
        environ={"HANDOFF_REGION": "asia", "HANDOFF_POP": "far-1"},
    ) as system:
        await system.start()
        tenant = await make_tenant(system, origin_port=origin)
        await system.edges_know()
        load = Load(system.edge_port, tenant.domain)
        await load.open(40, talk=0.3)
        data = system.folder / "edge"
        [folder] = folders(data)

        status, said = await forward(system, data)
        assert status == 1 and "is in use by process" in said and "delivers it itself" in said, said

        async def delivered() -> bool | None:
            report = await missing(system, tenant, data)
            return (report["held"] == 40 and report["balanced"]) or None

        await eventually(delivered, "all that the journal holds is known", seconds=60)

        # With the broker away, more happens than the log knows; then the edge dies.
        await kafka.kill()
        late = Load(system.edge_port, tenant.domain)
        await late.open(15, talk=0.3)
        await late.close_some(late.open_ones[:5])
        await system.kill("edge")
        await load.all_ended()
        await late.all_ended()
        assert load.refused == late.refused == 0
        # Its environment says nothing of where it was: its journal does.
        status, said = await forward(system, folder, "--timeout", "2")
        assert status == 1 and "NOT all of it is in the log" in said, said
        await kafka.restart()

        async def seen() -> dict[str, Any] | None:
            report = await missing(system, tenant, folder)
            return report if len(report["differences"]) == 55 else None

        gone = await eventually(seen, "all that was closed is missing", seconds=60)
        assert {d["code"] for d in gone["differences"]} == {"not_delivered"}

        status, said = await forward(system, folder)
        assert status == 0 and "all of it is in the log" in said, said
        edge_id = said.partition("edge ")[2].partition(",")[0]
        status, again = await forward(system, data)
        assert status == 0 and "0 connections closed" in again, again

        report = await reconciled(system, tenant, load, late)
        assert (report.witnessed, report.recorded) == (55, 55)
        assert {d.code for d in report.explained} <= {"billed_too_short"}
        assert (await missing(system, tenant, folder))["held"] == 0
        mark = (await last_watermarks(kafka.bootstrap))[edge_id]
        assert mark.ended and (mark.region, mark.pop) == ("asia", "far-1")
        assert (mark.accepted_total, mark.closed_total, mark.journal_backlog) == (55, 55, 0)
        assert system.logged("metering", "edge_lost") == []

        status, said = await forward(system, tmp_path)
        assert status == 1 and "holds no journal" in said
