"""What `handoff_client` asks for is what the services' documents have: method, path, query."""

import re
from pathlib import Path
from typing import Any

import pytest

from handoff_billing import wiring as billing
from handoff_billing.settings import BillingSettings
from handoff_client import backends, directors, websocket_rules
from handoff_common.clock import SystemClock
from handoff_common.database import Database
from handoff_common.log_sqlite import SqliteLog
from handoff_config import wiring as config
from handoff_config.settings import ConfigSettings
from handoff_metering import wiring as metering
from handoff_metering.settings import MeteringSettings
from handoff_standalone.gateway import service_of
from support.client_operations import COMING, Operation, operations

Document = dict[str, Any]


@pytest.fixture
async def documents(tmp_path: Path) -> list[Document]:
    log = await SqliteLog.open(tmp_path / "log.db")
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}")
    clock = SystemClock()
    services = [
        config.build(ConfigSettings(), log=log, database=database, clock=clock),
        metering.build(MeteringSettings(), log=log, database=database, clock=clock),
        billing.build(BillingSettings(), log=log, database=database, clock=clock),
    ]
    found = [one.app.openapi() for one in services]  # type: ignore[attr-defined]
    await log.close()
    await database.close()
    return found


def _shape(path: str) -> str:
    """The path without the names that stand in its braces."""
    return re.sub(r"\{[^}]*\}", "{}", path)


def _described(documents: list[Document], operation: Operation) -> Document | None:
    method, path = operation.place
    for document in documents:
        for template, methods in document["paths"].items():
            if _shape(template) == _shape(path) and method.lower() in methods:
                found: Document = methods[method.lower()]
                return found
    return None


def test_every_operation_is_there_and_takes_the_query(documents: list[Document]) -> None:
    wrong = []
    for operation in operations():
        described = _described(documents, operation)
        if described is None:
            if operation.place not in COMING:
                wrong.append(f"{operation.name}: nobody serves {' '.join(operation.place)}")
            continue
        taken = {one["name"] for one in described.get("parameters", ()) if one["in"] == "query"}
        unknown = {name for name, _ in operation.call.query} - taken
        if unknown:
            wrong.append(f"{operation.name}: {operation.place} takes no {sorted(unknown)}")
    assert not wrong


def test_the_gateway_knows_every_path() -> None:
    unknown = {
        operation.place for operation in operations() if service_of(operation.call.path) is None
    }
    assert unknown <= COMING


@pytest.mark.parametrize(
    ("path", "settings"),
    [
        ("/service/{service_id}/version/{version}/backend", backends.Settings),
        ("/service/{service_id}/version/{version}/director", directors.Settings),
        ("/service/{service_id}/version/{version}/websocket-rule", websocket_rules.Settings),
    ],
)
def test_settings_are_those_that_the_service_takes(
    documents: list[Document], path: str, settings: type
) -> None:
    body = documents[0]["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    assert set(body["schema"]["properties"]) == {"name", *settings.__annotations__}
