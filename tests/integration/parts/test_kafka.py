"""The broker that tests use is real, and a kill -9 takes nothing from it that it acknowledged."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from support.parts.choice import new_broker
from support.parts.kafka import Broker, create_topic, delete_topics
from support.parts.proxy import Proxy
from support.parts.waiting import eventually

pytestmark = [pytest.mark.timeout(240), pytest.mark.xdist_group("kafka")]
TOPIC = "parts.test"
PARTITION = TopicPartition(TOPIC, 0)


@asynccontextmanager
async def producing(bootstrap: str) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, request_timeout_ms=5_000
    )
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def read_all(bootstrap: str, expected: int) -> list[bytes]:
    """The topic's values from the start to its end, which is `expected` records or more."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([PARTITION])
        end = (await consumer.end_offsets([PARTITION]))[PARTITION]
        assert end >= expected
        found: list[bytes] = []
        async with asyncio.timeout(30):
            while await consumer.position(PARTITION) < end:
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    found += [record.value for record in records]
        return found
    finally:
        await consumer.stop()


async def test_records_come_back_with_the_brokers_time(kafka: Broker) -> None:
    before = time.time_ns() // 1_000_000
    await create_topic(kafka.bootstrap, TOPIC)
    async with producing(kafka.bootstrap) as producer:
        # A time that the producer claims is not the one that is kept.
        sent = await producer.send_and_wait(TOPIC, b"one", timestamp_ms=1)
    assert sent.offset == 0
    assert before <= sent.timestamp <= time.time_ns() // 1_000_000
    assert await read_all(kafka.bootstrap, 1) == [b"one"]


async def test_a_kill_takes_no_acknowledged_record(kafka: Broker) -> None:
    await create_topic(kafka.bootstrap, TOPIC)
    acknowledged: list[bytes] = []

    async def produce() -> None:
        async with producing(kafka.bootstrap) as producer:
            number = 0
            while True:
                value = b"%d" % number
                await producer.send_and_wait(TOPIC, value)
                acknowledged.append(value)
                number += 1

    async def reached(count: int) -> None:
        async def ask() -> bool | None:
            return len(acknowledged) >= count or None

        await eventually(ask, f"{count} records are acknowledged", seconds=60)

    producer = asyncio.create_task(produce())
    await reached(200)
    await kafka.kill()
    at_the_kill = len(acknowledged)
    await kafka.restart()
    # The same producer goes on, on the same port, without a gap or a repeat.
    await reached(at_the_kill + 200)
    producer.cancel()
    await asyncio.gather(producer, return_exceptions=True)
    found = await read_all(kafka.bootstrap, len(acknowledged))
    assert found[: len(acknowledged)] == acknowledged


async def test_a_paused_broker_answers_nothing_and_then_goes_on(kafka: Broker) -> None:
    await create_topic(kafka.bootstrap, TOPIC)
    async with producing(kafka.bootstrap) as producer:
        await producer.send_and_wait(TOPIC, b"before")
        await kafka.pause()
        sending = asyncio.create_task(producer.send_and_wait(TOPIC, b"meanwhile"))
        done, _ = await asyncio.wait([sending], timeout=1)
        assert not done
        await kafka.resume()
        await asyncio.wait_for(sending, 30)
    assert await read_all(kafka.bootstrap, 2) == [b"before", b"meanwhile"]


async def test_clients_of_a_proxy_stay_behind_it(tmp_path: Path) -> None:
    broker = new_broker(tmp_path / "kafka")
    async with Proxy() as proxy:
        proxy.upstream_port = broker.add_listener(proxy.port)
        async with broker, producing(f"127.0.0.1:{proxy.port}") as producer:
            await create_topic(broker.bootstrap, TOPIC)
            await producer.send_and_wait(TOPIC, b"through the proxy")
            # The request arrives, the acknowledgement does not: only the record in the log tells.
            proxy.blackhole("to_client")
            sending = asyncio.create_task(producer.send_and_wait(TOPIC, b"not told"))

            async def arrived() -> bool | None:
                return len(await read_all(broker.bootstrap, 1)) == 2 or None

            await eventually(arrived, "the record is in the log")
            assert not sending.done()
            proxy.restore()
            await asyncio.wait_for(sending, 30)
            await proxy.cut()
            with pytest.raises((KafkaError, TimeoutError)):
                await asyncio.wait_for(producer.send_and_wait(TOPIC, b"x"), 1)
            proxy.restore()
            await asyncio.wait_for(producer.send_and_wait(TOPIC, b"restored"), 30)
            found = await read_all(broker.bootstrap, 3)
            assert found[:2] == [b"through the proxy", b"not told"]
            assert found[-1] == b"restored"


async def test_an_unknown_topic_is_not_made(kafka_empty: str) -> None:
    async with producing(kafka_empty) as producer:
        with pytest.raises((KafkaError, TimeoutError)):
            await asyncio.wait_for(producer.send_and_wait("misspelt", b"x"), 1)
        assert "misspelt" not in (await producer.client.fetch_all_metadata()).topics()


async def test_the_shared_broker_can_be_emptied(kafka_empty: str) -> None:
    for partitions in (1, 3):
        await create_topic(kafka_empty, TOPIC, partitions=partitions)
        await delete_topics(kafka_empty)


async def test_the_same_broker_is_shared(kafka_shared: str, kafka_empty: str) -> None:
    assert kafka_shared == kafka_empty
