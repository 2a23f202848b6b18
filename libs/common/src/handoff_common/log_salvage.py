"""Copies all that can be read of a damaged log to a new file, and says what could not be.

The records are the log. All else in the file can be told from them, from the list of topics of this
release, or from each other, so no table that is damaged keeps a readable record from being copied.
The source is opened to read and stays as it is.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from handoff_common import codec, log_file
from handoff_common.errors import LogCorrupt, LogError, Unreadable
from handoff_common.events import ConnectionClosed, EdgeRefusals
from handoff_common.ids import uuid7
from handoff_common.log import Partition
from handoff_common.log_file import BESIDES, SCHEMA, SCHEMA_VERSION, Span, checksum, identity_of
from handoff_common.topics import CONNECTIONS, EDGES, PARTITIONS_EMBEDDED, TOPICS

_COLUMNS = '"offset", appended_ms, key, value, checksum'
_DAMAGED, _MISSING = "cannot be read", "missing"


class Salvaged(NamedTuple):
    """copied: records. lost: records that are missing or cannot be read. before: those that an
    earlier salvage had lost. notes: each place with what is wrong there, the tables that were made
    again among them."""

    copied: int
    lost: int
    before: int
    notes: list[str]


class _Topic(NamedTuple):
    id: int
    name: str
    identity: str
    partitions: int
    cleanup: str


def salvage(path: Path, target: Path | None) -> Salvaged:
    """Copy every readable record to `target` (None: only look).

    Raises LogError where there is no such file, LogCorrupt where it is no log at all.
    """
    if not path.exists():
        raise LogError(f"{path} is not there")
    source = log_file.connect(path, read_only=True)
    destination = None
    try:
        destination = sqlite3.connect(target, isolation_level=None) if target else None
        return _Salvage(source, path, destination).run()
    except BaseException:
        if target is not None:
            target.unlink(missing_ok=True)
        raise
    finally:
        source.close()
        if destination is not None:
            destination.close()


class _Salvage:
    def __init__(
        self, source: sqlite3.Connection, path: Path, destination: sqlite3.Connection | None
    ) -> None:
        self._source = source
        self._path = path
        self._destination = destination
        self._notes: list[str] = []
        self._lost = 0
        self._before = 0
        self._copied = 0
        self._spans: dict[Partition, list[Span]] = {}

    def run(self) -> Salvaged:
        try:
            version = self._source.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.DatabaseError as error:
            raise LogCorrupt(str(self._path), str(error)) from error
        if version != SCHEMA_VERSION:
            raise LogError(f"{self._path} has format {version}; allowed: {SCHEMA_VERSION}")
        found = {table: self._table(table) for table in BESIDES}
        self._begin()
        topics, owner_id = self._topics(found)
        known = log_file.read_lost(dict(found["meta"] or ()).get("lost"))
        heads = {(row[0], row[1]): (row[2], row[3]) for row in found["heads"] or ()}
        for topic in topics:
            for number in range(topic.partitions):
                place = (topic.id, number)
                spans = known.get(Partition(topic.name, number), [])
                heads[place] = self._partition(topic, number, heads.get(place), spans)
        self._fill("meta", [("owner_id", owner_id), ("lost", log_file.write_lost(self._spans))])
        self._fill("topics", topics)
        self._fill("heads", [(*place, *ends) for place, ends in sorted(heads.items())])
        self._latest(topics)
        held, totals = found["held"], found["totals"]
        if held is None or totals is None:
            held, totals = self._held(topics, owner_id)
        self._fill("held", held)
        self._fill("totals", totals)
        if self._destination is not None:
            self._destination.execute("COMMIT")
        return Salvaged(self._copied, self._lost, self._before, self._notes)

    def _table(self, name: str) -> list[Any] | None:
        columns = ", ".join(BESIDES[name])
        try:
            return self._source.execute(f"SELECT {columns} FROM {name}").fetchall()  # noqa: S608
        except sqlite3.DatabaseError as error:
            self._notes.append(f"{self._path}: table {name}: {error}; made again")
            return None

    def _topics(self, found: Mapping[str, list[Any] | None]) -> tuple[list[_Topic], str]:
        meta = dict(found["meta"] or ())
        known = [_Topic(*row) for row in found["topics"] or ()]
        owner_id = meta.get("owner_id") or next(
            (one.identity.partition("/")[0] for one in known if "/" in one.identity), ""
        )
        if not owner_id:
            owner_id = uuid7()
            self._notes.append(
                f"{self._path}: whose file it was cannot be told any more: readers must read it "
                "anew (`handoff rebuild`), and the edge is a new one"
            )
        if not known:
            if found["topics"] is not None:
                self._notes.append(f"{self._path}: table topics: it is empty; made again")
            numbers = {row[1] for row in found["heads"] or ()}
            partitions = max(numbers) + 1 if numbers else PARTITIONS_EMBEDDED
            known = [
                _Topic(number, name, identity_of(owner_id, name), partitions, topic.cleanup)
                for number, (name, topic) in enumerate(TOPICS.items(), 1)
            ]
        return known, owner_id

    # --- Records ---

    def _partition(
        self, topic: _Topic, number: int, ends: tuple[int, int] | None, known: Sequence[Span]
    ) -> tuple[int, int]:
        """Copy one partition's records; (first offset, next offset) as told by `ends`, or else by
        the records themselves. known: what an earlier salvage has lost."""
        complete = topic.cleanup == "delete"
        expected = ends[0] if ends else None
        first = None
        lost: list[tuple[int, str]] = []
        for at, row in self._scan(topic.id, number, ends):
            if first is None:
                first = at
            if complete and expected is not None:
                lost += [(missing, _MISSING) for missing in range(expected, at)]
            expected = at + 1
            if row is None or row[4] != checksum(topic.id, number, at, *row[2:4]):
                lost.append((at, _DAMAGED))
                continue
            self._fill("records", [(topic.id, number, *row)])
            self._copied += 1
        if complete and ends is not None:
            lost += [(missing, _MISSING) for missing in range(max(expected or 0, ends[0]), ends[1])]
        news = [one for one in lost if log_file.behind(known, one[0]) == one[0]]
        self._lost += len(news)
        self._before += len(lost) - len(news)
        self._notes += [
            f"{self._path}: {topic.name}[{number}] {_offsets(span)}: {why}"
            for span, why in _spans(news)
        ]
        if complete:
            self._spans[Partition(topic.name, number)] = [
                span for span, _ in _spans([(at, "") for at, _ in lost])
            ]
        return ends or ((first or 0) if complete else 0, expected or 0)

    def _scan(
        self, topic: int, number: int, ends: tuple[int, int] | None
    ) -> Iterator[tuple[int, Any]]:
        """Each record in order, None in place of one that cannot be read."""
        at, end = (ends[0], ends[1]) if ends else (0, None)
        while True:
            try:
                for row in self._source.execute(
                    f"SELECT {_COLUMNS} FROM records WHERE topic = ? AND partition = ?"  # noqa: S608
                    ' AND "offset" >= ? ORDER BY "offset"',
                    (topic, number, at),
                ):
                    yield row[0], row
                    at = row[0] + 1
                return
            except sqlite3.DatabaseError:
                end = end if end is not None else self._end(topic, number, at)
            # Behind a page that cannot be read there may be some that can.
            while True:
                if at >= end:
                    return
                row = self._one(topic, number, at)
                if row is not None:
                    yield at, row or None
                at += 1
                if row:
                    break

    def _one(self, topic: int, number: int, at: int) -> Any:
        """The record at an offset, None where there is none, () where it cannot be read."""
        try:
            return self._source.execute(
                f"SELECT {_COLUMNS} FROM records"  # noqa: S608
                ' WHERE topic = ? AND partition = ? AND "offset" = ?',
                (topic, number, at),
            ).fetchone()
        except sqlite3.DatabaseError:
            return ()

    def _end(self, topic: int, number: int, at: int) -> int:
        """Where the partition ends, found from its other side."""
        try:
            row = self._source.execute(
                'SELECT "offset" FROM records WHERE topic = ? AND partition = ?'
                ' ORDER BY "offset" DESC LIMIT 1',
                (topic, number),
            ).fetchone()
        except sqlite3.DatabaseError:
            self._notes.append(
                f"{self._path}: topic {topic}, partition {number}: where it ends cannot be told; "
                f"read up to offset {at}"
            )
            return at
        return row[0] + 1 if row else at

    # --- What can be told from the records ---

    def _latest(self, topics: list[_Topic]) -> None:
        if self._destination is None:
            return
        for topic in topics:
            if topic.cleanup == "compact":
                self._destination.execute(
                    'INSERT INTO latest (topic, partition, key, "offset") SELECT topic, partition,'
                    ' key, max("offset") FROM records WHERE topic = ? GROUP BY partition, key',
                    (topic.id,),
                )

    def _held(self, topics: list[_Topic], owner_id: str) -> tuple[list[Any], list[Any]]:
        """The rows of `held` and `totals`: this edge's connections that have no end, and its last
        watermark. Of a journal, which forgets, only what it had not forgotten can be told."""
        ids = {topic.name: topic.id for topic in topics}
        held: dict[tuple[int, str], bytes] = {}
        totals = {}
        for name in (CONNECTIONS.name, EDGES.name):
            begun, ended = set(), set()
            for key, value in self._copies(ids[name]):
                try:
                    event = codec.decode(name, value)
                except Unreadable:
                    continue
                # A count of refusals has an edge, too, and no journal holds it.
                if event.source != f"/edges/{owner_id}" or isinstance(event, EdgeRefusals):
                    continue
                begun.add(key)
                held[ids[name], key] = value
                if isinstance(event, ConnectionClosed):
                    del held[ids[name], key]
                    ended.add(key)
            totals[ids[name]] = (len(begun), len(ended))
        return (
            [(*key, value) for key, value in held.items()],
            [(topic, *counts) for topic, counts in totals.items() if any(counts)],
        )

    def _copies(self, topic: int) -> Iterator[tuple[str, bytes]]:
        if self._destination is not None:
            yield from self._destination.execute(
                'SELECT key, value FROM records WHERE topic = ? ORDER BY partition, "offset"',
                (topic,),
            )

    # --- The new file ---

    def _begin(self) -> None:
        if self._destination is not None:
            self._destination.executescript(
                f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version={SCHEMA_VERSION};"
            )

    def _fill(self, table: str, rows: Any) -> None:
        if self._destination is None or not rows:
            return
        marks = ", ".join("?" * len(rows[0]))
        self._destination.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)  # noqa: S608


def _offsets(span: Span) -> str:
    first, last = span
    return f"offset {first}" if first == last else f"offsets {first} to {last}"


def _spans(lost: list[tuple[int, str]]) -> Iterator[tuple[Span, str]]:
    """Neighbours with one fate taken together."""
    begin = 0
    for at in range(1, len(lost) + 1):
        if at < len(lost) and lost[at] == (lost[at - 1][0] + 1, lost[at - 1][1]):
            continue
        (first, why), (last, _) = lost[begin], lost[at - 1]
        yield (first, last), why
        begin = at
