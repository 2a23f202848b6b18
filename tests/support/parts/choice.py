"""Which broker and which server a test run uses: given address → Docker → this machine.

    HANDOFF_TEST_KAFKA     host:port of a broker that runs already
    HANDOFF_TEST_POSTGRES  postgresql://user:password@host:port of a server that runs already
    HANDOFF_TEST_PARTS     "docker" or "local", to skip the search

A given one is shared by all tests and never broken: a test that kills its broker or its server
starts one of its own all the same.
"""

import os
import socket
from collections.abc import Mapping
from pathlib import Path

from support.parts import environment, kafka, postgres
from support.parts.kafka import Broker, KafkaBroker
from support.parts.postgres import Address, Database, PostgresServer

GIVEN = {"kafka": "HANDOFF_TEST_KAFKA", "postgres": "HANDOFF_TEST_POSTGRES"}


def in_docker(name: str) -> bool:
    """Whether Docker has, or can get, the image of "kafka" or "postgres"."""
    wanted = environment.value("HANDOFF_TEST_PARTS") or ""
    if wanted not in ("", "docker", "local"):
        raise ValueError(f"HANDOFF_TEST_PARTS={wanted!r}: use docker or local")
    if wanted == "local" or not (wanted or might_have_docker()):
        return False
    from support.parts import containers

    image = {"kafka": containers.KAFKA_IMAGE, "postgres": containers.POSTGRES_IMAGE}[name]
    found = containers.available(image)
    if wanted and not found:
        raise kafka.MissingPart(f"HANDOFF_TEST_PARTS=docker, and no daemon here has {image}")
    return found


def might_have_docker() -> bool:
    """Cheap: whether there is anything to ask. A socket file may outlive its daemon."""
    if "DOCKER_HOST" in os.environ:
        return True
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex("/var/run/docker.sock") == 0


def new_broker(folder: Path, *, settings: Mapping[str, str] | None = None) -> Broker:
    """A broker of one's own, not started."""
    if in_docker("kafka"):
        from support.parts.containers import DockerKafka

        return DockerKafka(dict(settings or {}))
    return KafkaBroker(folder, dict(settings or {}))


def new_server(*, durable: bool = True, settings: Mapping[str, str] | None = None) -> Database:
    """A Postgres server of one's own, not started."""
    if in_docker("postgres"):
        from support.parts.containers import DockerPostgres

        return DockerPostgres(durable, dict(settings or {}))
    return PostgresServer(durable, dict(settings or {}))


def given(name: str) -> str | None:
    """The address that the environment gives for "kafka" or "postgres"; checked for its form."""
    value = environment.value(GIVEN[name])
    if not value:
        return None
    if name == "postgres":
        Address.parse(value)
    elif not value.rpartition(":")[2].isdigit():
        raise ValueError(f"{GIVEN[name]}={value!r}: give host:port")
    return value


def described(name: str) -> str:
    """For the report: which one it is, and its version where that is known."""
    if (address := given(name)) is not None:
        return f"given by {GIVEN[name]} ({address.rpartition('@')[2]})"
    if in_docker(name):
        from support.parts import containers

        return (
            f"Docker ({containers.KAFKA_IMAGE if name == 'kafka' else containers.POSTGRES_IMAGE})"
        )
    return f"this machine ({kafka.version() if name == 'kafka' else postgres.version()})"
