"""A running billing service for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.billing_system import System


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[System]:
    made = System(tmp_path)
    await made.start()
    await made.people()
    yield made
    await made.stop()
