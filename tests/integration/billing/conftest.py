"""A running billing service for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.billing_system import System
from support.databases import Engine
from support.databases import engine as engine


@pytest.fixture
async def system(tmp_path: Path, engine: Engine) -> AsyncIterator[System]:
    made = System(tmp_path)
    await made.start()
    await made.people()
    yield made
    await made.stop()
