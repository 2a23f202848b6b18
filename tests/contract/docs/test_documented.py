"""A setting or an endpoint that is not in the docs fails here."""

import re
from pathlib import Path

import pytest

from handoff_billing import wiring as billing
from handoff_billing.settings import BillingProcess, BillingSettings
from handoff_common.clock import SystemClock
from handoff_common.database import Database
from handoff_common.events import CLOSE_CODES
from handoff_common.log_kafka.__main__ import TopicSettings
from handoff_common.log_sqlite import SqliteLog
from handoff_common.settings import DatabaseSettings, Settings, documented
from handoff_common.topics import TOPICS
from handoff_config import wiring as config
from handoff_config.settings import ConfigProcess, ConfigSettings
from handoff_console.settings import ConsoleProcess
from handoff_edge.errors import STATUS, UNANSWERED
from handoff_metering import wiring as metering
from handoff_metering.settings import MeteringProcess, MeteringSettings
from handoff_standalone.gateway import service_of
from handoff_standalone.settings import COMMAND_LINE, every_model

DOCS = Path(__file__).parents[3] / "docs"
SHARED = {"/healthz", "/readyz", "/metrics"}


def test_every_setting_is_documented() -> None:
    text = (DOCS / "operations.md").read_text()
    models: tuple[type[Settings], ...] = (
        *every_model(),
        ConfigProcess,
        MeteringProcess,
        BillingProcess,
        ConsoleProcess,
        TopicSettings,
        DatabaseSettings,
    )
    named = {name for model in models for name, _, _ in documented(model)}
    assert not sorted(name for name in named if f"`{name}`" not in text)


def test_what_the_command_line_reads_is_documented() -> None:
    text = (DOCS / "operations.md").read_text()
    assert not [name for name in COMMAND_LINE if f"`{name}`" not in text]


def test_every_refusal_of_the_edge_is_documented() -> None:
    text = (DOCS / "edge.md").read_text()
    rows = re.findall(r"^\| `([a-z_0-9]+)` \| (\d{3}) \|", text, re.MULTILINE)
    assert {code: int(status) for code, status in rows} == STATUS
    assert not [code for code in UNANSWERED if f"| `{code}` |" not in text]


def test_every_refusal_says_what_to_do_about_it() -> None:
    text = (DOCS / "edge.md").read_text()
    answered = re.findall(
        r"^\| `([a-z_0-9]+)` \| \d{3} \| [^|]+ \| ([^|]+) \|$", text, re.MULTILINE
    )
    others = re.findall(r"^\| `([a-z_0-9]+)` \| [^|]+ \| ([^|]+) \|$", text, re.MULTILINE)
    assert dict(answered).keys() == STATUS.keys()
    assert dict(others).keys() == UNANSWERED
    assert not [code for code, told in answered + others if not re.fullmatch(r"[A-Z].+\.", told)]


def test_every_event_type_and_topic_is_documented() -> None:
    text = (DOCS / "events.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `handoff.")]
    for topic in TOPICS.values():
        [row] = [row for row in rows if row.startswith(f"| `{topic.name}` |")]
        for event in getattr(topic.events, "__args__", (topic.events,)):
            assert f"`{event.__struct_config__.tag}`" in row
        assert row.endswith(
            "| the last of each key |" if topic.cleanup == "compact" else "| for ever |"
        )


def test_every_reason_of_the_edge_is_documented_with_its_close_code() -> None:
    text = (DOCS / "edge.md").read_text()
    for reason, code in CLOSE_CODES.items():
        assert re.search(rf"\| `{reason.value}` \| {code} \|", text), reason


@pytest.fixture
async def endpoints(tmp_path: Path) -> dict[str, list[tuple[str, str]]]:
    """Service → (method, path) of all it serves."""
    log = await SqliteLog.open(tmp_path / "log.db")
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}")
    clock = SystemClock()
    services = [
        config.build(ConfigSettings(), log=log, database=database, clock=clock),
        metering.build(MeteringSettings(), log=log, database=database, clock=clock),
        billing.build(BillingSettings(), log=log, database=database, clock=clock),
    ]
    found = {
        service.name: [
            (method.upper(), path)
            for path, operations in service.app.openapi()["paths"].items()  # type: ignore[attr-defined]
            for method in operations
            if path not in SHARED
        ]
        for service in services
    }
    await log.close()
    await database.close()
    return found


def test_every_endpoint_is_documented(endpoints: dict[str, list[tuple[str, str]]]) -> None:
    text = (DOCS / "api.md").read_text()
    for served in endpoints.values():
        assert not [f"{m} {p}" for m, p in served if f"`{m} {p}`" not in text]


def test_the_gateway_sends_every_endpoint_to_its_service(
    endpoints: dict[str, list[tuple[str, str]]],
) -> None:
    for service, served in endpoints.items():
        assert not [path for _, path in served if service_of(path) != service]
