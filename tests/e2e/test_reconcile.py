"""`handoff reconcile` as an operator runs it, on the embedded system."""

import asyncio
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from support.embedded import Embedded, make_tenant
from support.witness import Load

pytestmark = pytest.mark.timeout(120)


async def reconcile(system: Embedded, *arguments: str) -> tuple[int, str]:
    """Exit status, and what it said."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "handoff_standalone", "reconcile", *arguments],
        env=os.environ
        | {"HANDOFF_API_URL": system.api_url, "HANDOFF_TOKEN": system.operator_token},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


async def test_a_witness_file_balances_and_each_difference_is_named(
    system: Embedded, echo_origin: int, tmp_path: Path
) -> None:
    tenant = await make_tenant(system, origin_port=echo_origin)
    others = await make_tenant(system, origin_port=echo_origin, domain="other.example.com")
    load, other = Load(system.edge_port, tenant.domain), Load(system.edge_port, others.domain)
    await load.open(30, talk=0.2)
    await other.open(5)
    file = tmp_path / "witness.jsonl"
    customer = ("--customer", tenant.customer_id)
    # Also while they are open: as far as the last watermark.
    load.write(file)
    status, said = await reconcile(system, str(file), *customer, "--wait", "30", "--slack-ms=4000")
    assert status == 0 and "balanced" in said, said
    await load.close_all()
    await other.close_all()
    file.unlink()
    load.write(file)
    status, said = await reconcile(
        system, str(file), *customer, "--wait", "30", "--slack-ms=4000", "--json"
    )
    assert status == 0, said
    report = json.loads(said)
    assert report["witnessed"] == report["recorded"] == 30
    assert report["billed_minutes"] == report["minutes"] >= 30
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    day = (
        *("--from", (now - timedelta(hours=2)).isoformat()),
        *("--to", (now + timedelta(hours=1)).isoformat()),
    )
    status, said = await reconcile(system, str(file), *customer, *day, "--slack-ms=4000")
    assert status == 0 and "NOT" not in said, said
    empty = ("--from", (now - timedelta(hours=9)).isoformat(), "--to", now.isoformat())
    if report["minutes"] and datetime.now(UTC) < now + timedelta(minutes=50):
        status, said = await reconcile(system, str(file), *customer, *empty)
        assert status == 0, said

    lines = file.read_text().splitlines()
    file.write_text("\n".join(lines[1:]) + "\n")
    status, said = await reconcile(system, str(file), *customer, "--slack-ms=4000")
    assert status == 1 and "different  not_seen" in said and "NOT balanced" in said, said
    file.write_text("\n".join([*lines, lines[0]]) + "\n")
    status, said = await reconcile(system, str(file), *customer, "--slack-ms=4000")
    assert status == 1 and "different  not_recorded" in said, said

    for text, expected in (
        ("{", "witness.jsonl, line 1: "),
        ("[]", "line 1: is no object"),
        (json.dumps({"opening_ns": "x"}), "line 1: opening_ns: 'x'; allowed: nanoseconds"),
    ):
        file.write_text(text + "\n")
        status, said = await reconcile(system, str(file), *customer)
        assert status == 1 and expected in said, said
    for arguments, expected in (
        ((), "nothing to compare with"),
        ((str(file), "--from", "2026-11-01T00:30:00Z"), "takes a full UTC hour"),
        (("--journal", str(tmp_path)), "holds no journal"),
    ):
        status, said = await reconcile(system, *arguments, *customer)
        assert status != 0 and expected in " ".join(said.split()), said
