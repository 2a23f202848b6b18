"""What the sources of live pages share: bounded calls, and answers that are kept a while."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Generic, TypeVar

from handoff_client import AsyncClient, HandoffApiError, Unauthorized, prices, services, usage
from handoff_client.answer import Answer
from handoff_client.call import Listing
from handoff_common.clock import Clock
from handoff_console.connection_cost import Rates, rates_of

T = TypeVar("T")
A = TypeVar("A", bound=Answer)

CALL_SECONDS = 5.0
"""One attempt of a call that a page repeats anyway."""
SELDOM_SECONDS = 30.0
"""How long names and prices are kept."""
_MOST_ROWS = 20_000

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


class Kept(Generic[T]):
    """An answer, asked for again when it is older than so many seconds."""

    def __init__(
        self, clock: Clock, seconds: float, ask: Callable[[AsyncClient], Awaitable[T]]
    ) -> None:
        self._clock = clock
        self._ms = seconds * 1_000
        self._ask = ask
        self._held: tuple[int, T] | None = None

    async def get(self, api: AsyncClient) -> T:
        """Raises HandoffApiError."""
        now = self._clock.now_ms()
        if self._held is None or now - self._held[0] >= self._ms:
            self._held = (now, await self._ask(api))
        return self._held[1]


async def all_of(api: AsyncClient, listing: Listing[A]) -> list[A]:
    """Every item of a list that is short by its nature, each page within CALL_SECONDS."""
    found: list[A] = []
    at = None
    while True:
        page = await api.run(listing.page(at), timeout=CALL_SECONDS)
        found += page.items
        if page.next is None or page.next == at or len(found) >= _MOST_ROWS:
            return found
        at = page.next


async def service_names(api: AsyncClient, customer_id: str) -> dict[str, str]:
    """Id → name of a customer's services; those that were deleted are not in it."""
    found = await all_of(api, services.listing(per_page=200, customer_id=customer_id))
    return {one.id: one.name for one in found}


async def rates_now(api: AsyncClient, customer_id: str, month: datetime) -> Rates | None:
    """What minutes cost where the month has come to; None where no prices are in force, or they
    cannot be told now: a page about connections does not fail for it."""
    try:
        pricing = await api.run(prices.pricing(customer_id), timeout=CALL_SECONDS)
        rows = await all_of(
            api, usage.listing(by="month", from_=month, customer_id=customer_id, limit=1_000)
        )
    except Unauthorized:
        raise
    except HandoffApiError:
        return None
    minutes: dict[str, int] = {}
    for row in rows:
        minutes[row.region] = minutes.get(row.region, 0) + row.minutes
    return rates_of(pricing.price_book, minutes)
