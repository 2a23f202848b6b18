"""A real Apache Kafka broker from its published jars: one node, broker and controller at once
(KRaft).

It owns the broker's folder, ports and process, not the jars: those `tests/support/install.sh`
brings into the cache, with a formatted storage folder to copy and an archive of loaded classes.
With those two a start takes about one second of a core instead of three.

    async with KafkaBroker(folder) as broker:
        producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap, acks="all")
        ...
        await broker.kill()      # SIGKILL: what was acknowledged must be there afterwards
        await broker.restart()   # the same data, the same port
        broker.pause()           # SIGSTOP: accepts connections, answers nothing
        broker.resume()

A proxy in front must be known before the start, since clients go where the broker says it is:

    async with Proxy() as proxy:
        proxy.upstream_port = broker.add_listener(proxy.port)
        async with broker: ...   # clients of 127.0.0.1:<proxy.port> stay behind the proxy
"""

import asyncio
import base64
import hashlib
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self
from xml.etree import ElementTree

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from support.parts import environment
from support.parts.processes import Process, free_port
from support.parts.waiting import eventually

HERE = Path(__file__).resolve().parent.parent
POM = HERE / "kafka" / "pom.xml"
READY = "Kafka Server started"
START_SECONDS = 90.0

# Not the broker's defaults, each for a reason; a test may override any of them.
SETTINGS: Mapping[str, str] = {
    # As the topics are created in production: the consumer's time checks stand on it.
    "log.message.timestamp.type": "LogAppendTime",
    # A name with a typing error must fail and not become a topic.
    "auto.create.topics.enable": "false",
    # One node.
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # Small and quick.
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "group.initial.rebalance.delay.ms": "0",
    "log.cleaner.dedupe.buffer.size": "8388608",
    "log.index.size.max.bytes": "1048576",
    # A killed broker may register again only when its old session is over: 9 s by default.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "300",
    "controller.quorum.election.timeout.ms": "300",
    "controller.quorum.election.backoff.max.ms": "200",
}
# C1 only: half the CPU at start, and a broker that a test feeds is never the bottleneck.
QUICK_JVM = ("-XX:TieredStopAtLevel=1",)
JVM = ("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:-UsePerfData")


class MissingPart(AssertionError):
    """A real part is not on this machine; the message says what to install."""


class Broker(Protocol):
    """What a test can do to a broker, wherever it runs."""

    @property
    def bootstrap(self) -> str: ...
    def add_listener(self, advertised_port: int) -> int: ...
    async def start(self) -> None: ...
    async def stop(self) -> int: ...
    async def kill(self) -> None: ...
    async def restart(self) -> None: ...
    async def pause(self) -> None: ...
    async def resume(self) -> None: ...
    def log_tail(self) -> str: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def version() -> str:
    """The version of Kafka that pom.xml names."""
    space = "{http://maven.apache.org/POM/4.0.0}"
    for dependency in ElementTree.parse(POM).iter(f"{space}dependency"):
        if dependency.findtext(f"{space}artifactId", "").startswith("kafka_"):
            return dependency.findtext(f"{space}version", "")
    raise AssertionError(f"{POM} names no broker")


def cache() -> Path:
    """Where install.sh puts the jars of this pom.xml."""
    root = environment.value("HANDOFF_CACHE") or Path.home() / ".cache" / "handoff"
    key = hashlib.sha256(POM.read_bytes()).hexdigest()[:16]
    return Path(root) / f"kafka-{key}"


def java() -> str:
    home = os.environ.get("JAVA_HOME")
    found = str(Path(home, "bin", "java")) if home else shutil.which("java")
    if found is None or not Path(found).exists():
        raise MissingPart("no Java found: tests/support/install.sh installs it (Java 17 or newer)")
    return found


def classpath() -> str:
    """The jars in a fixed order: the archive of classes is only valid for the very same list."""
    jars = sorted((cache() / "jars").glob("*.jar"))
    if not jars:
        raise MissingPart(
            f"no Kafka jars in {cache()}: tests/support/install.sh gets them (Java 17 and Maven)"
        )
    return ":".join(map(str, jars))


def properties(
    *,
    port: int,
    controller_port: int,
    proxied: Mapping[int, int],
    data: str,
    bind: str = "127.0.0.1",
) -> dict[str, str]:
    """server.properties of one node. proxied: port listened on → port advertised instead."""
    listeners = {"CLIENT": (port, port)} | {
        f"PROXIED{number}": ports for number, ports in enumerate(proxied.items())
    }
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listeners": ",".join(
            [f"{name}://{bind}:{own}" for name, (own, _) in listeners.items()]
            + [f"CONTROLLER://127.0.0.1:{controller_port}"]
        ),
        "advertised.listeners": ",".join(
            f"{name}://127.0.0.1:{told}" for name, (_, told) in listeners.items()
        ),
        "listener.security.protocol.map": ",".join(
            f"{name}:PLAINTEXT" for name in [*listeners, "CONTROLLER"]
        ),
        "inter.broker.listener.name": "CLIENT",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": data,
        **SETTINGS,
    }


def as_lines(values: Mapping[str, str]) -> str:
    return "".join(f"{name}={value}\n" for name, value in values.items())


def new_id() -> str:
    """A cluster or directory id as Kafka writes them. One that starts with '-' would be refused."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text


@dataclass
class KafkaBroker:
    """One broker on `folder`, which holds its data and `broker.log`.

    settings: server properties over the ones of this module. quick: start fast rather than run
    fast; False for measurements. jvm: further options for Java.
    """

    folder: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    quick: bool = True
    jvm: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    _controller_port: int = field(default_factory=free_port)
    _proxied: dict[int, int] = field(default_factory=dict)
    _process: Process | None = None

    @property
    def bootstrap(self) -> str:
        """host:port of the listener that no proxy stands before."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def add_listener(self, advertised_port: int) -> int:
        """A further listener that tells its clients to come to `advertised_port` of loopback.

        Returns the port that it listens on itself, for the proxy's upstream. Counts from the next
        start.
        """
        own = free_port()
        self._proxied[own] = advertised_port
        return own

    async def start(self) -> None:
        """Start, with what the folder holds already, and wait until it serves."""
        data = self.folder / "data"
        if not data.exists():
            await asyncio.to_thread(format_storage, data)
        values = properties(
            port=self.port,
            controller_port=self._controller_port,
            proxied=self._proxied,
            data=str(data),
        )
        file = self.folder / "server.properties"
        file.write_text(as_lines({**values, **self.settings}))
        archive = cache() / "classes.jsa"
        self._process = Process(
            "kafka",
            [
                java(),
                *JVM,
                *(QUICK_JVM if self.quick else ()),
                *self.jvm,
                *([f"-XX:SharedArchiveFile={archive}"] if archive.exists() else []),
                f"-Dlog4j2.configurationFile={HERE / 'kafka' / 'log4j2.properties'}",
                "-cp",
                classpath(),
                "kafka.Kafka",
                str(file),
            ],
            self.folder / "broker.log",
        )
        await self._process.start()
        await self._process.wait_line(READY, seconds=START_SECONDS)

    async def stop(self) -> int:
        """SIGTERM: an orderly shutdown, and the exit status (143 is what Java gives then)."""
        assert self._process is not None, "the broker was never started"
        return await self._process.stop()

    async def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None, "the broker was never started"
        await self._process.kill()

    async def restart(self) -> None:
        """Start again on the same data and ports, after `kill` or `stop`; stops it if it runs."""
        if self._process is not None and self._process.running:
            await self.stop()
        await self.start()

    async def pause(self) -> None:
        """SIGSTOP: connections are accepted by the kernel, nothing is answered."""
        assert self._process is not None, "the broker was never started"
        await self._process.pause()

    async def resume(self) -> None:
        assert self._process is not None, "the broker was never started"
        self._process.resume()

    def log_tail(self) -> str:
        return "" if self._process is None else self._process.tail()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What it holds is thrown away with the folder: an orderly end would only take time.
        if self._process is not None:
            await self._process.kill()


def format_storage(data: Path) -> None:
    """A new, empty storage folder with ids of its own: what `StorageTool format` makes, copied."""
    template = cache() / "formatted"
    if not template.exists():
        raise MissingPart(f"no formatted folder in {cache()}: run tests/support/install.sh")
    data.parent.mkdir(parents=True, exist_ok=True)
    partial = data.with_name(data.name + ".partial")
    shutil.copytree(template, partial)
    fresh = {"cluster.id": new_id(), "directory.id": new_id()}
    file = partial / "meta.properties"
    lines = [line.partition("=") for line in file.read_text().splitlines() if "=" in line]
    file.write_text(as_lines({name: fresh.get(name, value) for name, _, value in lines}))
    partial.rename(data)


async def create_topic(
    bootstrap: str, name: str, *, partitions: int = 1, config: Mapping[str, str] | None = None
) -> None:
    """A topic with these settings, there for every client when this returns."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        topic = NewTopic(name, partitions, 1, topic_configs=dict(config or {}))
        answer = await admin.create_topics([topic])
        for _, code, message in answer.topic_errors:
            assert code == 0, f"{name} was not created: {code} {message}"
    finally:
        await admin.close()


async def delete_topics(bootstrap: str) -> None:
    """Every topic but the broker's own, gone when this returns."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:

        async def theirs() -> list[str]:
            return [name for name in await admin.list_topics() if not name.startswith("__")]

        if names := await theirs():
            await admin.delete_topics(names)

        async def gone() -> bool | None:
            return None if await theirs() else True

        await eventually(gone, "the topics are deleted")
    finally:
        await admin.close()
