"""What is ours: a relay alone, and a whole edge on the log that a deployment would have."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import trustme

from handoff_common.events import BackendSnapshot
from handoff_common.log import EventLog, Partition
from handoff_common.log_kafka import KafkaLog
from handoff_common.log_sqlite import SqliteLog
from handoff_common.topics import CONNECTIONS, Topic
from rig.programs import RELAY_CORE, Program, running, until
from rig.subjects import Subject
from support.edge_events import customer, service
from support.edge_world import publish
from support.parts.processes import free_port

_ALONE = Path(__file__).with_name("relay_alone.py")
_PROFILED = Path(__file__).with_name("profiled_edge.py")
_REVISION = 100


def make_certificates(folder: Path) -> Path:
    """A folder with a certificate for `*.example.com`, in the forms that all of them take."""
    folder.mkdir()
    leaf = trustme.CA().issue_cert("*.example.com")
    chain = b"".join(part.bytes() for part in leaf.cert_chain_pems)
    key = leaf.private_key_pem.bytes()
    (folder / "bench.crt").write_bytes(chain)
    (folder / "bench.key").write_bytes(key)
    # HAProxy wants both in one file; the edge would take that for a second certificate.
    (folder / "haproxy").mkdir()
    (folder / "haproxy" / "bench").write_bytes(chain + key)
    return folder


@contextmanager
def relay_alone(
    folder: Path, certificates: Path, origins: Sequence[int], relay: str
) -> Iterator[Subject]:
    """That relay with hardly anything around it: see relay_alone.py."""
    command = [sys.executable, _ALONE, relay, certificates, *(str(origin) for origin in origins)]
    with running(command, folder / f"{relay}.log", core=RELAY_CORE) as program:
        port, tls_port = program.line().split()
        yield Subject(f"{relay} relay", program.pid, int(port), int(tls_port))


@contextmanager
def edge(
    folder: Path,
    certificates: Path,
    origins: Sequence[int],
    relay: str,
    *,
    environ: Mapping[str, str] | None = None,
    profile: Path | None = None,
    kafka: str = "",
    core: int | None = RELAY_CORE,
) -> Iterator[Subject]:
    """`handoff_edge serve` with one service for each origin, each with a domain of its own.

    profile: where it writes its profile; see profiled_edge.py. kafka: a broker's address; without
    one its log is embedded, and its journal too. core: None: any.
    """
    data = folder / f"edge-{relay}"
    data.mkdir(parents=True)
    log = f"kafka://{kafka}" if kafka else f"sqlite:///{data / 'log.db'}"
    port, tls_port, admin = free_port(), free_port(), free_port()
    given = {
        "HANDOFF_LOG": log,
        "HANDOFF_DATA_DIR": str(data),
        "HANDOFF_TOPIC_REPLICATION": "1",
        "HANDOFF_EDGE_HOST": "127.0.0.1",
        "HANDOFF_EDGE_PORT": str(port),
        "HANDOFF_EDGE_TLS_PORT": str(tls_port),
        "HANDOFF_TLS_CERTIFICATES": str(certificates),
        "HANDOFF_EDGE_ADMIN_PORT": str(admin),
        "HANDOFF_ALLOW_PRIVATE_ORIGINS": "true",
        "HANDOFF_RELAY": relay,
        "HANDOFF_DRAIN_GRACE": "0",
        "HANDOFF_DRAIN_SPREAD": "0.2",
        "HANDOFF_CLOSE_GRACE": "1",
        **(environ or {}),
    }
    if kafka:
        create = [sys.executable, "-m", "handoff_common.log_kafka", "create"]
        topics = {"HANDOFF_TOPIC_PARTITIONS": "8"}
        subprocess.run(
            create, env={**os.environ, **given, **topics}, check=True, capture_output=True
        )
    hosts = asyncio.run(_configure(log, origins))
    by: list[object] = ["-m", "handoff_edge"] if profile is None else [_PROFILED, profile]
    command = [sys.executable, *by, "serve"]
    with running(command, data / "edge.log", core=core, environ=given) as program:
        until(lambda: _ready(program, admin), "the edge is ready")
        yield Subject(f"edge, {relay} relay", program.pid, port, tls_port, hosts, log)


def _ready(program: Program, admin: int) -> bool:
    program.check_running()
    try:
        with urlopen(f"http://127.0.0.1:{admin}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


async def _configure(log: str, origins: Sequence[int]) -> tuple[str, ...]:
    """The domains that the services have."""
    hosts = tuple(f"chat{number}.example.com" for number in range(len(origins)))
    opened = await _open(log)
    try:
        for number, (host, origin) in enumerate(zip(hosts, origins, strict=True)):
            backend = BackendSnapshot(name="main", address="127.0.0.1", port=origin)
            snapshot = service(
                _REVISION, service_id=f"svc{number}", domains=(host,), backends=(backend,)
            )
            await publish(opened, snapshot)
        await publish(opened, customer(_REVISION))
    finally:
        await opened.close()
    return hosts


async def _open(log: str, *, read_only: bool = False) -> KafkaLog | SqliteLog:
    scheme, _, place = log.partition("://")
    if scheme == "kafka":
        return KafkaLog(place)
    return await SqliteLog.open(Path(place.removeprefix("/")), read_only=read_only)


Ends = Mapping[int, int]
"""Partition → the offset after its last record."""


async def ends(log: str, topic: Topic = CONNECTIONS) -> Ends:
    """How far an edge's log has come with the events of connections."""
    opened = await _open(log, read_only=True)
    try:
        return {number: end for number, (_, end) in (await opened.ends(topic.name)).items()}
    finally:
        await opened.close()


async def between(
    log: str, before: Ends, after: Ends, topic: Topic = CONNECTIONS
) -> tuple[int, int]:
    """How many events there are from one end to a later one, and how many bytes of values."""
    opened = await _open(log, read_only=True)
    try:
        return await _between(opened, topic.name, before, after)
    finally:
        await opened.close()


async def _between(log: EventLog, topic: str, before: Ends, after: Ends) -> tuple[int, int]:
    async def start(wanted: Sequence[Partition]) -> dict[Partition, int]:
        return {partition: before.get(partition.number, 0) for partition in wanted}

    subscription = log.subscribe([topic], group=None, positions=start)
    left = sum(end - before.get(number, 0) for number, end in after.items())
    count = size = 0
    try:
        while count < left:
            for batch in await subscription.fetch(max_records=50_000, timeout=1.0):
                end = after.get(batch.partition, 0)
                found = [len(r.value) for r in batch.records if r.offset < end]
                count += len(found)
                size += sum(found)
    finally:
        await subscription.close()
    return count, size
