"""What the embedded log promises beyond `test_event_log.py`: its file, its lock, its journal."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import pytest

from handoff_common.errors import AlreadyInUse, LogCorrupt, LogWriteFailed
from handoff_common.log import Batch, Message, Partition, Record
from handoff_common.log_sqlite import SqliteLog
from handoff_common.topics import CONNECTIONS, SERVICES

TOPIC = CONNECTIONS.name


async def from_start(_: Sequence[Partition]) -> Mapping[Partition, int]:
    return {}


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[SqliteLog]:
    opened = await SqliteLog.open(tmp_path / "log.db")
    yield opened
    await opened.close()


async def read_all(log: SqliteLog, topic: str = TOPIC) -> list[Record]:
    subscription = log.subscribe([topic], group=None, positions=from_start)
    found: list[Record] = []
    while not await subscription.caught_up():
        for batch in await subscription.fetch(max_records=7, timeout=0):
            found.extend(batch.records)
    await subscription.close()
    return found


def messages(count: int, key: str = "k") -> list[Message]:
    return [Message(f"{key}{n}", f"v{n}".encode()) for n in range(count)]


async def test_a_compacted_topic_keeps_the_last_of_each_key(log: SqliteLog) -> None:
    for n in range(5):
        await log.append(SERVICES.name, [Message("a", str(n).encode()), Message("b", b"once")])
    found = {r.key: r.value for r in await read_all(log, SERVICES.name)}
    assert found == {"a": b"4", "b": b"once"}
    assert len(await read_all(log, SERVICES.name)) == 2


async def test_a_key_is_there_at_every_moment_while_it_is_written_over(log: SqliteLog) -> None:
    """A reader that sees neither what was nor what is would take a customer's row for gone."""

    async def write() -> None:
        for n in range(300):
            await log.append(SERVICES.name, [Message("a", str(n).encode(), 0)])

    await log.append(SERVICES.name, [Message("a", b"first", 0)])
    writing = asyncio.create_task(write())
    while not writing.done():
        records, _ = await log.records(Partition(SERVICES.name, 0), 0, 10)
        assert [r.key for r in records] == ["a"]
    await writing


async def test_an_append_is_all_or_nothing(log: SqliteLog) -> None:
    bad = [Message("a", b"1"), Message("b", object())]  # type: ignore[arg-type]
    with pytest.raises(LogWriteFailed):
        await log.append(TOPIC, bad)
    assert await read_all(log) == []
    await log.append(TOPIC, [Message("a", b"1")])
    assert [r.value for r in await read_all(log)] == [b"1"]


async def test_a_closed_log_refuses(tmp_path: Path) -> None:
    log = await SqliteLog.open(tmp_path / "log.db")
    await log.close()
    with pytest.raises(LogWriteFailed):
        await log.append(TOPIC, [Message("a", b"1")])


async def test_everything_survives_a_restart(tmp_path: Path) -> None:
    log = await SqliteLog.open(tmp_path / "log.db")
    owner, identity = log.owner_id, await log.identity(TOPIC)
    await log.append(TOPIC, [*messages(20), Message("c1", b"open", keep="hold")])
    await log.close()
    log = await SqliteLog.open(tmp_path / "log.db")
    assert (log.owner_id, await log.identity(TOPIC)) == (owner, identity)
    assert len(await read_all(log)) == 21
    assert await log.held(TOPIC) == {"c1": b"open"}
    await log.close()


async def test_held_is_the_latest_of_each_key_until_released(log: SqliteLog) -> None:
    for value in (b"accepted", b"bytes"):
        await log.append(TOPIC, [Message("c1", value, keep="hold")])
    await log.append(TOPIC, [Message("c2", b"accepted", keep="hold")])
    assert await log.held(TOPIC) == {"c1": b"bytes", "c2": b"accepted"}
    await log.append(TOPIC, [Message("c1", b"closed", keep="release")])
    await log.append(TOPIC, [Message("c1", b"closed again", keep="release")])
    assert await log.held(TOPIC) == {"c2": b"accepted"}
    assert await log.totals(TOPIC) == (2, 1)


async def test_a_second_process_is_refused_by_name(log: SqliteLog, tmp_path: Path) -> None:
    with pytest.raises(AlreadyInUse, match=f"in use by process {os.getpid()}"):
        await SqliteLog.open(tmp_path / "log.db")


async def test_reading_beside_the_owner_is_allowed(log: SqliteLog, tmp_path: Path) -> None:
    await log.append(TOPIC, messages(3))
    reader = await SqliteLog.open(tmp_path / "log.db", read_only=True)
    assert len(await read_all(reader)) == 3
    with pytest.raises(LogWriteFailed):
        await reader.append(TOPIC, messages(1))
    await reader.close()


async def test_what_is_not_a_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.db").write_bytes(b"this is no database" * 300)
    with pytest.raises(LogCorrupt, match="not a database"):
        await SqliteLog.open(tmp_path / "log.db")


WRITER = """
import asyncio, sys
from pathlib import Path
from handoff_common.log import Message
from handoff_common.log_sqlite import SqliteLog
async def main():
    log = await SqliteLog.open(Path(sys.argv[1]))
    async def one(name):
        n = 0
        while True:
            await log.append("handoff.connections.v1",
                             [Message(name, str(n).encode(), keep="hold"), Message(name, b"twin")])
            sys.stdout.write(f"{name} {n}\\n"); sys.stdout.flush(); n += 1
    await asyncio.gather(*(one(f"w{i}") for i in range(8)))
asyncio.run(main())
"""


@pytest.mark.parametrize("after", [1, 40, 300])
async def test_what_was_acknowledged_survives_kill_9(tmp_path: Path, after: int) -> None:
    path = tmp_path / "log.db"
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(after)]
    process.send_signal(signal.SIGKILL)
    lines += process.stdout.readlines()
    process.wait()
    process.stdout.close()
    acknowledged = {tuple(line.split()) for line in lines if line.endswith("\n")}
    log = await SqliteLog.open(path)
    found = [(r.key, r.value.decode()) for r in await read_all(log)]
    assert acknowledged <= set(found)
    assert len(found) % 2 == 0, "an append is all or nothing"
    assert len({f for f in found if f[1] != "twin"}) == len(found) // 2, "nothing twice"
    await log.close()


async def test_a_busy_partition_does_not_starve_the_others(log: SqliteLog) -> None:
    await log.append(TOPIC, [Message("k", b"v", 0) for _ in range(500)])
    await log.append(TOPIC, [Message("k", b"w", 1)])
    subscription = log.subscribe([TOPIC], group=None, positions=from_start)
    seen: list[Batch] = []
    for _ in range(2):
        seen.extend(await subscription.fetch(max_records=10, timeout=0))
    assert any(batch.partition == 1 for batch in seen)
