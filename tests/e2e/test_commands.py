"""The `handoff` command as a person runs it: each command in a process of its own."""

import asyncio
import contextlib
import json
import os
import sqlite3
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from handoff_standalone.rest import CallFailed
from support.embedded import Embedded

pytestmark = pytest.mark.timeout(180)


class Ran(NamedTuple):
    status: int
    out: str
    error: str

    @property
    def json(self) -> Any:
        assert self.status == 0, self.error
        return json.loads(self.out)


def plain(text: str) -> str:
    """A framed message without its frame."""
    return " ".join(text.replace("│", " ").split())


async def handoff(*arguments: str, given: str = "", **environ: str) -> Ran:
    """`given`: its standard input, which is no terminal."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HANDOFF_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "handoff_standalone", *arguments),
        env=kept | environ,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(100):
            out, error = await process.communicate(given.encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), error.decode())


async def test_the_demo_proves_its_invoice() -> None:
    ran = await handoff("demo")
    assert ran.status == 0, ran.out + ran.error
    assert "hash" in ran.out and "proved" in ran.out.lower()


async def test_admin_makes_what_a_customer_needs(system: Embedded, tmp_path: Path) -> None:
    async def admin(*arguments: str) -> Ran:
        environ = {"HANDOFF_API_URL": system.api_url, "HANDOFF_DATA_DIR": str(system.data)}
        return await handoff("admin", *arguments, **environ)

    customer = (await admin("customer", "Example GmbH")).json
    assert (await admin("customers")).json["data"][0]["name"] == "Example GmbH"
    contract = await admin("contract", customer["id"], "--starts-at", "2026-01-01T00:00:00Z")
    assert contract.json["product"] == "websockets"
    user = (await admin("user", customer["id"], "me@example.com", "--role", "billing")).json
    token = (await admin("token", user["id"])).json["access_token"]
    async with system.api(token) as api:
        [draft] = (await api.call("GET", "/v1/invoices"))["data"]
    held = await admin("finalize", draft["invoice_id"])
    assert held.status == 1 and "409 Invoice held" in held.error and "month_open" in held.error
    book = json.loads((files("handoff_billing") / "books" / "example.json").read_bytes())
    del book["version"]
    (tmp_path / "book.json").write_text(json.dumps(book | {"price_book_id": "other"}))
    assert (await admin("price-book", str(tmp_path / "book.json"))).json["version"] == 1
    listed = (await admin("price-books")).json["data"]
    assert {one["price_book_id"] for one in listed} == {"example", "other"}

    (tmp_path / "bad.json").write_text("{")
    for name, text in (("missing.json", "does not exist"), ("bad.json", "is not JSON")):
        refused = await admin("price-book", str(tmp_path / name))
        assert refused.status == 2 and text in plain(refused.error), refused.error
        assert "Traceback" not in refused.error
    foreign = await handoff("admin", "--api", system.api_url, "--token", "none", "customers")
    assert foreign.status == 1 and "401" in foreign.error


async def test_admin_sets_a_password_that_works_at_every_service(system: Embedded) -> None:
    where = {"HANDOFF_API_URL": system.api_url, "HANDOFF_DATA_DIR": str(system.data)}
    customer = (await handoff("admin", "customer", "Example GmbH", **where)).json
    user = (await handoff("admin", "user", customer["id"], "me@example.com", **where)).json
    first, second = "the first password", "the second password"
    ran = await handoff("admin", "password", user["id"], given=f"{first}\n", **where)
    assert ran.status == 0 and first not in ran.out + ran.error, ran.error

    async with system.api("none") as nobody:
        body = {"login": "me@example.com", "password": first}
        token = (await nobody.call("POST", "/v1/sessions", body))["access_token"]
    async with system.api(token) as me:
        for path in ("/current_user", "/v1/usage", "/service"):
            await me.call("GET", path)
        with pytest.raises(CallFailed, match="may not do this"):
            await me.call("GET", "/v1/invoices")

    own = ("admin", "--token", token, "password", user["id"])
    for given, text in (
        ("", "has no line"),
        (f"{second}\n", "current_password: is missing"),
        ("short\n", "has 5 characters"),
    ):
        refused = await handoff(*own, given=given, **where)
        assert refused.status != 0 and text in plain(refused.error), refused.error
        assert second not in refused.error and "Traceback" not in refused.error
    ran = await handoff(*own, "--own", given=f"{first}\n{second}\n", **where)
    assert ran.status == 0, ran.error
    assert (await handoff(*own, "--own", given=f"{first}\n", **where)).status != 0
    async with system.api(token) as me:
        with pytest.raises(CallFailed, match="401"):
            await me.call("GET", "/v1/usage")


async def test_a_stopped_systems_files_are_checked_rebuilt_and_saved(
    system: Embedded, tmp_path: Path
) -> None:
    assert await system.stop() == 0
    data = ("--data", str(system.data))
    whole = await handoff("log", "check", *data)
    assert whole.status == 0 and "records are readable, 0 are not" in whole.out
    (system.data / "metering.db").unlink()
    rebuilt = await handoff("rebuild", *data)
    assert rebuilt.status == 0, rebuilt.error
    assert "generation" in rebuilt.out and "0 events folded into 0 rows" in rebuilt.out

    # A record of a topic that keeps all its records, in place of one that a disk has lost.
    with contextlib.closing(sqlite3.connect(system.data / "log.db")) as raw:
        topic = raw.execute("SELECT id FROM topics WHERE name = 'handoff.invoices.v1'").fetchone()
        raw.execute("UPDATE heads SET next_offset = 2 WHERE topic = ? AND partition = 0", topic)
        raw.commit()
    damaged = await handoff("log", "check", *data)
    assert damaged.status == 1
    assert "handoff.invoices.v1[0] offsets 0 to 1: missing" in damaged.out
    target = tmp_path / "saved.db"
    saved = await handoff("log", "salvage", str(target), *data)
    assert saved.status == 1 and target.exists()
    again = await handoff("log", "salvage", str(target), *data)
    assert again.status == 2 and "exists" in again.error
    target.replace(system.data / "log.db")
    for beside in ("log.db-wal", "log.db-shm"):
        (system.data / beside).unlink(missing_ok=True)
    told = await handoff("log", "check", *data)
    assert told.status == 0 and "2 were lost in an earlier salvage" in told.out
    await system.start()
    async with system.api() as api:
        assert (await api.call("GET", "/readyz"))["status"] == "ok"


@pytest.mark.parametrize(
    "command", [["rebuild"], ["log", "check"], ["verify-invoice", "INV-1"]], ids=" ".join
)
async def test_a_folder_without_a_log_is_named(tmp_path: Path, command: list[str]) -> None:
    ran = await handoff(*command, "--data", str(tmp_path / "none"))
    assert ran.status == 1
    assert ran.error.strip().startswith(f"handoff: {tmp_path}/none/log.db is not there")
