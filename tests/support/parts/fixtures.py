"""What tests ask for by name. `tests/conftest.py` loads this as a plugin.

    kafka            a broker of this test's own, to kill, pause and restart
    kafka_shared     host:port of the run's broker; for topics with names of one's own
    kafka_empty      the same, held by this test alone and without topics; for the fixed topic names
    postgres         a server of this test's own, durable, to kill and restart
    postgres_shared  the run's server; not durable
    database_url     a new, empty database on the run's server, dropped afterwards

A broker of one's own costs about 2 s, a server 2 s, a database 0.1 s. The topics' names are fixed
(`handoff_common.topics`), so two tests cannot use them on one broker at once: `kafka_empty` is held
by one test at a time, whatever the worker. Tests that use it belong in one group
(`pytest.mark.xdist_group("kafka")`), so that no worker stands waiting for it with a time-out
running.
"""

import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support import originals
from support.parts import choice, environment
from support.parts.kafka import Broker, delete_topics
from support.parts.postgres import Address, Database
from support.parts.shared import Run

RUN = pytest.StashKey[Run]()


def pytest_configure(config: pytest.Config) -> None:
    # Workers have the run from their environment; only its first process begins and ends it.
    if not hasattr(config, "workerinput"):
        environment.hide()
        config.stash[RUN] = Run.begin()


def pytest_sessionfinish() -> None:
    originals.remove()


def pytest_unconfigure(config: pytest.Config) -> None:
    if RUN in config.stash:
        config.stash[RUN].end()


def pytest_report_header() -> str:
    """Before the tests, without asking anybody: what would be used."""
    where = {
        name: choice.GIVEN[name]
        if choice.given(name)
        else ("Docker if it has the image" if choice.might_have_docker() else "this machine")
        for name in choice.GIVEN
    }
    return "real parts: " + ", ".join(f"{name}: {place}" for name, place in where.items())


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """After them: what was used."""
    if RUN in config.stash:
        for name in config.stash[RUN].used():
            terminalreporter.write_line(f"{name}: {choice.described(name)}")


@pytest.fixture
async def kafka(tmp_path: Path) -> AsyncIterator[Broker]:
    async with choice.new_broker(tmp_path / "kafka") as broker:
        yield broker


@pytest.fixture
def kafka_shared() -> str:
    return Run.current().address("kafka")


@pytest.fixture
async def kafka_empty(kafka_shared: str) -> AsyncIterator[str]:
    with Run.current().locked("kafka.topics"):
        await delete_topics(kafka_shared)
        yield kafka_shared


@pytest.fixture
async def postgres() -> AsyncIterator[Database]:
    async with choice.new_server() as server:
        yield server


@pytest.fixture
def postgres_shared() -> Address:
    return Address.parse(Run.current().address("postgres"))


@pytest.fixture
async def database_url(postgres_shared: Address) -> AsyncIterator[str]:
    name = f"test_{uuid.uuid4().hex}"
    await postgres_shared.create_database(name)
    yield postgres_shared.url(name)
    await postgres_shared.drop_database(name)
