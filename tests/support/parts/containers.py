"""The same broker and server as in `kafka.py` and `postgres.py`, from their published images, by
testcontainers. Used where a Docker daemon answers and has the images or can get them.

    python -m support.parts.containers     exits with 0 when both can be had
"""

import asyncio
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import TracebackType
from typing import Any, Self

from support.parts import kafka
from support.parts.kafka import READY as KAFKA_READY
from support.parts.postgres import FLEETING, SETTINGS, Address
from support.parts.postgres import READY as POSTGRES_READY
from support.parts.processes import free_port
from support.parts.waiting import eventually

KAFKA_IMAGE = f"apache/kafka:{kafka.version()}"
POSTGRES_IMAGE = "postgres:17-bookworm"
START_SECONDS = 120.0
PING_SECONDS = 3
# The settings come in by the environment: nothing is mounted, so it works with a daemon elsewhere
# too.
RUN_KAFKA = """
printf '%s' "$PROPERTIES" > /tmp/server.properties
bin=/opt/kafka/bin
$bin/kafka-storage.sh format --ignore-formatted -t "$CLUSTER" -c /tmp/server.properties &&
exec $bin/kafka-server-start.sh /tmp/server.properties
"""


@cache
def answers() -> bool:
    """Whether a Docker daemon answers here."""
    import docker

    try:
        client = docker.from_env(timeout=PING_SECONDS)
        try:
            return bool(client.ping())
        finally:
            client.close()
    except docker.errors.DockerException:
        return False


@cache
def available(image: str) -> bool:
    """Whether the daemon has this image or can get it."""
    if not answers():
        return False
    import docker

    client = docker.from_env()
    try:
        try:
            client.images.get(image)
        except docker.errors.ImageNotFound:
            client.images.pull(image)
    except docker.errors.DockerException:
        return False
    finally:
        client.close()
    return True


@dataclass
class Container:
    """One container whose ports are the same outside as inside, through kills and restarts."""

    image: str
    ready: str
    _container: Any = None
    _started_at: float = 0.0

    async def start(self, ports: list[int], **settings: Any) -> None:
        """Make it at the first call, later start the same one again; wait for its ready line."""
        # Only what it says from now on counts as its being ready.
        self._started_at = time.time()
        if self._container is None:
            await asyncio.to_thread(self._make, ports, settings)
        else:
            await self._do("start")
        await eventually(self._is_ready, f"{self.image} is ready", seconds=START_SECONDS)

    def _make(self, ports: list[int], settings: Mapping[str, Any]) -> None:
        from testcontainers.core.container import DockerContainer

        container = DockerContainer(self.image, **settings)
        for port in ports:
            container = container.with_bind_ports(port, port)
        self._container = container.start()

    async def _is_ready(self) -> bool | None:
        if self.ready in await asyncio.to_thread(self._log, self._started_at):
            return True
        wrapped = self._container.get_wrapped_container()
        await asyncio.to_thread(wrapped.reload)
        assert wrapped.status in ("created", "running"), f"{self.image} ended: {self.log_tail()}"
        return None

    def _log(self, since: float) -> str:
        text = self._container.get_wrapped_container().logs(since=since)
        return bytes(text).decode(errors="replace")

    async def _do(self, name: str, **arguments: Any) -> Any:
        wrapped = self._container.get_wrapped_container()
        command: Callable[..., Any] = getattr(wrapped, name)
        return await asyncio.to_thread(command, **arguments)

    async def stop(self) -> int:
        await self._do("stop", timeout=40)
        return int((await self._do("wait"))["StatusCode"])

    async def kill(self) -> None:
        await self._do("kill", signal="SIGKILL")
        await self._do("wait")

    async def pause(self) -> None:
        await self._do("pause")

    async def resume(self) -> None:
        await self._do("unpause")

    def host(self) -> str:
        return str(self._container.get_container_host_ip())

    def log_tail(self) -> str:
        return "" if self._container is None else self._log(0)[-3_000:]

    async def remove(self) -> None:
        if self._container is not None:
            await asyncio.to_thread(self._container.stop)


@dataclass
class DockerKafka:
    """`KafkaBroker` in a container. See there for what each method promises."""

    settings: Mapping[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    _proxied: dict[int, int] = field(default_factory=dict)
    _container: Container = field(default_factory=lambda: Container(KAFKA_IMAGE, KAFKA_READY))

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    def add_listener(self, advertised_port: int) -> int:
        """As of `KafkaBroker`, but only before the first start: a container's ports do not
        change."""
        own = free_port()
        self._proxied[own] = advertised_port
        return own

    async def start(self) -> None:
        properties = kafka.properties(
            port=self.port,
            controller_port=free_port(),
            proxied=self._proxied,
            data="/tmp/kafka-data",
            bind="0.0.0.0",
        )
        await self._container.start(
            [self.port, *self._proxied],
            command=["sh", "-c", RUN_KAFKA],
            env={
                "PROPERTIES": kafka.as_lines({**properties, **self.settings}),
                "CLUSTER": kafka.new_id(),
                "KAFKA_HEAP_OPTS": "-Xms128m -Xmx512m",
            },
        )

    async def stop(self) -> int:
        return await self._container.stop()

    async def kill(self) -> None:
        await self._container.kill()

    async def restart(self) -> None:
        await self._container.stop()
        await self.start()

    async def pause(self) -> None:
        await self._container.pause()

    async def resume(self) -> None:
        await self._container.resume()

    def log_tail(self) -> str:
        return self._container.log_tail()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._container.remove()


@dataclass
class DockerPostgres:
    """`PostgresServer` in a container. See there for what each method promises."""

    durable: bool = True
    settings: Mapping[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    _password: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    _container: Container = field(default_factory=lambda: Container(POSTGRES_IMAGE, POSTGRES_READY))

    @property
    def address(self) -> Address:
        return Address("127.0.0.1", self.port, "handoff", self._password)

    def url(self, database: str = "postgres", *, port: int | None = None) -> str:
        return self.address.url(database, port=port)

    async def create_database(self, name: str, *, template: str = "template1") -> None:
        await self.address.create_database(name, template=template)

    async def start(self) -> None:
        options = {**SETTINGS, **({} if self.durable else FLEETING), **self.settings}
        command = ["postgres", "-p", str(self.port)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        await self._container.start(
            [self.port],
            command=command,
            env={"POSTGRES_USER": "handoff", "POSTGRES_PASSWORD": self._password},
        )

        async def accepts() -> bool | None:
            # The image says "ready" once before its set-up, on a socket only.
            try:
                await self.address.execute("SELECT 1")
            except (OSError, TimeoutError):
                return None
            return True

        await eventually(accepts, "Postgres in its container accepts connections", seconds=60)

    async def stop(self) -> int:
        return await self._container.stop()

    async def kill(self) -> None:
        await self._container.kill()

    async def restart(self) -> None:
        await self._container.stop()
        await self.start()

    def log_tail(self) -> str:
        return self._container.log_tail()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._container.remove()


if __name__ == "__main__":
    sys.exit(0 if available(KAFKA_IMAGE) and available(POSTGRES_IMAGE) else 1)
