"""Waiting for a condition with a deadline: what tests do instead of sleeping."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(
    ask: Callable[[], Awaitable[T | None]], what: str, *, seconds: float = 20.0
) -> T:
    """What `ask` returns once it is not None; fails after the deadline, saying `what` is not so."""
    deadline = time.monotonic() + seconds
    while True:
        found = await ask()
        if found is not None:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds} s it is still not so that {what}")
        await asyncio.sleep(0.05)
