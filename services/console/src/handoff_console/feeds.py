"""Live pages: all who look at the same share one poll of the APIs.

A `Feed` is one task per topic (a customer and what is looked at). It polls while anybody has a seat
and shows the outcome on a `Board`; a seat waits for what is newer than it has seen. The task bears
the token of one who looks, of each in turn, so that a token that was revoked is noticed soon; who
has it loses the seat, and the poll goes on with another's. Where the APIs are away the page says
so, and the next poll tries again.

Nothing of HTTP is known here: the source, the check of a token, and time are arguments.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from handoff_client import HandoffApiError, Unauthorized
from handoff_common.telemetry import get_logger
from handoff_console.board import Board, Event, View

POLL_SECONDS = 10.0
"""A poll that takes longer is given up."""
CHECK_AFTER = 10.0
"""Seconds between two checks of one who looks."""
_CHECKS_AT_ONCE = 8
MOST_OF_ONE = 20
"""Live pages of one user: each may be a poll of its own, which all others wait behind."""


class Bearer(NamedTuple):
    """Who looks: the token, and what its user was when the viewer signed in. user_id: by which
    places are counted; an operator's token has the id of no user, and is counted by itself."""

    token: str
    role: str
    customer_id: str | None
    user_id: str


class Source(Protocol):
    """Where a feed's figures come from; it may remember what changes seldom."""

    async def poll(self, token: str) -> View:
        """What is to be shown now. Raises HandoffApiError."""

    def away(self) -> View:
        """What is to be shown of it while the APIs cannot be asked."""


Check = Callable[[Bearer], Awaitable[bool]]
"""Whether the token is in force and its user still is what it was. Raises HandoffApiError."""


class Topic(NamedTuple):
    """key: who may share it: equal keys see the same."""

    key: Hashable
    source: Callable[[], Source]


class Full(Exception):
    """As many viewers as the process serves are looking, or as many of them are one user."""


class Seat:
    """One viewer of a feed. ended: why no more will come: `revoked`, `final` or `stopped`."""

    def __init__(self, board: Board, bearer: Bearer) -> None:
        self._board = board
        self.bearer = bearer
        self.ended = ""
        self._seen = 0
        self._news = asyncio.Event()

    async def next(self, patience: float) -> list[Event] | None:
        """What is new, as soon as there is something; nothing after `patience` seconds; None when
        no more will come."""
        if not (events := self._taken()) and not self.ended:
            try:
                async with asyncio.timeout(patience):
                    await self._news.wait()
            except TimeoutError:
                return []
            events = self._taken()
        return None if self.ended and not events else events

    def _taken(self) -> list[Event]:
        self._news.clear()
        if self.ended in ("revoked", "stopped"):
            return []
        events, self._seen = self._board.since(self._seen), self._board.version
        return events

    def wake(self) -> None:
        self._news.set()

    def end(self, why: str) -> None:
        self.ended = self.ended or why
        self._news.set()


class Feed:
    """The one poll of a topic. over: its task takes no more seats."""

    def __init__(
        self,
        topic: Topic,
        check: Check,
        *,
        interval: float,
        now: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.key = topic.key
        self.seats: set[Seat] = set()
        self.over = False
        self._board = Board()
        self._source = topic.source()
        self._check = check
        self._interval = interval
        self._now = now
        self._sleep = sleep
        self._polled: dict[Bearer, float] = {}
        self._checked: dict[Bearer, float] = {}
        self._logger = get_logger("console.feeds")

    def join(self, bearer: Bearer) -> Seat:
        """bearer: of a token that was found in force just now."""
        seat = Seat(self._board, bearer)
        self.seats.add(seat)
        self._checked.setdefault(bearer, self._now())
        return seat

    async def run(self) -> None:
        """Until nobody looks, nothing will change, or it is cancelled."""
        why = "stopped"
        try:
            while self._bearers():
                try:
                    if await self._once():
                        why = "final"
                        return
                except Exception:
                    # A fault of ours must not leave the viewers with figures that stand still.
                    self._logger.exception("poll_failed")
                    self._show(self._source.away())
                if self._bearers():
                    await self._sleep(self._interval)
        finally:
            self.over = True
            for seat in self.seats:
                seat.end(why)

    async def _once(self) -> bool:
        """One poll, with another's token where one is refused. Whether it was the last."""
        while bearers := self._bearers():
            bearer = min(bearers, key=lambda one: self._polled.get(one, 0.0))
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    view = await self._source.poll(bearer.token)
            except Unauthorized:
                self._refuse(bearer)
                continue
            except (HandoffApiError, TimeoutError):
                self._show(self._source.away())
                return False
            self._polled[bearer] = self._now()
            self._show(view)
            if not view.final:
                await self._check_due()
            return view.final
        return False

    def _show(self, view: View) -> None:
        if self._board.put(view):
            for seat in self.seats:
                seat.wake()

    def _bearers(self) -> set[Bearer]:
        found = {seat.bearer for seat in self.seats if not seat.ended}
        for known in (self._polled, self._checked):
            for gone in known.keys() - found:
                del known[gone]
        return found

    def _refuse(self, bearer: Bearer) -> None:
        for seat in self.seats:
            if seat.bearer == bearer:
                seat.end("revoked")

    async def _check_due(self) -> None:
        """Polls bear one token each, and do not say what its user has become."""
        since = self._now() - CHECK_AFTER
        due = [one for one in self._bearers() if self._checked.get(one, 0.0) <= since]
        due.sort(key=lambda one: self._checked.get(one, 0.0))
        await asyncio.gather(*(self._check_one(one) for one in due[:_CHECKS_AT_ONCE]))

    async def _check_one(self, bearer: Bearer) -> None:
        try:
            async with asyncio.timeout(POLL_SECONDS):
                in_force = await self._check(bearer)
        except Unauthorized:
            in_force = False
        except (HandoffApiError, TimeoutError):
            # Nothing was said of the token; the next poll says that the APIs are away.
            return
        self._checked[bearer] = self._now()
        if not in_force:
            self._refuse(bearer)


class Feeds:
    """All feeds of a process, and their tasks. interval: seconds between two polls of one."""

    def __init__(
        self,
        check: Check,
        *,
        interval: float,
        most_viewers: int,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._check = check
        self._interval = interval
        self._most = most_viewers
        self._now = now
        self._sleep = sleep
        self._feeds: dict[Hashable, Feed] = {}
        self._tasks: dict[Feed, asyncio.Task[None]] = {}
        self._seats: set[Seat] = set()
        self._stopped = False

    @property
    def viewers(self) -> int:
        return len(self._seats)

    @property
    def polls(self) -> int:
        """Tasks that are going on."""
        return len(self._tasks)

    @contextmanager
    def seat(self, topic: Topic, bearer: Bearer) -> Iterator[Seat]:
        """A viewer's place, for as long as it looks. Raises Full."""
        if len(self._seats) >= self._most or self._stopped:
            raise Full
        if sum(one.bearer.user_id == bearer.user_id for one in self._seats) >= MOST_OF_ONE:
            raise Full
        feed = self._feeds.get(topic.key)
        if feed is None or feed.over:
            feed = self._begin(topic)
        seat = feed.join(bearer)
        self._seats.add(seat)
        try:
            yield seat
        finally:
            self._seats.discard(seat)
            feed.seats.discard(seat)
            if not feed.seats:
                self._leave(feed)

    def _begin(self, topic: Topic) -> Feed:
        feed = Feed(topic, self._check, interval=self._interval, now=self._now, sleep=self._sleep)
        self._feeds[topic.key] = feed
        # It begins to run when its first seat is taken: nothing awaits between.
        self._tasks[feed] = task = asyncio.create_task(feed.run(), name="feed")
        task.add_done_callback(lambda _: self._tasks.pop(feed, None))
        task.add_done_callback(lambda _: self._leave(feed))
        return feed

    def _leave(self, feed: Feed) -> None:
        """Whoever comes next begins another one."""
        if self._feeds.get(feed.key) is feed:
            del self._feeds[feed.key]
        feed.over = True
        if (task := self._tasks.get(feed)) is not None:
            task.cancel()

    async def stop(self) -> None:
        """End every stream and every task; nobody gets a seat from now on."""
        self._stopped = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for seat in self._seats:
            seat.end("stopped")
