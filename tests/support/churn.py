"""Clients that come and go, as long as they are wanted."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

from support.witness import Load


@contextlib.asynccontextmanager
async def churning(load: Load, chance: random.Random) -> AsyncIterator[None]:
    """Clients come and go for as long as the context lasts; some stay."""

    over = asyncio.Event()

    async def churn() -> None:
        while not over.is_set():
            await load.open(chance.randint(2, 8), talk=0.3)
            await asyncio.sleep(chance.uniform(0.05, 0.3))
            there = load.open_ones
            if len(there) > 60:
                await load.close_some(chance.sample(there, 20))

    task = asyncio.create_task(churn())
    try:
        yield
    finally:
        # Not cancelled: a client that is just being let in must be on the record.
        over.set()
        await task
