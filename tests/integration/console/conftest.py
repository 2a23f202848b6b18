"""The embedded system, one for all tests of a module; each has a customer of its own."""

import secrets
from collections.abc import Iterator

import pytest

from support.embedded import Embedded, Tenant, make_tenant, shared


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    with shared(tmp_path_factory.mktemp("console") / "data") as running:
        yield running


@pytest.fixture
async def tenant(system: Embedded) -> Tenant:
    domain = f"{secrets.token_hex(4)}.example.com"
    return await make_tenant(system, origin_port=9, domain=domain, enable=False)
