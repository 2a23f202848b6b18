"""One system for all tests of a module: each has a customer of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.embedded import Embedded, shared


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All in one process: a browser wants a core for itself."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("browser"))


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    with shared(tmp_path_factory.mktemp("browser") / "data") as running:
        yield running
