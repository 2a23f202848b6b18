"""The file of the embedded log: its tables, its lock, a record's checksum, and whether it is whole.

It knows the layout and nothing of reading and appending. What is small and needed at every start is
read through here once, so that damage is found before anything is promised, and named.
"""

import contextlib
import fcntl
import json
import os
import sqlite3
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from handoff_common.errors import AlreadyInUse, LogCorrupt, LogError
from handoff_common.ids import uuid7
from handoff_common.log import Message, Partition
from handoff_common.topics import TOPICS

_T = TypeVar("_T")

SCHEMA_VERSION: Final = 1

SCHEMA: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE topics (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, identity TEXT NOT NULL,
    partitions INTEGER NOT NULL, cleanup TEXT NOT NULL);
CREATE TABLE heads (
    topic INTEGER NOT NULL, partition INTEGER NOT NULL,
    first_offset INTEGER NOT NULL, next_offset INTEGER NOT NULL,
    PRIMARY KEY (topic, partition)) WITHOUT ROWID;
CREATE TABLE records (
    topic INTEGER NOT NULL, partition INTEGER NOT NULL, "offset" INTEGER NOT NULL,
    appended_ms INTEGER NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, checksum INTEGER NOT NULL,
    PRIMARY KEY (topic, partition, "offset")) WITHOUT ROWID;
CREATE TABLE latest (
    topic INTEGER NOT NULL, key TEXT NOT NULL, partition INTEGER NOT NULL,
    "offset" INTEGER NOT NULL,
    PRIMARY KEY (topic, partition, key)) WITHOUT ROWID;
CREATE TABLE held (topic INTEGER NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (topic, key)) WITHOUT ROWID;
CREATE TABLE totals (topic INTEGER PRIMARY KEY, held INTEGER NOT NULL, released INTEGER NOT NULL);
"""

BESIDES: Final = {
    "meta": ("key", "value"),
    "topics": ("id", "name", "identity", "partitions", "cleanup"),
    "heads": ("topic", "partition", "first_offset", "next_offset"),
    "latest": ("topic", "key", "partition", '"offset"'),
    "held": ("topic", "key", "value"),
    "totals": ("topic", "held", "released"),
}
"""The tables beside the records → their columns."""

_HINT = "`handoff log salvage` copies all that can be read to a new file"


class Topic(NamedTuple):
    """A topic of the file. `id` stands for its name in every other table."""

    id: int
    identity: str
    partitions: int
    compacted: bool


Span = tuple[int, int]
"""Offsets from the first to the last."""


class Layout(NamedTuple):
    """What a start reads of the file. heads: offset of the next record to come. lost: records that
    a salvage could not save; readers pass over these, and over no other."""

    owner_id: str
    topics: dict[str, Topic]
    heads: dict[Partition, int]
    lost: dict[Partition, list[Span]]


def connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """Raises LogCorrupt where there is no database, or one that cannot be opened."""
    mode = "ro" if read_only else "rwc"
    try:
        connection = sqlite3.connect(
            f"file:{path}?mode={mode}",
            uri=True,
            isolation_level=None,
            timeout=30,
            check_same_thread=False,
        )
        if not read_only:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
    except sqlite3.DatabaseError as error:
        raise LogCorrupt(str(path), str(error)) from error
    return connection


def at_one_moment(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], _T]) -> _T:
    """What `work` reads, all of it as of one moment: else a compaction between two statements takes
    a key's old record away and leaves the new one beyond the end that was read first."""
    connection.execute("BEGIN")
    try:
        return work(connection)
    finally:
        with contextlib.suppress(sqlite3.DatabaseError):
            connection.execute("ROLLBACK")


def next_offset(connection: sqlite3.Connection, topic: int, partition: int) -> int:
    """Of the next record to come."""
    found = connection.execute(
        "SELECT next_offset FROM heads WHERE topic = ? AND partition = ?", (topic, partition)
    ).fetchone()
    if found is None:
        raise sqlite3.DatabaseError("the table heads has lost a partition")
    return int(found[0])


def read_layout(
    connection: sqlite3.Connection, path: Path, *, partitions: int, read_only: bool
) -> Layout:
    """The file's layout; unless it is read only, made where it is new and completed where this
    release has more topics. Raises LogCorrupt with the table that cannot be used."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise LogError(f"{path} has format {version}; this release reads up to {SCHEMA_VERSION}")
    if version == 0 and not read_only:
        connection.executescript(
            f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;"
        )
        connection.execute("INSERT INTO meta VALUES ('owner_id', ?)", (uuid7(),))
    _read_through(connection, path)
    meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
    owner_id = meta.get("owner_id")
    if owner_id is None:
        raise _unusable(path, "meta", "it has no owner_id")
    if not read_only:
        _create_topics(connection, owner_id, partitions)
    topics = {
        name: Topic(number, identity, count, cleanup == "compact")
        for number, name, identity, count, cleanup in connection.execute(
            "SELECT id, name, identity, partitions, cleanup FROM topics"
        )
    }
    found = {
        (topic, number): following
        for topic, number, following in connection.execute(
            "SELECT topic, partition, next_offset FROM heads"
        )
    }
    heads: dict[Partition, int] = {}
    for name, topic in topics.items():
        for number in range(topic.partitions):
            if (topic.id, number) not in found:
                raise _unusable(path, "heads", f"{name}[{number}] is missing")
            heads[Partition(name, number)] = found[topic.id, number]
    return Layout(owner_id, topics, heads, read_lost(meta.get("lost")))


def read_lost(text: str | None) -> dict[Partition, list[Span]]:
    """The `lost` of the table `meta`; see `write_lost`."""
    return {
        Partition(topic, number): [(first, last) for first, last in spans]
        for topic, number, spans in json.loads(text or "[]")
    }


def write_lost(lost: Mapping[Partition, Sequence[Span]]) -> str:
    return json.dumps([[*partition, spans] for partition, spans in sorted(lost.items()) if spans])


def behind(spans: Sequence[Span], at: int) -> int:
    """The first offset from `at` on that is in none of the spans, which are in order."""
    for first, last in spans:
        if first <= at <= last:
            at = last + 1
    return at


def _read_through(connection: sqlite3.Connection, path: Path) -> None:
    """Every page of the tables beside the records: one that is damaged would else be met later, by
    an append, when what it promised is already in use."""
    for table, columns in BESIDES.items():
        every = ", ".join(f"max({column})" for column in columns)
        try:
            connection.execute(f"SELECT {every} FROM {table}").fetchone()  # noqa: S608
        except sqlite3.DatabaseError as error:
            raise _unusable(path, table, str(error)) from error


def _unusable(path: Path, table: str, detail: str) -> LogCorrupt:
    return LogCorrupt(f"{path}: table {table}", f"{detail}; {_HINT}")


def identity_of(owner_id: str, topic: str) -> str:
    """A file's topics are made with it and never again, so its owner's id tells them from those of
    another file; and each of the two can be told from the other, should it be lost."""
    return f"{owner_id}/{topic}"


def _create_topics(connection: sqlite3.Connection, owner_id: str, partitions: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    present = {row[0] for row in connection.execute("SELECT name FROM topics")}
    for name, topic in TOPICS.items():
        if name in present:
            continue
        cursor = connection.execute(
            "INSERT INTO topics (name, identity, partitions, cleanup) VALUES (?, ?, ?, ?)",
            (name, identity_of(owner_id, name), partitions, topic.cleanup),
        )
        connection.executemany(
            "INSERT INTO heads VALUES (?, ?, 0, 0)",
            [(cursor.lastrowid, number) for number in range(partitions)],
        )
    connection.execute("COMMIT")


def checksum(topic: int, partition: int, offset: int, key: str, value: bytes) -> int:
    """Of a record's place and content."""
    seed = zlib.crc32(f"{topic}/{partition}/{offset}/{key}/".encode())
    return zlib.crc32(value, seed)


def compact(
    connection: sqlite3.Connection, topic: int, partition: int, key: str, offset: int
) -> None:
    """Let the record that is about to be written take the place of its key's former one."""
    place = (topic, partition, key)
    before = connection.execute(
        'SELECT "offset" FROM latest WHERE topic = ? AND partition = ? AND key = ?', place
    ).fetchone()
    if before:
        connection.execute(
            'DELETE FROM records WHERE topic = ? AND partition = ? AND "offset" = ?',
            (topic, partition, before[0]),
        )
    connection.execute(
        'INSERT INTO latest (topic, partition, key, "offset") VALUES (?, ?, ?, ?)'
        ' ON CONFLICT DO UPDATE SET "offset" = excluded."offset"',
        (*place, offset),
    )


def keep(connection: sqlite3.Connection, topic: int, message: Message) -> None:
    """Hold or release the message's key, and count it."""
    held = connection.execute(
        "SELECT 1 FROM held WHERE topic = ? AND key = ?", (topic, message.key)
    ).fetchone()
    if message.keep == "release":
        connection.execute("DELETE FROM held WHERE topic = ? AND key = ?", (topic, message.key))
    else:
        connection.execute(
            "INSERT INTO held VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
            (topic, message.key, message.value),
        )
    begun, ended = (not held and message.keep == "hold"), (held and message.keep == "release")
    if begun or ended:
        connection.execute(
            "INSERT INTO totals VALUES (?, ?, ?) ON CONFLICT DO UPDATE"
            " SET held = held + excluded.held, released = released + excluded.released",
            (topic, int(bool(begun)), int(bool(ended))),
        )


def lock(path: Path) -> int:
    """Take the exclusive lock; it is the kernel's, so it dies with the process."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise AlreadyInUse(
            f"{path.parent} is in use by process {owner}; "
            "stop it first, or choose another folder with HANDOFF_DATA_DIR"
        ) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    return descriptor
