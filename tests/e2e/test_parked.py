"""Records that cannot be folded, from `handoff parked` to an invoice that is proved from the log:
the proof leaves out and takes in what metering does."""

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from handoff_common import codec
from handoff_common.events import EdgeWatermark, Envelope, WatermarkData
from handoff_common.log import Message
from handoff_common.topics import CONNECTIONS, EDGES
from handoff_standalone.demo.recording import EDGE_ID, closed_month, connection_events
from handoff_standalone.rest import Api, CallFailed
from handoff_standalone.settings import StandaloneSettings
from handoff_standalone.system import system
from handoff_standalone.verification import prove
from support.parts.waiting import eventually

pytestmark = pytest.mark.timeout(120)
ENVIRON = {
    "HANDOFF_EDGE_HOST": "127.0.0.1",
    "HANDOFF_EDGE_PORT": "0",
    "HANDOFF_EDGE_ADMIN_PORT": "0",
    "HANDOFF_DRAIN_GRACE": "0",
    "HANDOFF_DRAIN_SPREAD": "0",
}


async def handoff(api: str, token: str, *arguments: str) -> tuple[int, str]:
    """The command as an operator runs it: exit status, and what it said."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "handoff_standalone", *arguments],
        env=os.environ | {"HANDOFF_API_URL": api, "HANDOFF_TOKEN": token},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


async def test_what_was_decided_is_in_the_invoice_and_in_its_proof(tmp_path: Path) -> None:
    settings = StandaloneSettings(data_dir=tmp_path, api_port=0)
    async with system(settings, ENVIRON) as one:
        token = (tmp_path / "operator-token").read_text().strip()
        api = one.endpoints.api_url
        start, end = closed_month(datetime.now(UTC))
        async with Api(api, token) as operator:
            body = {"name": "Recorded", "account_type": "paid", "billing_email": "r@example.com"}
            customer_id = (await operator.call("POST", "/v1/customers", body))["id"]

        def connection(minutes_before: int, elapsed_ms: int) -> list[Envelope]:
            accepted = end - timedelta(minutes=minutes_before)
            return list(connection_events(customer_id, "s", end, accepted, elapsed_ms, 5))

        # One whose end bears an instant that is ahead, one with an end that lies, and its own.
        first, ahead = connection(120, 90_000)
        second, honest = connection(110, 30_000)
        ahead = structs.replace(ahead, time=datetime.now(UTC) + timedelta(hours=1))
        lying = codec.encode(honest).replace(b'"elapsed_ms":30000', b'"elapsed_ms":99999999999999')
        messages = [
            Message("a", codec.encode(first)),
            Message("b", codec.encode(second)),
            Message("a", codec.encode(ahead)),
            Message("b", lying),
            Message("x", b"no event"),
            Message("b", codec.encode(honest)),
        ]
        places = await one.log.append(CONNECTIONS.name, messages)
        spots = [(str(place.partition), str(place.offset - 1)) for place in places[2:5]]

        async def all_parked() -> str | None:
            status, said = await handoff(api, token, "parked", "list", "--value")
            assert status == 0, said
            return said if said.count("skewed") == 2 and "malformed" in said else None

        assert "bm8gZXZlbnQ=" in await eventually(all_parked, "all are parked")
        for spot, decision in zip(spots, ("retry", "discard", "discard"), strict=True):
            arguments = ("parked", decision, *spot, "--reason", "looked at it")
            status, said = await handoff(api, token, *arguments)
            assert status == 0, said
            assert f"{decision} of {spot[0]}/{spot[1]}" in said
        status, said = await handoff(api, token, "parked", "retry", *spots[0], "--reason", "again")
        assert status == 1 and "was decided: retry, by" in said, said
        assert await handoff(api, token, "parked", "list") == (0, "nothing is parked\n")

        now = datetime.now(UTC)
        ends = {number: end for number, (_, end) in (await one.log.ends(CONNECTIONS.name)).items()}
        said_of_edge = WatermarkData(
            edge_id=EDGE_ID,
            region="europe",
            pop="fra1",
            through=now,
            positions={str(number): at for number, at in ends.items() if at},
            open_connections=0,
            accepted_total=2,
            closed_total=2,
            ended=True,
        )
        mark = EdgeWatermark(id="w", source="/e", subject=EDGE_ID, time=now, data=said_of_edge)
        await one.log.append(EDGES.name, [Message(EDGE_ID, codec.encode(mark))])

        async with Api(api, token) as operator:

            async def final() -> Any:
                query = {"customer_id": customer_id, "month": f"{start:%Y-%m}"}
                for draft in await operator.pages("/v1/invoices", limit="100", **query):
                    path = f"/v1/invoices/{draft['invoice_id']}"
                    if (await operator.call("GET", path))["minutes"] == 3:
                        try:
                            return await operator.call("POST", f"{path}/finalize", {})
                        except CallFailed:
                            return None
                return None

            invoice = await eventually(final, "the invoice of three minutes is final")
        proof = await prove(one.log, invoice["number"])
        assert proof.ok, proof.difference
        assert (proof.events, proof.unreadable) == (4, 2)
