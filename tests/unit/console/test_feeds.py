"""Viewers of the same share one poll; tokens come and go; the APIs go away and come back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack

import pytest

from handoff_client import Unauthorized, Unreachable
from handoff_console.board import Event, View
from handoff_console.feeds import CHECK_AFTER, MOST_OF_ONE, Bearer, Feeds, Full, Seat, Topic

PATIENCE = 60.0
ANNA, BERT, CARL = (Bearer(name, "user", "c1", f"u-{name}") for name in ("anna", "bert", "carl"))


class World:
    """The APIs, the clock and the pause between polls, as the test says."""

    def __init__(self, most_viewers: int = 3) -> None:
        self.now = 100.0
        self.figure = 0
        self.away = False
        self.final = False
        self.revoked: set[Bearer] = set()
        self.polls: list[str] = []
        self.checked: list[Bearer] = []
        self.sources = 0
        self._pause = asyncio.Event()
        self.resting = asyncio.Event()
        self.feeds = Feeds(
            self.check,
            interval=2.0,
            most_viewers=most_viewers,
            now=lambda: self.now,
            sleep=self.sleep,
        )

    def topic(self, key: str = "k") -> Topic:
        def source() -> "Source":
            self.sources += 1
            return Source(self)

        return Topic(key, source)

    async def check(self, bearer: Bearer) -> bool:
        self.checked.append(bearer)
        return bearer not in self.revoked

    async def sleep(self, seconds: float) -> None:
        self.resting.set()
        await self._pause.wait()
        self._pause.clear()

    async def rest(self) -> None:
        """Until the poll that is under way has been, and no task has anything to do."""
        async with asyncio.timeout(5):
            while self.feeds.polls and not self.resting.is_set():
                await asyncio.sleep(0)

    async def tick(self, seconds: float = 2.0) -> None:
        """One more poll."""
        await self.rest()
        self.now += seconds
        self.resting.clear()
        self._pause.set()
        await self.rest()

    async def nobody(self) -> None:
        """Until no task is left."""
        async with asyncio.timeout(5):
            while self.feeds.polls:
                await asyncio.sleep(0)


class Source:
    def __init__(self, world: World) -> None:
        self._world = world

    async def poll(self, token: str) -> View:
        world = self._world
        world.polls.append(token)
        if token in {bearer.token for bearer in world.revoked}:
            raise Unauthorized("no such token", status=401)
        if world.away:
            raise Unreachable("away")
        return View({"figure": str(world.figure), "status": "live"}, final=world.final)

    def away(self) -> View:
        return View({"status": "away"})


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.feeds.stop()
    assert made.feeds.polls == 0


async def told(seat: Seat) -> dict[str, str]:
    events = await seat.next(PATIENCE)
    assert events is not None
    return {event.name: event.html for event in events}


async def test_all_who_look_at_the_same_share_one_poll(world: World) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(world.feeds.seat(world.topic(), ANNA))
        assert await told(first) == {"figure": "0", "status": "live"}
        second = stack.enter_context(world.feeds.seat(world.topic(), BERT))
        assert await told(second) == {"figure": "0", "status": "live"}, "told at once"
        world.figure = 1
        await world.tick()
        assert await told(first) == await told(second) == {"figure": "1"}
        assert (world.sources, world.feeds.polls, len(world.polls)) == (1, 1, 2)
    await world.nobody()
    assert world.feeds.viewers == 0, "nobody looks: nothing is polled"


async def test_another_customer_or_filter_is_another_poll(world: World) -> None:
    with world.feeds.seat(world.topic("a"), ANNA), world.feeds.seat(world.topic("b"), ANNA):
        assert world.feeds.polls == 2


async def test_nothing_is_told_while_nothing_changes(world: World) -> None:
    with world.feeds.seat(world.topic(), ANNA) as seat:
        await told(seat)
        await world.tick()
        assert await seat.next(0) == []


async def test_a_refused_token_ends_its_viewers_and_the_poll_goes_on(world: World) -> None:
    with ExitStack() as stack:
        gone, tab, stays = (
            stack.enter_context(world.feeds.seat(world.topic(), bearer))
            for bearer in (ANNA, ANNA, BERT)
        )
        for seat in (gone, tab, stays):
            await told(seat)
        world.revoked.add(ANNA)
        world.figure = 1
        await world.tick()
        await world.tick()
        assert await gone.next(PATIENCE) is None and await tab.next(PATIENCE) is None
        assert gone.ended == tab.ended == "revoked"
        assert await told(stays) == {"figure": "1"}
        world.polls.clear()
        await world.tick()
        assert world.polls == ["bert"]


async def test_who_is_revoked_is_noticed_though_others_poll(world: World) -> None:
    with ExitStack() as stack:
        seats = [
            stack.enter_context(world.feeds.seat(world.topic(), bearer))
            for bearer in (ANNA, BERT, CARL)
        ]
        await told(seats[2])
        world.revoked.add(CARL)
        # The poll comes to a token by turns; the check finds a changed role as well.
        await world.tick(CHECK_AFTER)
        await world.tick(0.1)
        assert set(world.checked) >= {ANNA, BERT}
        assert seats[2].ended == "revoked" and not seats[0].ended


async def test_where_the_last_token_is_refused_the_poll_ends(world: World) -> None:
    with world.feeds.seat(world.topic(), ANNA) as seat:
        await told(seat)
        world.revoked.add(ANNA)
        await world.rest()
        await world.tick()
        assert await seat.next(PATIENCE) is None
        assert world.feeds.polls == 0
        with world.feeds.seat(world.topic(), BERT) as other:
            assert (await told(other))["figure"] == "0", "whoever comes next begins another"


async def test_while_the_apis_are_away_it_says_so_and_goes_on_by_itself(world: World) -> None:
    with world.feeds.seat(world.topic(), ANNA) as seat:
        await told(seat)
        world.away = True
        await world.tick()
        assert await told(seat) == {"status": "away"}, "the figures stay"
        world.away, world.figure = False, 2
        await world.tick()
        assert await told(seat) == {"figure": "2", "status": "live"}


async def test_what_will_not_change_any_more_is_told_and_ends(world: World) -> None:
    world.final = True
    with world.feeds.seat(world.topic(), ANNA) as seat:
        assert (await told(seat))["figure"] == "0"
        assert await seat.next(PATIENCE) is None
        assert (seat.ended, len(world.polls)) == ("final", 1)


async def test_viewers_are_bounded(world: World) -> None:
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(world.feeds.seat(world.topic(), ANNA))
        with pytest.raises(Full), world.feeds.seat(world.topic(), BERT):
            pass
        assert world.feeds.viewers == 3
    with world.feeds.seat(world.topic(), BERT):
        assert world.feeds.viewers == 1


async def test_nobody_takes_the_places_of_the_others() -> None:
    """Whatever the filters are, each of which is a poll of its own, and however often one signs
    in."""
    world = World(most_viewers=10 * MOST_OF_ONE)
    with ExitStack() as stack:
        for number in range(MOST_OF_ONE):
            bearer = ANNA._replace(token=f"anna{number}")
            stack.enter_context(world.feeds.seat(world.topic(f"filter {number}"), bearer))
        with pytest.raises(Full), world.feeds.seat(world.topic("one more"), ANNA):
            pass
        stack.enter_context(world.feeds.seat(world.topic(), BERT))
        assert world.feeds.viewers == world.feeds.polls == MOST_OF_ONE + 1
    with world.feeds.seat(world.topic(), ANNA):
        assert world.feeds.viewers == 1
    await world.feeds.stop()


async def test_stopping_ends_every_stream_at_once(world: World) -> None:
    with world.feeds.seat(world.topic(), ANNA) as seat:
        await told(seat)
        waiting = asyncio.create_task(seat.next(PATIENCE))
        await asyncio.sleep(0)
        await world.feeds.stop()
        assert await waiting is None and seat.ended == "stopped"
        with pytest.raises(Full), world.feeds.seat(world.topic(), BERT):
            pass


async def test_a_fault_of_a_source_is_no_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(self: Source, token: str) -> View:
        raise ZeroDivisionError

    with world.feeds.seat(world.topic(), ANNA) as seat:
        await told(seat)
        monkeypatch.setattr(Source, "poll", broken)
        await world.tick()
        assert await told(seat) == {"status": "away"}
        monkeypatch.undo()
        await world.tick()
        assert await seat.next(PATIENCE) == [Event("status", "live")]
