"""The names of services that a page only has the ids of."""

import asyncio
from collections.abc import Iterable, Mapping

from handoff_client import NotFound, services
from handoff_console.context import Visit

_AT_ONCE = 8


async def names_of(visit: Visit, service_ids: Iterable[str]) -> Mapping[str, str]:
    """Id → name; without those that are deleted. Raises HandoffApiError."""
    turn = asyncio.Semaphore(_AT_ONCE)

    async def name(service_id: str) -> tuple[str, str] | None:
        async with turn:
            try:
                return service_id, (await visit.api.run(services.get(service_id))).name
            except NotFound:
                return None

    found = await asyncio.gather(*(name(one) for one in dict.fromkeys(service_ids)))
    return dict(one for one in found if one is not None)
