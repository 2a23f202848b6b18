"""Each test has its own config service, on a real log and database in a folder of its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from handoff_common.clock import SystemClock
from support.config_system import ConfigSystem, Tenant, config_system
from support.databases import Engine
from support.databases import engine as engine


@pytest.fixture
async def system(tmp_path: Path, engine: Engine) -> AsyncIterator[ConfigSystem]:
    async with config_system(tmp_path, SystemClock()) as running:
        yield running
        assert await running.store.differences() == []


@pytest.fixture
async def acme(system: ConfigSystem) -> Tenant:
    return await system.tenant("Acme")
