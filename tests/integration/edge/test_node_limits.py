"""A service's limits hold for a node's workers together: never one more, and all it is allowed."""

import asyncio
import base64
import fcntl
import os
import random
import resource
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from handoff_common.errors import HandoffError
from handoff_common.events import Limits
from handoff_edge.errors import Refused
from handoff_edge.limits import ServiceCounts
from handoff_edge.node_counts import NodeCounts
from support.counting_worker import CountingWorker
from support.edge_events import request_bytes
from support.edge_world import Origin, RawClient, parse, soon
from support.parts.waiting import eventually

FIVE = Limits(max_connections=5)


def code_of(counts: ServiceCounts, limits: Limits, service_id: str = "s") -> str:
    """How a further connection is refused; empty where it is not (and it stays)."""
    try:
        counts.reserve(service_id, limits, 0)
    except Refused as error:
        return error.refusal.code
    return ""


def test_two_workers_share_a_limit_and_one_that_leaves_frees_its_part(tmp_path: Path) -> None:
    one, other = NodeCounts(tmp_path), NodeCounts(tmp_path)
    first, second = ServiceCounts(one), ServiceCounts(other)
    releases = [first.reserve("s", FIVE, 0) for _ in range(3)]
    assert [code_of(second, FIVE) for _ in range(3)] == ["", "", "too_many_connections"]
    releases[0]()
    assert [code_of(second, FIVE) for _ in range(2)] == ["", "too_many_connections"]
    assert code_of(second, FIVE, "another service") == ""
    other.close()
    assert [code_of(first, FIVE) for _ in range(4)] == ["", "", "", "too_many_connections"]
    third = NodeCounts(tmp_path)
    assert code_of(ServiceCounts(third), FIVE) == "too_many_connections"
    one.close()
    assert code_of(ServiceCounts(third), FIVE) == ""
    third.close()


def test_new_ones_are_counted_over_one_second_of_all_workers(tmp_path: Path) -> None:
    now = 50_000
    one, other = (NodeCounts(tmp_path, now_ms=lambda: now) for _ in range(2))
    first, second = ServiceCounts(one), ServiceCounts(other)
    limits = Limits(max_new_per_second=3)
    first.reserve("s", limits, 0)()
    assert [code_of(second, limits) for _ in range(3)] == ["", "", "too_many_new"]
    now += 999
    assert code_of(first, limits) == "too_many_new"
    now += 1
    assert [code_of(first, limits) for _ in range(4)] == ["", "", "", "too_many_new"]
    one.close()
    assert code_of(second, limits) == "too_many_new", "a worker is gone, what it began is not"
    other.close()


def test_connections_from_before_a_limit_count(tmp_path: Path) -> None:
    one, other = NodeCounts(tmp_path), NodeCounts(tmp_path)
    first, second = ServiceCounts(one), ServiceCounts(other)
    releases = [first.reserve("s", Limits(), 0) for _ in range(4)]
    assert [code_of(second, FIVE) for _ in range(2)] == ["", ""], "the other cannot know yet"
    first.catch_up(lambda _: FIVE)
    assert code_of(second, FIVE) == "too_many_connections"
    assert code_of(first, FIVE) == "too_many_connections"
    for release in releases[:2]:
        release()
    assert [code_of(first, FIVE) for _ in range(2)] == ["", "too_many_connections"]
    # Without catching up, a worker knows its own.
    for _ in range(5):
        second.reserve("t", Limits(), 0)
    assert code_of(second, FIVE, "t") == "too_many_connections"
    assert code_of(first, FIVE, "t") == "too_many_connections"
    one.close()
    other.close()


def test_a_service_whose_limit_is_gone_is_counted_until_it_has_no_connection(
    tmp_path: Path,
) -> None:
    one, other = NodeCounts(tmp_path), NodeCounts(tmp_path)
    first, second = ServiceCounts(one), ServiceCounts(other)
    first.reserve("s", FIVE, 0)
    for _ in range(4):
        first.reserve("s", Limits(), 0)
    assert code_of(second, FIVE) == "too_many_connections"
    one.close()
    other.close()


def test_a_lock_that_is_not_given_back_refuses_and_does_not_hang(tmp_path: Path) -> None:
    counts = NodeCounts(tmp_path)
    mine = ServiceCounts(counts)
    held = os.open(tmp_path / "table", os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    assert code_of(mine, FIVE) == "busy"
    began = time.monotonic()
    assert [code_of(mine, FIVE) for _ in range(20)] == ["busy"] * 20
    assert time.monotonic() - began < 1.0, "only the first waits"
    assert code_of(mine, Limits()) == "", "who has no limit does not ask"
    for number in range(100):
        mine.reserve(f"s{number}", Limits(), 0)
    began = time.monotonic()
    mine.catch_up(lambda _: FIVE)
    assert time.monotonic() - began < 0.5, "nor does each service wait"
    os.close(held)
    assert code_of(mine, FIVE) == ""
    counts.close()


def test_what_a_former_node_left_counts_for_nothing(tmp_path: Path) -> None:
    counts = NodeCounts(tmp_path)
    mine = ServiceCounts(counts)
    assert [code_of(mine, Limits(max_new_per_second=1)) for _ in range(2)] == ["", "too_many_new"]
    counts.close()
    again = NodeCounts(tmp_path)
    assert code_of(ServiceCounts(again), Limits(max_new_per_second=1)) == ""
    (tmp_path / "table").write_bytes(b"of another release")
    with pytest.raises(HandoffError, match="another release"):
        NodeCounts(tmp_path)


class Node:
    """Workers that count together, and every client that they let in."""

    def __init__(self, workers: list[CountingWorker]) -> None:
        self.workers = workers
        self._clients: list[RawClient] = []

    async def ask(self, worker: CountingWorker) -> RawClient | str:
        """A client behind its 101, or the code of the refusal."""
        client = RawClient(*await asyncio.open_connection("127.0.0.1", worker.port))
        self._clients.append(client)
        await client.send(request_bytes(key=base64.b64encode(os.urandom(16)).decode()))
        head = await client.head()
        if head.startswith(b"HTTP/1.1 101 "):
            return client
        client.writer.transport.abort()
        return parse(head)[1]["x-handoff-error"]

    async def ask_all(self, times: int) -> list[RawClient | str]:
        """So often, of each worker in turn."""
        return [await self.ask(self.workers[n % len(self.workers)]) for n in range(times)]

    def closed(self) -> None:
        for client in self._clients:
            client.writer.transport.abort()


@asynccontextmanager
async def node(folder: Path, workers: int, **limits: int) -> AsyncIterator[Node]:
    """Workers before one origin that echoes."""
    async with Origin().serving() as origin:
        started = await asyncio.gather(
            *(
                CountingWorker.start(folder / str(n), folder / "counts", origin.port, **limits)
                for n in range(workers)
            )
        )
        found = Node(started)
        try:
            yield found
        finally:
            found.closed()
            await asyncio.gather(*(worker.stop() for worker in started))


def let_in(answers: list[RawClient | str]) -> list[RawClient]:
    return [one for one in answers if isinstance(one, RawClient)]


async def test_clients_that_come_and_go_never_find_more_open_than_allowed(tmp_path: Path) -> None:
    limit = 12
    chance = random.Random(7)
    async with node(tmp_path, 3, max_connections=limit) as n:
        there: set[RawClient] = set()
        most, accepted, refused = 0, 0, 0

        async def come_and_go() -> None:
            nonlocal most, accepted, refused
            for _ in range(12):
                found = await n.ask(chance.choice(n.workers))
                if isinstance(found, str):
                    assert found == "too_many_connections"
                    refused += 1
                    continue
                accepted += 1
                there.add(found)
                most = max(most, len(there))
                await found.send(b"x")
                await found.exactly(1)
                there.discard(found)
                found.reset()

        await asyncio.gather(*(come_and_go() for _ in range(40)))
        assert most <= limit
        assert refused > 20 and accepted > 40, (accepted, refused)
        # Ends that the edge has not seen yet hold their places.
        deadline = time.monotonic() + 15
        clients = let_in(await n.ask_all(2 * limit))
        while len(clients) < limit and time.monotonic() < deadline:
            clients += let_in(await n.ask_all(2 * limit))
        assert len(clients) == limit


def test_out_of_descriptors_a_limit_is_kept_and_nobody_ends(tmp_path: Path) -> None:
    one, other = NodeCounts(tmp_path), NodeCounts(tmp_path)
    for _ in range(5):
        ServiceCounts(other).reserve("s", FIVE, 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    filled = [os.open(os.devnull, os.O_RDONLY)]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (filled[0] + 1, hard))
        with suppress(OSError):
            while True:
                filled.append(os.open(os.devnull, os.O_RDONLY))
        # Whether the other lives cannot be asked.
        assert code_of(ServiceCounts(one), Limits(max_connections=1)) == "too_many_connections"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in filled:
            os.close(descriptor)
    other.close()
    assert code_of(ServiceCounts(one), FIVE) == ""
    one.close()


async def test_a_killed_worker_gives_its_connections_back_at_once(tmp_path: Path) -> None:
    async with node(tmp_path, 3, max_connections=9) as n:
        assert len(let_in(await n.ask_all(9))) == 9
        assert await n.ask_all(3) == ["too_many_connections"] * 3
        await n.workers.pop(0).kill()
        found = await n.ask_all(5)
        assert [isinstance(one, RawClient) for one in found] == [True] * 3 + [False] * 2


async def test_workers_killed_while_all_are_busy_leave_the_limit_whole(tmp_path: Path) -> None:
    limit = 10
    chance = random.Random(3)
    async with node(tmp_path, 4, max_connections=limit) as n:
        over = asyncio.Event()
        there: dict[RawClient, CountingWorker] = {}
        killed: set[CountingWorker] = set()
        most = 0

        async def come_and_go() -> None:
            nonlocal most
            while not over.is_set():
                worker = chance.choice(n.workers)
                with suppress(OSError, EOFError):
                    found = await n.ask(worker)
                    if isinstance(found, str):
                        continue
                    there[found] = worker
                    most = max(most, sum(one not in killed for one in there.values()))
                    left = chance.randint(5, 50)
                    try:
                        # Nobody leaves before it has been full: who is refused waits for a while.
                        while not over.is_set() and (left > 0 or most < limit):
                            left -= 1
                            await found.send(b"x")
                            await found.exactly(1)
                    finally:
                        del there[found]
                        found.writer.transport.abort()

        async def filled() -> bool | None:
            return most >= limit or None

        async def filled_and_no_further() -> None:
            nonlocal most
            most = 0
            await eventually(filled, "all that is allowed is open", seconds=60)
            assert most == limit

        async with asyncio.TaskGroup() as clients:
            for _ in range(30):
                clients.create_task(come_and_go())
            try:
                await filled_and_no_further()
                for _ in range(2):
                    worker = n.workers.pop(0)
                    killed.add(worker)
                    await worker.kill()
                    await filled_and_no_further()
            finally:
                over.set()
        assert most == limit


async def test_new_connections_per_second_are_those_of_all_workers(tmp_path: Path) -> None:
    limit = 15
    async with node(tmp_path, 3, max_new_per_second=limit) as n:
        spans: list[tuple[float, float]] = []

        async def hammer(worker: CountingWorker) -> None:
            while len(spans) < 3 * limit:
                sent = time.monotonic()
                found = await n.ask(worker)
                if isinstance(found, str):
                    assert found == "too_many_new"
                    continue
                spans.append((sent, time.monotonic()))
                found.reset()

        began = time.monotonic()
        await soon(asyncio.gather(*(hammer(worker) for worker in n.workers * 3)))
        taken = time.monotonic() - began
        assert taken >= 1.99, "45 at 15 a second cannot come sooner"
        for start, _ in spans:
            # It began somewhere between the question and its answer; time is told in milliseconds.
            within = sum(start <= sent and got < start + 0.999 for sent, got in spans)
            assert within <= limit


async def test_a_limit_that_comes_later_counts_what_is_open(tmp_path: Path) -> None:
    async with node(tmp_path, 2) as n:
        one, other = n.workers
        for _ in range(4):
            assert isinstance(await n.ask(one), RawClient)
        for worker in n.workers:
            await worker.limit(max_connections=4)
        deadline = time.monotonic() + 15
        while isinstance(found := await n.ask(other), RawClient):
            assert time.monotonic() < deadline
            found.reset()
        assert found == "too_many_connections"
