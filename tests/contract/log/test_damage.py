"""A damaged log: found where it is, nothing readable lost, and nothing passed over unnoticed."""

import contextlib
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from handoff_common import codec
from handoff_common.errors import LogCorrupt
from handoff_common.events import (
    COUNTER_NAMES,
    BytesData,
    ClosedData,
    ConnectionBytes,
    ConnectionClosed,
    Reason,
)
from handoff_common.log import Message, Partition, Position, Record
from handoff_common.log_salvage import salvage
from handoff_common.log_sqlite import SqliteLog
from handoff_common.topics import CONNECTIONS, SERVICES
from support.metering_edge import refused, tell

TOPIC = CONNECTIONS.name
NOW = datetime(2026, 11, 1, tzinfo=UTC)


async def from_start(_: Sequence[Partition]) -> Mapping[Partition, int]:
    return {}


async def read_all(log: SqliteLog, topic: str = TOPIC) -> list[Record]:
    subscription = log.subscribe([topic], group=None, positions=from_start)
    found: list[Record] = []
    while not await subscription.caught_up():
        for batch in await subscription.fetch(max_records=7, timeout=0):
            found.extend(batch.records)
    await subscription.close()
    return found


async def test_a_flipped_bit_is_reported_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    log = await SqliteLog.open(path)
    await log.append(TOPIC, [Message("k", f"value-{n}".encode(), 2) for n in range(10)])
    await log.close()
    with contextlib.closing(sqlite3.connect(path)) as raw:
        raw.execute('UPDATE records SET value = CAST("value-X" AS BLOB) WHERE "offset" = 6')
        raw.commit()
    log = await SqliteLog.open(path)
    subscription = log.subscribe([TOPIC], group=None, positions=from_start)
    [before] = await subscription.fetch(max_records=100, timeout=0)
    assert [r.offset for r in before.records] == list(range(6)), "what is readable comes first"
    with pytest.raises(LogCorrupt, match=r"connections\.v1\[2\] offset 6: the checksum"):
        await subscription.fetch(max_records=100, timeout=0)
    await log.close()
    found = salvage(path, tmp_path / "saved.db")
    assert (found.copied, found.lost, len(found.notes)) == (9, 1, 1)
    assert "connections.v1[2] offset 6: cannot be read" in found.notes[0]
    assert salvage(path, None) == found, "a check finds what a salvage does"
    saved = await SqliteLog.open(tmp_path / "saved.db")
    assert [r.offset for r in await read_all(saved)] == [0, 1, 2, 3, 4, 5, 7, 8, 9]
    await saved.close()


async def test_a_broken_page_loses_nothing_readable(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    log = await SqliteLog.open(path)
    await log.append(TOPIC, [Message("k", b"x" * 400, 2) for _ in range(500)])
    await log.close()
    page = 4096
    with path.open("r+b") as file:
        file.seek(40 * page)
        file.write(b"\xff" * page)
    log = await SqliteLog.open(path)
    readable: list[Record] = []
    subscription = log.subscribe([TOPIC], group=None, positions=from_start)
    with pytest.raises(LogCorrupt) as caught:
        while True:
            for batch in await subscription.fetch(max_records=1000, timeout=0):
                readable.extend(batch.records)
            if await subscription.caught_up():
                break
    assert f"[2] offset {len(readable)}" in caught.value.place
    await log.close()
    found = salvage(path, tmp_path / "saved.db")
    assert found.copied + found.lost == 500 and found.copied > 480
    assert len(found.notes) == 1, "neighbours are one place"
    saved = await SqliteLog.open(tmp_path / "saved.db")
    assert len(await read_all(saved)) == found.copied, "what was lost is passed over"
    await saved.append(TOPIC, [Message("k", b"more", 2)])
    assert len(await read_all(saved)) == found.copied + 1
    await saved.close()
    again = salvage(tmp_path / "saved.db", None)
    assert again == (found.copied + 1, 0, found.lost, []), "a loss is told of once"


async def test_a_missing_record_is_not_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    log = await SqliteLog.open(path)
    await log.append(TOPIC, [Message("k", b"v", 1) for _ in range(10)])
    await log.append(SERVICES.name, [Message("a", b"1"), Message("a", b"2"), Message("b", b"1")])
    await log.close()
    for gone, saved_records in (('"offset" = 5', 9), ('"offset" IN (0, 8, 9)', 6)):
        with contextlib.closing(sqlite3.connect(path)) as raw:
            raw.execute(f"DELETE FROM records WHERE topic = 1 AND {gone}")
            raw.commit()
        log = await SqliteLog.open(path)
        with pytest.raises(LogCorrupt, match=r"connections\.v1\[1\] offset \d: .*missing"):
            await read_all(log)
        assert len(await read_all(log, SERVICES.name)) == 2, "a compacted topic has gaps"
        await log.close()
        assert salvage(path, None).copied == saved_records + 2
    found = salvage(path, tmp_path / "saved.db")
    assert found.lost == 4
    assert [note.partition("[1] ")[2] for note in found.notes] == [
        "offset 0: missing",
        "offset 5: missing",
        "offsets 8 to 9: missing",
    ]
    saved = await SqliteLog.open(tmp_path / "saved.db")
    assert [r.offset for r in await read_all(saved)] == [1, 2, 3, 4, 6, 7]
    assert await saved.append(TOPIC, [Message("k", b"v", 1)]) == [Position(TOPIC, 1, 11)]
    await saved.close()


async def test_what_a_journal_forgot_is_not_missing(tmp_path: Path) -> None:
    log = await SqliteLog.open(tmp_path / "log.db")
    await log.append(TOPIC, [Message("k", b"v", 1) for _ in range(10)])
    await log.forget(Partition(TOPIC, 1), 4)
    records, following = await log.records(Partition(TOPIC, 1), 0, 100)
    assert [r.offset for r in records] == [4, 5, 6, 7, 8, 9] and following == 10
    await log.forget(Partition(TOPIC, 1), 10)
    assert await log.records(Partition(TOPIC, 1), 4, 100) == ([], 10)
    await log.close()


async def test_a_broken_page_of_a_sparse_topic_hides_nothing_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    log = await SqliteLog.open(path)
    rewritten = [Message("again", b"x" * 400, 0) for _ in range(300)]
    kept = [Message(f"k{n}", b"x" * 400, 0) for n in range(100)]
    await log.append(SERVICES.name, [*kept[:50], *rewritten, *kept[50:]])
    await log.close()
    with contextlib.closing(sqlite3.connect(path)) as raw:
        page = raw.execute(
            "SELECT pageno FROM dbstat WHERE name = 'records' AND pagetype = 'leaf'"
            " ORDER BY path LIMIT 1 OFFSET 6"
        ).fetchone()[0]
    overwrite(path, page)
    log = await SqliteLog.open(path)
    found: list[Record] = []
    subscription = log.subscribe([SERVICES.name], group=None, positions=from_start)
    with pytest.raises(LogCorrupt, match=r"services\.v1\[0\] offset"):
        while not await subscription.caught_up():
            for batch in await subscription.fetch(max_records=60, timeout=0):
                found.extend(batch.records)
    # 50 lie before the gap, and a few more between it and the damage.
    assert 50 < len(found) < 70
    await log.close()


# --- The tables beside the records -----------------------------------------------------------


def overwrite(path: Path, page: int) -> None:
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\0" * 4096)


async def filled(path: Path) -> None:
    """A log with something in every table."""
    log = await SqliteLog.open(path)
    for seq in range(3):
        for connection in ("c1", "c2"):
            await log.append(TOPIC, [connection_event(log.owner_id, connection, seq)])
    await log.append(TOPIC, [connection_event(log.owner_id, "c2", 3, end=True)])
    await log.append(SERVICES.name, [Message("a", b"1"), Message("b", b"1"), Message("a", b"2")])
    # This edge's, and held by no journal.
    await tell(log, refused(log.owner_id, 0, 3))
    await log.close()


def connection_event(owner: str, connection: str, seq: int, *, end: bool = False) -> Message:
    common: dict[str, Any] = {
        **dict.fromkeys(COUNTER_NAMES, 0),
        "customer_id": "c",
        "service_id": "s",
        "region": "europe",
        "pop": "p",
        "edge_id": owner,
        "connection_id": connection,
        "seq": seq,
        "accepted_at": NOW,
        "elapsed_ms": seq,
    }
    envelope: dict[str, Any] = {
        "id": f"{connection}-{seq}",
        "source": f"/edges/{owner}",
        "subject": connection,
        "time": NOW,
    }
    event = (
        ConnectionClosed(
            **envelope, data=ClosedData(**common, reason=Reason.CLIENT_CLOSED, closed_by="client")
        )
        if end
        else ConnectionBytes(**envelope, data=BytesData(**common))
    )
    return Message(connection, codec.encode(event), keep="release" if end else "hold")


def contents(path: Path, *tables: str) -> dict[str, list[Any]]:
    with contextlib.closing(sqlite3.connect(path)) as raw:
        return {t: sorted(raw.execute(f"SELECT * FROM {t}").fetchall()) for t in tables}


TABLES = ("meta", "topics", "heads", "latest", "held", "totals")


@pytest.mark.parametrize("table", TABLES)
async def test_a_damaged_table_stops_the_start_and_costs_no_record(
    tmp_path: Path, table: str
) -> None:
    path = tmp_path / "log.db"
    await filled(path)
    whole = contents(path, *TABLES, "records")
    with contextlib.closing(sqlite3.connect(path)) as raw:
        root = raw.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,))
        page = root.fetchone()[0]
    overwrite(path, page)
    with pytest.raises(LogCorrupt, match=rf"log\.db: table {table}: .*handoff log salvage"):
        await SqliteLog.open(path)
    found = salvage(path, tmp_path / "saved.db")
    assert (found.copied, found.lost) == (10, 0)
    assert any(f"table {table}" in note for note in found.notes)
    saved = contents(tmp_path / "saved.db", *TABLES, "records")
    saved["meta"] = [row for row in saved["meta"] if row[0] != "lost"]
    if table == "heads":
        # Where a partition has no record, what it once had cannot be told, and none is in use.
        whole["heads"] = [row for row in whole["heads"] if row[3]]
        saved["heads"] = [row for row in saved["heads"] if row[3]]
    assert saved == whole, "all of it can be told from the rest"
    log = await SqliteLog.open(tmp_path / "saved.db")
    assert len(await read_all(log)) == 7
    await log.close()
