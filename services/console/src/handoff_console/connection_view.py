"""One connection, as a live source: its facts, its bytes, its timeline."""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, Literal, NamedTuple

from handoff_client import AsyncClient, connections
from handoff_client.connections import Connection, ConnectionDetail, Counters, Event
from handoff_console.board import View
from handoff_console.connection_cost import Rates
from handoff_console.context import Console
from handoff_console.figures import month_of
from handoff_console.live import CALL_SECONDS, SELDOM_SECONDS, Kept, rates_now, service_names

FIRST, LAST = 3, 20
"""Events that are shown of a long life."""
PATIENCE_SECONDS = 15
"""Edges end a connection within a second or two of being asked."""
_PAGE = 1_000
_TEMPLATE = "connection_live.html"


class One(NamedTuple):
    """Which connection, of whom, and whether money is shown. ending: when its viewer has asked the
    edges to end it, in seconds since the epoch."""

    customer_id: str
    connection_id: str
    with_cost: bool
    ending: int | None


Ending = Literal["", "ending", "still open"]


def ending(asked_at: int | None, now_ms: int) -> Ending:
    """How far the end that was asked for has come, of a connection that is open. No edge may be
    there that could end it; then it can be asked for again."""
    if asked_at is None:
        return ""
    return "ending" if now_ms - asked_at * 1_000 < PATIENCE_SECONDS * 1_000 else "still open"


class Flow(NamedTuple):
    """One of the four ways of bytes. headers: of the handshake. billed: whether it is bandwidth."""

    name: str
    headers: int
    body: int
    billed: bool

    @property
    def total(self) -> int:
        return self.headers + self.body


def flows_of(one: Counters) -> tuple[Flow, ...]:
    """What the edge sends is bandwidth, to clients and to origins."""
    return (
        Flow("Client to edge", one.req_header_bytes, one.req_body_bytes, False),
        Flow("Edge to client", one.resp_header_bytes, one.resp_body_bytes, True),
        Flow("Edge to origin", one.bereq_header_bytes, one.bereq_body_bytes, True),
        Flow("Origin to edge", one.beresp_header_bytes, one.beresp_body_bytes, False),
    )


class Moment(NamedTuple):
    """An event as the timeline shows it. kind: `accepted`, `bytes`, `closed`, or what a later
    release calls it. added: bytes, all kinds."""

    event: Event
    kind: str
    added: int


class Timeline(NamedTuple):
    """left_out: events between `first` and `last`."""

    first: Sequence[Moment]
    left_out: int
    last: Sequence[Moment]


class Events:
    """The first and the last events of a connection, as its pages come in."""

    def __init__(self) -> None:
        self._first: list[Event] = []
        self._behind: deque[Event] = deque(maxlen=LAST)
        self._count = 0

    def add(self, events: Iterable[Event]) -> None:
        for event in events:
            self._count += 1
            if len(self._first) < FIRST:
                self._first.append(event)
            else:
                self._behind.append(event)

    def with_tail(self, events: Sequence[Event]) -> Timeline:
        """Together with those of the page that is not whole yet."""
        every = Events()
        every._first, every._count = list(self._first), self._count
        every._behind = self._behind.copy()
        every.add(events)
        left_out = every._count - len(every._first) - len(every._behind)
        return Timeline(
            [moment_of(one) for one in every._first],
            left_out,
            [moment_of(one) for one in every._behind],
        )


def moment_of(event: Event) -> Moment:
    parts = event.type.split(".")
    kind = parts[2] if len(parts) > 2 else event.type
    return Moment(event, kind, sum(flow.total for flow in flows_of(event.added)))


class ConnectionSource:
    """A `feeds.Source`. found: by the last poll."""

    def __init__(self, console: Console, asked: One) -> None:
        self._client = console.client
        self._templates = console.templates
        self._clock = console.clock
        self._asked = asked
        self.found: ConnectionDetail | None = None
        self._events = Events()
        self._at: str | None = None
        self._names = Kept(self._clock, SELDOM_SECONDS, self._ask_names)
        self._rates = Kept(self._clock, SELDOM_SECONDS, self._ask_rates)

    async def poll(self, token: str) -> View:
        api = self._client(token, None)
        # The events are read behind the rest, so that they are no older.
        found, names, rates = await asyncio.gather(
            api.run(connections.get(self._asked.connection_id), timeout=CALL_SECONDS),
            self._names.get(api),
            self._rates.get(api),
        )
        timeline = await self._timeline(api)
        self.found = found
        cost = None if rates is None else rates.cost(found.region, found.minutes)
        name = names.get(found.service_id, found.service_id)
        return View(
            {
                "state": self._html("state", found, self._ending()),
                "figures": self._html("figures", found, *self._money(cost, rates)),
                "facts": self._html("facts", found, name),
                "bytes": self._html("flows", flows_of(found)),
                "timeline": self._html("timeline", timeline, found),
                "status": self._html("fine", _is_over(found)),
            },
            final=_is_over(found),
        )

    def away(self) -> View:
        return View({"status": self._html("away")})

    def _ending(self) -> Ending:
        return ending(self._asked.ending, self._clock.now_ms())

    def _money(self, cost: Decimal | None, rates: Rates | None) -> tuple[bool, Decimal | None, str]:
        return self._asked.with_cost, cost, "" if rates is None else rates.currency

    async def _timeline(self, api: AsyncClient) -> Timeline:
        """Each page once; the last one, which may grow, again."""
        listing = connections.events(self._asked.connection_id, limit=_PAGE)
        while True:
            page = await api.run(listing.page(self._at), timeout=CALL_SECONDS)
            if page.next is None or page.next == self._at:
                return self._events.with_tail(page.items)
            self._events.add(page.items)
            self._at = page.next

    def _html(self, macro: str, *values: Any) -> str:
        # Jinja's own text, escaped already; it stays one when it is stripped.
        html: str = getattr(self._templates.get_template(_TEMPLATE).module, macro)(*values)
        return html.strip()

    async def _ask_names(self, api: AsyncClient) -> dict[str, str]:
        return await service_names(api, self._asked.customer_id)

    async def _ask_rates(self, api: AsyncClient) -> Rates | None:
        if not self._asked.with_cost:
            return None
        return await rates_now(api, self._asked.customer_id, month_of(self._clock.now_ms()))


def _is_over(found: Connection) -> bool:
    """An end that nothing will correct."""
    return found.state == "closed" and not found.provisional
