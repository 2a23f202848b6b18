"""Makes the topics, and says what is wrong with those that are there.

A topic that would lose events stops whoever would write to it: see `problems`.
"""

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from handoff_common.errors import LogError, LogUnreachable
from handoff_common.log_kafka.cluster import Cluster, TopicInfo
from handoff_common.topics import PARTITIONS, TOPICS, Topic

REPLICATION = 3
_AT_LEAST = ("min.insync.replicas", "max.message.bytes")
_TIMEOUT_MS = 30_000
_LOOK_SECONDS = 0.05


class TopicUnfit(LogError):
    """A topic is missing, or is kept in a way that would lose events; says which and why."""

    code = "topic_unfit"


class Wanted(NamedTuple):
    """replication: copies of each partition; with three or more, two must have a write."""

    partitions: int = PARTITIONS
    replication: int = REPLICATION

    @property
    def in_sync(self) -> int:
        return 2 if self.replication >= 3 else 1


def settings(topic: Topic, wanted: Wanted) -> dict[str, str]:
    """How the topic must be kept."""
    kept = {
        "cleanup.policy": topic.cleanup,
        "message.timestamp.type": "LogAppendTime",
        "min.insync.replicas": str(wanted.in_sync),
        "unclean.leader.election.enable": "false",
        # What the writer's batches keep below.
        "max.message.bytes": "1048588",
    }
    if topic.cleanup == "delete":
        # No time and no size after which what was delivered is forgotten.
        kept |= {"retention.ms": "-1", "retention.bytes": "-1"}
    return kept


def problems(found: Mapping[str, tuple[TopicInfo, Mapping[str, str]]], wanted: Wanted) -> list[str]:
    """What is wrong, topic by topic. Pure.

    found: topic → what it is, and its settings. More copies than wanted are no fault; another count
    of partitions is none either, as long as all slices agree on it for ever.
    """
    wrong: list[str] = []
    for name, topic in TOPICS.items():
        if name not in found:
            wrong.append(f"{name}: it is not there")
            continue
        info, kept = found[name]
        if info.replication < wanted.replication:
            wrong.append(
                f"{name}: replication is {info.replication}; needs {wanted.replication} or more "
                "(HANDOFF_TOPIC_REPLICATION)"
            )
        for key, value in settings(topic, wanted).items():
            has = kept.get(key)
            if key in _AT_LEAST and has is not None and int(has) >= int(value):
                continue
            if has != value:
                wrong.append(f"{name}: {key} is {has}; needs {value}")
    return wrong


async def create(bootstrap: str, wanted: Wanted) -> list[str]:
    """Make what is missing; returns the names made. What is there is not touched.

    Raises LogUnreachable, LogError.
    """
    made: list[str] = []
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=_TIMEOUT_MS)
    cluster = Cluster(bootstrap, timeout=_TIMEOUT_MS / 1000)
    try:
        await admin.start()
        answer = await admin.create_topics(
            [
                NewTopic(
                    name=name,
                    num_partitions=wanted.partitions,
                    replication_factor=wanted.replication,
                    topic_configs=settings(topic, wanted),
                )
                for name, topic in TOPICS.items()
            ]
        )
        for name, code, *message in answer.topic_errors:
            if code == 0:
                made.append(name)
            elif code != TopicAlreadyExistsError.errno:
                raise LogError(f"{name} was not made: {for_code(code).__name__} {message}")
        async with asyncio.timeout(_TIMEOUT_MS / 1000):
            # The controller has made them; the brokers hear of it a moment later.
            while len(await cluster.topics(list(TOPICS))) < len(TOPICS):  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_SECONDS)
    except (KafkaError, OSError, TimeoutError) as error:
        raise LogUnreachable(f"Kafka at {bootstrap} does not answer: {error!r}") from None
    finally:
        await admin.close()
        await cluster.close()
    return made


async def check(bootstrap: str, wanted: Wanted, *, timeout: float = 30.0) -> None:
    """Raises TopicUnfit with everything that is wrong, LogUnreachable."""
    cluster = Cluster(bootstrap, timeout=timeout)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=int(timeout * 1000))
    try:
        infos = await cluster.topics(list(TOPICS))
        await admin.start()
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in infos]
        kept: dict[str, dict[str, str]] = {}
        for answer in await admin.describe_configs(resources) if resources else []:
            for _, _, _, name, entries in answer.resources:
                kept[name] = {entry[0]: entry[1] for entry in entries}
    except (KafkaError, OSError, TimeoutError) as error:
        raise LogUnreachable(f"Kafka at {bootstrap} does not answer: {error!r}") from None
    finally:
        await admin.close()
        await cluster.close()
    wrong = problems({name: (infos[name], kept.get(name, {})) for name in infos}, wanted)
    if wrong:
        raise TopicUnfit("; ".join(wrong))
