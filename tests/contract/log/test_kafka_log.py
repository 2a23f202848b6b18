"""What the Kafka log promises beyond `test_event_log.py`: brokers that die, stall and come back,
members of a group that come and go, and topics that are not as they must be."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from handoff_common.errors import LogError, LogUnreachable, LogWriteFailed, PositionLost
from handoff_common.log import Message, Partition, Subscription
from handoff_common.log_kafka import KafkaLog
from handoff_common.log_kafka.cluster import TopicInfo
from handoff_common.log_kafka.topics import (
    TopicUnfit,
    Wanted,
    check,
    create,
    problems,
    settings,
)
from handoff_common.topics import CONNECTIONS, TOPICS
from support.parts.kafka import Broker, delete_topics
from support.parts.waiting import eventually

pytestmark = [pytest.mark.xdist_group("kafka"), pytest.mark.timeout(180)]
TOPIC = CONNECTIONS.name
WANTED = Wanted(partitions=4, replication=1)


async def from_start(_: Sequence[Partition]) -> Mapping[Partition, int]:
    return {}


@pytest.fixture
async def log(kafka: Broker) -> AsyncIterator[KafkaLog]:
    await create(kafka.bootstrap, WANTED)
    opened = KafkaLog(kafka.bootstrap, timeout=5, append_timeout=2)
    yield opened
    await opened.close()


async def read_until(subscription: Subscription, count: int, *, seconds: float = 40) -> list[bytes]:
    found: list[bytes] = []
    deadline = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < deadline:
        for batch in await subscription.fetch(max_records=1_000, timeout=0.2):
            found.extend(r.value for r in batch.records)
    return found


async def append_until_acknowledged(log: KafkaLog, message: Message) -> None:
    async def done() -> bool | None:
        try:
            await log.append(TOPIC, [message])
        except LogWriteFailed:
            return None
        return True

    await eventually(done, "the append is acknowledged", seconds=60)


async def test_what_was_acknowledged_survives_a_killed_broker(kafka: Broker, log: KafkaLog) -> None:
    acknowledged: list[bytes] = []
    stop = asyncio.Event()

    async def write(name: str) -> None:
        n = 0
        while not stop.is_set():
            value = f"{name}-{n}".encode()
            try:
                await log.append(TOPIC, [Message(name, value)])
            except LogWriteFailed:
                continue
            acknowledged.append(value)
            n += 1

    writers = [asyncio.create_task(write(f"w{n}")) for n in range(8)]
    await eventually(lambda: _true(len(acknowledged) > 200), "200 appends are acknowledged")
    await kafka.kill()
    await kafka.restart()
    before = len(acknowledged)
    await eventually(lambda: _true(len(acknowledged) > before + 200), "appends go on", seconds=60)
    stop.set()
    await asyncio.gather(*writers)
    subscription = log.subscribe([TOPIC], group=None, positions=from_start)
    found = Counter(await read_until(subscription, len(acknowledged)))
    while batches := await subscription.fetch(max_records=1_000, timeout=0.5):
        found.update(r.value for batch in batches for r in batch.records)
    await subscription.close()
    assert set(acknowledged) <= set(found)
    # An append that was told to have failed may be there; nobody repeats an acknowledged one.
    assert len(set(found) - set(acknowledged)) <= 8


async def test_a_broker_that_stalls_fails_appends_in_time_and_loses_none(
    kafka: Broker, log: KafkaLog
) -> None:
    await log.append(TOPIC, [Message("k", b"before", 0)])
    await kafka.pause()
    began = time.monotonic()
    with pytest.raises(LogWriteFailed):
        await log.append(TOPIC, [Message("k", b"meanwhile", 0)])
    assert time.monotonic() - began < 6
    with pytest.raises(LogUnreachable):
        await log.ends(TOPIC)
    await kafka.resume()
    await append_until_acknowledged(log, Message("k", b"after", 0))
    subscription = log.subscribe([TOPIC], group=None, positions=from_start)
    found = await read_until(subscription, 2)
    await subscription.close()
    assert found[0] == b"before" and b"after" in found


async def test_a_reader_waits_for_a_broker_that_is_away(kafka: Broker, log: KafkaLog) -> None:
    subscription = log.subscribe([TOPIC], group="readers", positions=from_start)
    await log.append(TOPIC, [Message("k", b"1")])
    assert await read_until(subscription, 1) == [b"1"]
    await kafka.kill()
    for _ in range(3):
        assert await subscription.fetch(max_records=10, timeout=0.2) == []
    await kafka.restart()
    await append_until_acknowledged(log, Message("k", b"2"))
    assert b"2" in await read_until(subscription, 1)
    await subscription.close()


async def test_a_log_can_be_made_before_its_broker_is_there(kafka: Broker) -> None:
    await create(kafka.bootstrap, WANTED)
    await kafka.stop()
    log = KafkaLog(kafka.bootstrap, timeout=1, append_timeout=1)
    subscription = log.subscribe([TOPIC], group=None, positions=from_start)
    assert await subscription.fetch(max_records=10, timeout=0.1) == []
    with pytest.raises(LogWriteFailed):
        await log.append(TOPIC, [Message("k", b"v")])
    await kafka.restart()
    await append_until_acknowledged(log, Message("k", b"v"))
    assert b"v" in await read_until(subscription, 1)
    await subscription.close()
    await log.close()


async def test_members_of_a_group_share_the_partitions_and_hand_them_over(log: KafkaLog) -> None:
    reached: dict[Partition, int] = {}

    async def positions(_: Sequence[Partition]) -> Mapping[Partition, int]:
        return dict(reached)

    seen: Counter[bytes] = Counter()

    async def member(stop: asyncio.Event) -> set[Partition]:
        subscription = log.subscribe([TOPIC], group="shared", positions=positions)
        had: set[Partition] = set()
        while not stop.is_set():
            for batch in await subscription.fetch(max_records=100, timeout=0.1):
                partition = Partition(batch.topic, batch.partition)
                if partition not in subscription.assigned:
                    continue
                if batch.records[0].offset == reached.get(partition, 0):
                    # What a projection's compare-and-set does.
                    reached[partition] = batch.next_offset
                    seen.update(r.value for r in batch.records)
            had = set(subscription.assigned)
        await subscription.close()
        return had

    stops = [asyncio.Event(), asyncio.Event()]
    first = asyncio.create_task(member(stops[0]))
    await log.append(TOPIC, [Message(f"k{n}", f"a{n}".encode()) for n in range(100)])
    await eventually(lambda: _true(len(seen) == 100), "one member reads all")
    second = asyncio.create_task(member(stops[1]))
    for n in range(40):
        await log.append(TOPIC, [Message(f"k{n}", f"b{n}-{m}".encode()) for m in range(5)])
        await asyncio.sleep(0.1)
    await eventually(lambda: _true(len(seen) == 300), "both read the rest")
    stops[0].set()
    assert 0 < len(await first) < 4, "the partitions were shared"
    await log.append(TOPIC, [Message(f"k{n}", f"c{n}".encode()) for n in range(50)])
    await eventually(lambda: _true(len(seen) == 350), "the one that stays takes over")
    stops[1].set()
    assert len(await second) == 4
    assert set(seen.values()) == {1}, "each was folded once"


async def test_a_topic_made_anew_has_another_identity(kafka: Broker, log: KafkaLog) -> None:
    before = await log.identity(TOPIC)
    await delete_topics(kafka.bootstrap)
    await create(kafka.bootstrap, WANTED)
    other = KafkaLog(kafka.bootstrap)
    assert await other.identity(TOPIC) != before
    await other.close()


async def test_missing_records_stop_the_reader(kafka: Broker, log: KafkaLog) -> None:
    await log.append(TOPIC, [Message("k", str(n).encode(), 0) for n in range(10)])

    async def at_two(_: Sequence[Partition]) -> Mapping[Partition, int]:
        return {Partition(TOPIC, 0): 2}

    from aiokafka import TopicPartition
    from aiokafka.admin import RecordsToDelete

    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.delete_records({TopicPartition(TOPIC, 0): RecordsToDelete(before_offset=5)})
    await admin.close()
    subscription = log.subscribe([TOPIC], group=None, positions=at_two)
    with pytest.raises(PositionLost, match="outside the log, which holds 5 to 10"):
        await read_until(subscription, 1)
    await subscription.close()


async def test_what_there_is_no_topic_for_is_said(kafka: Broker) -> None:
    log = KafkaLog(kafka.bootstrap, timeout=3, append_timeout=3)
    with pytest.raises(LogError, match="has no topic"):
        await log.partitions(TOPIC)
    with pytest.raises(LogWriteFailed, match="has no topic"):
        await log.append(TOPIC, [Message("k", b"v")])
    await log.close()
    with pytest.raises(TopicUnfit, match="it is not there"):
        await check(kafka.bootstrap, WANTED)
    assert set(await create(kafka.bootstrap, WANTED)) == set(TOPICS)
    assert await create(kafka.bootstrap, WANTED) == [], "a second time makes nothing"
    await check(kafka.bootstrap, WANTED)
    with pytest.raises(TopicUnfit, match=r"replication is 1; needs 3"):
        await check(kafka.bootstrap, Wanted(partitions=4, replication=3))


async def test_a_record_that_is_too_large_fails_alone(log: KafkaLog) -> None:
    with pytest.raises(LogWriteFailed, match="larger than"):
        await log.append(TOPIC, [Message("k", b"x" * 2_000_000)])
    await log.append(TOPIC, [Message("k", b"v")])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"cleanup.policy": "compact"}, "cleanup.policy is compact; needs delete"),
        ({"retention.ms": "604800000"}, "retention.ms is 604800000; needs -1"),
        ({"message.timestamp.type": "CreateTime"}, "needs LogAppendTime"),
        ({"unclean.leader.election.enable": "true"}, "needs false"),
        ({"min.insync.replicas": "1"}, "min.insync.replicas is 1; needs 2"),
    ],
)
def test_a_topic_that_would_lose_events_is_named(changed: dict[str, str], said: str) -> None:
    wanted = Wanted(replication=3)
    found = {
        name: (TopicInfo("id", 24, 3), settings(topic, wanted)) for name, topic in TOPICS.items()
    }
    assert problems(found, wanted) == []
    found[TOPIC] = (TopicInfo("id", 24, 3), settings(CONNECTIONS, wanted) | changed)
    [problem] = problems(found, wanted)
    assert problem.startswith(TOPIC) and said in problem


async def _true(condition: bool) -> bool | None:
    return condition or None
