"""Every test of this folder runs on asyncio's event loop and on uvloop's; after each, nothing may
have reached the loop's exception handler and no socket may be left."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def sockets() -> set[str]:
    """Inodes of this process's TCP sockets. Event loops have pairs of Unix sockets of their own."""
    found = set()
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{descriptor}")
            if target.startswith("socket:"):
                with socket.socket(fileno=os.dup(int(descriptor))) as sock:
                    if sock.family in (socket.AF_INET, socket.AF_INET6):
                        found.add(target)
        except OSError:
            continue
    return found


@pytest.fixture(autouse=True)
async def _nothing_left_behind() -> AsyncIterator[None]:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _loop, context: complaints.append(context)
    )
    before = sockets()
    yield
    deadline = asyncio.get_running_loop().time() + 5
    while sockets() - before and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.005)
    assert not complaints
    assert not sockets() - before
