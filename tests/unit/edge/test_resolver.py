"""Look-ups: whom they hold up, and how long what was found is good for."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from handoff_common.clock import ManualClock
from handoff_edge.errors import Refused
from handoff_edge.origin import Resolver

NOON = datetime(2026, 11, 10, 12, tzinfo=UTC)
NAME = "origin.test"


@dataclass(frozen=True)
class Asks:
    customer_id: str = "cus"
    service_id: str = "svc"


ME = Asks()


def at(address: str) -> Sequence[Any]:
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443))]


class Names:
    """A name server. answers: by name; an exception is raised, and who has none waits for ever."""

    def __init__(self) -> None:
        self.answers: dict[str, Sequence[Any] | Exception] = {}
        self.asked: list[str] = []
        self.waiting = 0

    async def look_up(self, host: str, port: int) -> Sequence[Any]:
        self.asked.append(host)
        answer = self.answers.get(host)
        if answer is None:
            self.waiting += 1
            try:
                await asyncio.Event().wait()
            finally:
                self.waiting -= 1
        assert answer is not None
        if isinstance(answer, Exception):
            raise answer
        return answer


class World:
    def __init__(self) -> None:
        self.clock = ManualClock(NOON)
        self.names = Names()
        self.resolver = Resolver(self.clock, self.names.look_up)
        self.tasks: list[asyncio.Task[Any]] = []

    async def begin(self, asker: Asks, *names: str) -> None:
        """Ask for names that nobody answers for."""
        resolve = self.resolver.resolve
        self.tasks += [asyncio.create_task(resolve(asker, name, 443)) for name in names]
        await self.turns()

    async def turns(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def ask(self, asker: Asks = ME, name: str = NAME) -> Any:
        """The address."""
        async with asyncio.timeout(1):
            found = await self.resolver.resolve(asker, name, 443)
        await self.turns()
        return found[0][4][0]


@pytest.fixture
async def w() -> AsyncIterator[World]:
    w = World()
    yield w
    w.resolver.close()
    for task in w.tasks:
        task.cancel()
    await asyncio.gather(*w.tasks, return_exceptions=True)


async def test_a_service_has_four_look_ups_under_way_at_most(w: World) -> None:
    await w.begin(ME, *(f"slow{n}.test" for n in range(4)))
    with pytest.raises(Refused) as raised:
        await w.ask()
    assert raised.value.refusal.code == "origin_lookup_busy"
    w.names.answers[NAME] = at("192.0.2.1")
    assert await w.ask(Asks(service_id="other")) == "192.0.2.1"


async def test_a_customers_services_have_eight_together(w: World) -> None:
    for number in range(8):
        await w.begin(Asks(service_id=f"svc{number}"), f"slow{number}.test")
    assert w.names.waiting == 8
    with pytest.raises(Refused) as raised:
        await w.ask(Asks(service_id="ninth"))
    assert raised.value.refusal.code == "origin_lookup_busy"
    w.names.answers[NAME] = at("192.0.2.1")
    assert await w.ask(Asks("another")) == "192.0.2.1"


async def test_who_waits_for_the_same_name_takes_no_place_of_its_own(w: World) -> None:
    await w.begin(ME, *["slow.test"] * 20)
    assert (w.names.asked, w.names.waiting) == (["slow.test"], 1)


async def test_a_place_is_free_again_behind_a_look_up_however_it_ends(w: World) -> None:
    for number in range(20):
        w.names.answers[f"{number}.test"] = socket.gaierror("no") if number % 2 else at("192.0.2.1")
        try:
            await w.ask(name=f"{number}.test")
        except Refused as error:
            assert error.refusal.code == "origin_lookup_failed"


async def test_what_is_not_fresh_is_served_while_it_is_looked_up_again(w: World) -> None:
    w.names.answers[NAME] = at("192.0.2.1")
    assert await w.ask() == "192.0.2.1"
    w.names.answers[NAME] = at("192.0.2.2")
    w.clock.advance(ms=29_999)
    assert await w.ask() == "192.0.2.1"
    assert len(w.names.asked) == 1
    w.clock.advance(ms=1)
    assert await w.ask() == "192.0.2.1"
    assert await w.ask() == "192.0.2.2"
    assert len(w.names.asked) == 2


async def test_a_name_that_works_is_not_held_up_by_look_ups_that_hang(w: World) -> None:
    w.names.answers[NAME] = at("192.0.2.1")
    await w.ask()
    del w.names.answers[NAME]
    w.clock.advance(seconds=30)
    for _ in range(3):
        assert await w.ask() == "192.0.2.1"
    assert w.names.asked == [NAME] * 2, "it is looked up again once"
    w.clock.advance(seconds=569)
    assert await w.ask() == "192.0.2.1"
    w.clock.advance(seconds=1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(w.resolver.resolve(ME, NAME, 443), 0.01)


async def test_a_bound_that_is_reached_leaves_what_was_found(w: World) -> None:
    w.names.answers[NAME] = at("192.0.2.1")
    await w.ask()
    w.clock.advance(seconds=30)
    await w.begin(ME, *(f"slow{n}.test" for n in range(4)))
    assert await w.ask() == "192.0.2.1"
    assert w.names.asked.count(NAME) == 1, "its own bound holds for looking up again, too"


async def test_a_failed_look_up_leaves_what_was_found_until_its_age(w: World) -> None:
    w.names.answers[NAME] = at("192.0.2.1")
    await w.ask()
    w.names.answers[NAME] = socket.gaierror("away")
    w.clock.advance(seconds=30)
    for _ in range(3):
        assert await w.ask() == "192.0.2.1"
    assert len(w.names.asked) == 2, "not again within a second of a failure"
    w.clock.advance(seconds=1)
    assert await w.ask() == "192.0.2.1"
    assert len(w.names.asked) == 3
    w.clock.advance(seconds=569)
    for _ in range(2):
        with pytest.raises(Refused) as raised:
            await w.ask()
        assert raised.value.refusal.code == "origin_lookup_failed"
    w.names.answers[NAME] = at("192.0.2.2")
    w.clock.advance(seconds=1)
    assert await w.ask() == "192.0.2.2"


async def test_a_close_ends_what_is_under_way_and_begins_nothing(w: World) -> None:
    w.names.answers[NAME] = at("192.0.2.1")
    await w.ask()
    await w.begin(ME, "slow.test")
    w.resolver.close()
    await w.turns()
    assert w.names.waiting == 0
    w.clock.advance(seconds=30)
    assert await w.ask() == "192.0.2.1"
    assert w.names.asked == [NAME, "slow.test"]
    with pytest.raises(Refused):
        await w.ask(name="new.test")
