"""One system for all tests in a browser: each has a customer of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.embedded import Embedded, shared


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All in one process, or each would start a system."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("browser"))


@pytest.fixture(scope="package")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    with shared(tmp_path_factory.mktemp("browser") / "data") as running:
        yield running
