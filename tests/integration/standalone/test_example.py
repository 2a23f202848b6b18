"""`handoff up --example`, as `make run` has it: something to look at, from the first start on."""

import json
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from support.embedded import Embedded
from support.parts.waiting import eventually

pytestmark = pytest.mark.timeout(180)


async def kept(system: Embedded) -> dict[str, Any]:
    """The example's customer, once it is finished."""
    file = system.data / "example.json"

    async def finished() -> dict[str, Any] | None:
        system.process.check_running()  # type: ignore[union-attr]
        return json.loads(file.read_bytes())["customer"] if file.exists() else None

    return await eventually(finished, f"an example is there: {system.log_tail()}", seconds=60)


async def open_connections(system: Embedded, customer_id: str) -> int:
    async with system.api() as operator:
        found = await operator.pages("/v1/connections", customer_id=customer_id, state="open")
    return len(found)


async def test_a_new_folder_has_a_customer_an_invoice_and_clients_that_come_again(
    tmp_path: Path,
) -> None:
    system = Embedded(tmp_path / "data", arguments=("--example",))
    await system.start()
    customer = await kept(system)
    assert stat.S_IMODE((system.data / "example.json").stat().st_mode) == 0o600
    who = customer["customer_id"]

    async with system.api() as operator:
        [invoice] = [
            one
            for one in await operator.pages("/v1/invoices", customer_id=who, limit="100")
            if one["status"] == "final"
        ]
        signed_in = await operator.call(
            "POST",
            "/v1/sessions",
            {"login": "superuser@example.com", "password": customer["password"]},
        )
    assert invoice["number"] and signed_in["access_token"]

    async def clients() -> bool | None:
        return await open_connections(system, who) >= 5 or None

    await eventually(clients, "clients are connected", seconds=30)
    assert await system.stop() == 0

    await system.start()
    assert (await kept(system))["customer_id"] == who
    async with system.api() as operator:
        every = await operator.pages("/v1/customers")
    assert [one["id"] for one in every] == [who]
    await eventually(clients, "clients come again", seconds=30)
    assert await system.stop() == 0

    port = json.loads((system.data / "example.json").read_bytes())["origin_port"]
    with socket.create_server(("127.0.0.1", port)):
        await system.start()
        assert (await kept(system))["customer_id"] == who
        assert (
            f"port {port}, the example's origin, is taken"
            in (system.data / "system.log").read_text()
        )
        assert await system.stop() == 0


async def test_a_folder_with_data_of_its_own_is_left_as_it_is(tmp_path: Path) -> None:
    system = Embedded(tmp_path / "data")
    await system.start()
    async with system.api() as operator:
        await operator.call("POST", "/v1/customers", {"name": "Own", "account_type": "paid"})
    assert await system.stop() == 0

    system.arguments = ("--example",)
    await system.start()
    assert "has data of its own" in (system.data / "system.log").read_text()
    async with system.api() as operator:
        assert [one["name"] for one in await operator.pages("/v1/customers")] == ["Own"]
    assert not (system.data / "example.json").exists()
    assert await system.stop() == 0

    # As a kill leaves it in the middle of its making.
    (system.data / "example.json").write_text('{"origin_port": 9000, "customer": null}')
    await system.start()
    assert "was never finished" in (system.data / "system.log").read_text()
    assert await system.stop() == 0
