"""Every test of this folder runs on each event loop and each implementation of the relay."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trustme
import uvloop

from contract.relay.peers import Clock, Rig, Secrets, identity_of
from handoff_relay import IMPLEMENTATIONS, load


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=list(IMPLEMENTATIONS))
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    """After each test: no fault reached the event loop, and every socket was closed."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _loop, context: complaints.append(context)
    )
    before = set(os.listdir("/proc/self/fd"))
    clock = Clock()
    rig = Rig(request.param, load(request.param)(time_ns=clock, tick_ms=5), clock, complaints, [])
    yield rig
    for remote in rig.remotes:
        remote.close()
    await rig.relay.close()
    assert rig.relay.open_tunnels == 0
    assert not complaints
    left = {
        fd: os.readlink(f"/proc/self/fd/{fd}")
        for fd in set(os.listdir("/proc/self/fd")) - before
        if os.path.exists(f"/proc/self/fd/{fd}")
    }
    assert not [target for target in left.values() if target.startswith(("socket", "anon"))], left


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def certified(authority: trustme.CA) -> trustme.LeafCert:
    return authority.issue_cert("origin.test")


@pytest.fixture(scope="session", params=["tls1.2", "tls1.3"])
def secrets(
    request: pytest.FixtureRequest,
    authority: trustme.CA,
    certified: trustme.LeafCert,
    tmp_path_factory: pytest.TempPathFactory,
) -> Secrets:
    """The far peers speak one version only."""
    version = ssl.TLSVersion.TLSv1_2 if request.param == "tls1.2" else ssl.TLSVersion.TLSv1_3
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.configure_trust(client)
    certified.configure_cert(server)
    for context in (client, server):
        context.minimum_version = context.maximum_version = version
    roots = tmp_path_factory.mktemp("roots") / "ca.pem"
    authority.cert_pem.write_to_path(str(roots))
    return Secrets(client, server, identity_of(certified, "origin.test"), roots)
