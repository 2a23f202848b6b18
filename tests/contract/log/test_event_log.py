"""What every EventLog promises, on each implementation."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import pytest

from handoff_common.errors import LogWriteFailed, PositionLost
from handoff_common.log import Batch, EventLog, Message, Partition, Position, Record, Subscription
from handoff_common.log_kafka import KafkaLog
from handoff_common.log_kafka.topics import Wanted, create
from handoff_common.log_sqlite import SqliteLog
from handoff_common.topics import CONNECTIONS, SERVICES
from support.parts.kafka import delete_topics
from support.parts.shared import Run

pytestmark = pytest.mark.xdist_group("kafka")
TOPIC = CONNECTIONS.name
PATIENCE = 20.0


async def from_start(_: Sequence[Partition]) -> Mapping[Partition, int]:
    return {}


@pytest.fixture(params=["embedded", "kafka"])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EventLog]:
    if request.param == "embedded":
        embedded = await SqliteLog.open(tmp_path / "log.db")
        yield embedded
        await embedded.close()
        return
    bootstrap: str = request.getfixturevalue("kafka_shared")
    with Run.current().locked("kafka.topics"):
        await delete_topics(bootstrap)
        await create(bootstrap, Wanted(partitions=4, replication=1))
        kafka = KafkaLog(bootstrap)
        yield kafka
        await kafka.close()


async def some(subscription: Subscription, *, max_records: int = 1_000) -> Sequence[Batch]:
    """The next batches, of a reader that has some to come."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        batches = await subscription.fetch(max_records=max_records, timeout=0.2)
        if batches:
            return batches
    raise AssertionError(f"nothing was read within {PATIENCE} s")


async def caught_up(subscription: Subscription) -> list[Record]:
    """What is read until the reader says that it has dealt with everything."""
    found: list[Record] = []
    async with asyncio.timeout(PATIENCE):
        while not await subscription.caught_up():
            for batch in await subscription.fetch(max_records=7, timeout=0.05):
                found.extend(batch.records)
    return found


async def read_all(log: EventLog, topic: str = TOPIC) -> list[Record]:
    subscription = log.subscribe([topic], group=None, positions=from_start)
    found = await caught_up(subscription)
    await subscription.close()
    return found


def messages(count: int, key: str = "k") -> list[Message]:
    return [Message(f"{key}{n}", f"v{n}".encode()) for n in range(count)]


async def test_records_come_back_in_order_per_partition(log: EventLog) -> None:
    positions = await log.append(TOPIC, messages(100))
    found = await read_all(log)
    assert sorted((r.key, r.value) for r in found) == sorted((k, v) for k, v, *_ in messages(100))
    for number in range(await log.partitions(TOPIC)):
        offsets = [r.offset for r in found if r.partition == number]
        assert offsets == list(range(len(offsets)))
    assert max(p.offset for p in positions) == max(e for _, e in (await log.ends(TOPIC)).values())
    by_key = {r.key: Position(TOPIC, r.partition, r.offset + 1) for r in found}
    assert positions == [by_key[f"k{n}"] for n in range(100)], "each message has its own position"


async def test_both_logs_choose_the_same_partition_for_a_key(log: EventLog) -> None:
    positions = await log.append(TOPIC, messages(12))
    # As Kafka's own clients compute it, so that a program of another team agrees.
    assert [p.partition for p in positions] == [1, 1, 1, 0, 0, 0, 1, 0, 2, 0, 2, 2]


async def test_an_append_has_the_logs_own_time(log: EventLog) -> None:
    before = time.time_ns() // 1_000_000
    await log.append(TOPIC, messages(1))
    [record] = await read_all(log)
    assert before - 1 <= record.appended_ms <= time.time_ns() // 1_000_000 + 1


async def test_an_explicit_partition_is_kept(log: EventLog) -> None:
    assert await log.append(TOPIC, [Message("k", b"v", 3)]) == [Position(TOPIC, 3, 1)]


async def test_large_and_many_messages_keep_their_order(log: EventLog) -> None:
    sent = [Message("k", bytes([n % 251]) * 9_000, 1) for n in range(400)]
    positions = await log.append(TOPIC, sent)
    assert [p.offset for p in positions] == list(range(1, 401))
    assert [r.value for r in await read_all(log)] == [m.value for m in sent]


async def test_a_reader_is_woken_by_an_append(log: EventLog) -> None:
    subscription = log.subscribe([TOPIC], group=None, positions=from_start)
    assert await caught_up(subscription) == []
    waiting = asyncio.create_task(subscription.fetch(max_records=10, timeout=30))
    await log.append(TOPIC, [Message("k", b"v")])
    batches = await asyncio.wait_for(waiting, 5)
    assert [r.value for b in batches for r in b.records] == [b"v"]
    await subscription.close()


async def test_reading_goes_on_where_the_positions_say(log: EventLog) -> None:
    await log.append(TOPIC, [Message("k", str(n).encode(), 1) for n in range(10)])

    async def at_seven(_: Sequence[Partition]) -> Mapping[Partition, int]:
        return {Partition(TOPIC, 1): 7}

    subscription = log.subscribe([TOPIC], group="g", positions=at_seven)
    [batch] = await some(subscription)
    assert [r.value for r in batch.records] == [b"7", b"8", b"9"]
    assert batch.next_offset == 10
    await subscription.seek(Partition(TOPIC, 1), 9)
    [again] = await some(subscription)
    assert [r.value for r in again.records] == [b"9"]
    await subscription.close()


@pytest.mark.parametrize("group", ["g", None])
async def test_a_position_outside_the_log_is_refused(log: EventLog, group: str | None) -> None:
    async def beyond(_: Sequence[Partition]) -> Mapping[Partition, int]:
        return {Partition(TOPIC, 0): 1}

    subscription = log.subscribe([TOPIC], group=group, positions=beyond)
    with pytest.raises(PositionLost, match="outside the log"):
        await some(subscription)
    await subscription.close()


async def test_what_the_positions_raise_reaches_the_reader(log: EventLog) -> None:
    async def failing(_: Sequence[Partition]) -> Mapping[Partition, int]:
        raise PositionLost("another topic")

    subscription = log.subscribe([TOPIC], group="g", positions=failing)
    with pytest.raises(PositionLost, match="another topic"):
        await some(subscription)
    await subscription.close()


async def test_settled_waits_for_readers_that_have_dealt_with_it(log: EventLog) -> None:
    subscription = log.subscribe([TOPIC], group=None, positions=from_start)
    await caught_up(subscription)
    positions = await log.append(TOPIC, [Message("k", b"v")])
    await some(subscription)
    assert not await log.settled(positions, timeout=0.05), "fetched is not dealt with"
    settled = asyncio.create_task(log.settled(positions, timeout=5))
    await subscription.fetch(max_records=10, timeout=0)
    assert await settled
    await subscription.close()


async def test_a_compacted_topic_keeps_the_last_of_each_key(log: EventLog) -> None:
    for n in range(5):
        await log.append(SERVICES.name, [Message("a", str(n).encode()), Message("b", b"once")])
    found = {r.key: r.value for r in await read_all(log, SERVICES.name)}
    assert found == {"a": b"4", "b": b"once"}


async def test_a_topic_has_an_identity(log: EventLog) -> None:
    assert await log.identity(TOPIC) == await log.identity(TOPIC)
    assert await log.identity(TOPIC) != await log.identity(SERVICES.name)


async def test_a_closed_log_refuses(log: EventLog) -> None:
    await log.close()
    with pytest.raises(LogWriteFailed):
        await log.append(TOPIC, [Message("a", b"1")])
