"""The embedded log, and the edge's journal: one SQLite file (WAL, `synchronous=FULL`).

It owns the file, its lock, the order of records and their durability. One thread writes: it takes
whatever is pending in one transaction and wakes the event loop once per batch. One thread reads. A
compacted topic keeps the last record of each key; all else is kept for ever, and a reader whose
position is not there any more is told, never moved.

Each record carries a checksum of its place and content, so that a flipped bit is found when it is
read, and not billed.
"""

import asyncio
import contextlib
import functools
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from handoff_common import log_file
from handoff_common.errors import LogCorrupt, LogWriteFailed, PositionLost
from handoff_common.log import (
    Batch,
    Message,
    Partition,
    Position,
    PositionSource,
    Record,
    Totals,
)
from handoff_common.partitioner import partition_of
from handoff_common.topics import PARTITIONS_EMBEDDED

_PENDING_APPENDS = 10_000
_T = TypeVar("_T")


class _Append(NamedTuple):
    topic: str
    messages: Sequence[Message]
    done: "asyncio.Future[list[Position]]"


class _Forget(NamedTuple):
    partition: Partition
    before: int
    done: "asyncio.Future[list[Position]]"


class SqliteLog:
    """See the module. Made by `open`; `close` releases the lock.

    Implements `log.JournaledLog`.
    """

    def __init__(self, path: Path, *, partitions: int, read_only: bool) -> None:
        self._path = path
        self._partitions = partitions
        self._read_only = read_only
        self._lock: int | None = None
        self._topics: dict[str, log_file.Topic] = {}
        self._heads: dict[Partition, int] = {}
        self._lost: dict[Partition, list[log_file.Span]] = {}
        self._owner_id = ""
        self._pending: queue.Queue[_Append | _Forget | None] = queue.Queue(maxsize=_PENDING_APPENDS)
        self._writer: threading.Thread | None = None
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="log-read")
        self._reads: sqlite3.Connection | None = None
        self._loop = asyncio.get_running_loop()
        self._grown = asyncio.Condition()
        self._subscriptions: set[_Subscription] = set()
        self._notifying: asyncio.Task[None] | None = None
        self._closed = False

    @classmethod
    async def open(
        cls, path: Path, *, partitions: int = PARTITIONS_EMBEDDED, read_only: bool = False
    ) -> "SqliteLog":
        """Open or make the log at `path`; its folder must exist.

        partitions: of each topic, when the file is made; an existing file keeps its own.
        Raises AlreadyInUse where another process has it open for writing, LogCorrupt where the file
        cannot be read at all, LogError where a newer release wrote it.
        """
        log = cls(path, partitions=partitions, read_only=read_only)
        try:
            if not read_only:
                log._lock = log_file.lock(path.with_name(path.name + ".lock"))
            await log._read(log._prepare)
        except BaseException:
            await log.close()
            raise
        if not read_only:
            log._writer = threading.Thread(target=log._write_loop, name="log-write", daemon=True)
            log._writer.start()
        return log

    # --- EventLog ---

    async def append(self, topic: str, messages: Sequence[Message]) -> Sequence[Position]:
        if not messages:
            return []
        return await self._queued(_Append(topic, messages, self._loop.create_future()))

    async def _queued(self, work: _Append | _Forget) -> list[Position]:
        if self._closed or self._writer is None:
            raise LogWriteFailed(f"{self._path}: the log is closed or read-only")
        try:
            self._pending.put_nowait(work)
        except queue.Full:
            raise LogWriteFailed(f"{self._path}: {_PENDING_APPENDS} appends are waiting") from None
        # The write goes on when its caller gives up: cancelling a wait must not tear a batch.
        return await asyncio.shield(work.done)

    async def partitions(self, topic: str) -> int:
        return self._topics[topic].partitions

    async def identity(self, topic: str) -> str:
        return self._topics[topic].identity

    async def ends(self, topic: str) -> Mapping[int, tuple[int, int]]:
        def work(connection: sqlite3.Connection) -> dict[int, tuple[int, int]]:
            rows = connection.execute(
                "SELECT partition, first_offset, next_offset FROM heads WHERE topic = ?",
                (self._topics[topic].id,),
            )
            return {partition: (first, following) for partition, first, following in rows}

        return await self._read(work)

    def subscribe(
        self, topics: Sequence[str], *, group: str | None, positions: PositionSource
    ) -> "_Subscription":
        subscription = _Subscription(self, topics, positions)
        self._subscriptions.add(subscription)
        return subscription

    async def settled(self, positions: Sequence[Position], *, timeout: float) -> bool:
        def dealt_with() -> bool:
            return all(s.is_past(p) for p in positions for s in self._subscriptions)

        try:
            async with asyncio.timeout(timeout), self._grown:
                await self._grown.wait_for(dealt_with)
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._writer is not None:
            await asyncio.to_thread(self._pending.put, None)
            await asyncio.to_thread(self._writer.join)
        if self._notifying is not None:
            await self._notifying
        if self._reads is not None:
            await self._loop.run_in_executor(self._reader, self._reads.close)
            self._reads = None
        self._reader.shutdown()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # --- Journal ---

    @property
    def owner_id(self) -> str:
        return self._owner_id

    async def held(self, topic: str) -> Mapping[str, bytes]:
        """The latest record of each key of the topic that is held and not released."""

        def work(connection: sqlite3.Connection) -> dict[str, bytes]:
            rows = connection.execute(
                "SELECT key, value FROM held WHERE topic = ?", (self._topics[topic].id,)
            )
            return dict(rows.fetchall())

        return await self._read(work)

    async def totals(self, topic: str) -> Totals:
        """How many keys of the topic were ever held, and how many of those released."""

        def work(connection: sqlite3.Connection) -> Totals:
            row = connection.execute(
                "SELECT held, released FROM totals WHERE topic = ?", (self._topics[topic].id,)
            ).fetchone()
            return Totals(*row) if row else Totals(0, 0)

        return await self._read(work)

    async def forget(self, partition: Partition, before: int) -> None:
        """Drop the records before an offset. Only a journal does that: with a log of its own they
        are the truth."""
        await self._queued(_Forget(partition, before, self._loop.create_future()))

    async def size(self) -> int:
        """Bytes in use: what was freed inside the file does not count."""

        def work(connection: sqlite3.Connection) -> int:
            pages, free, size = (
                int(connection.execute(f"PRAGMA {name}").fetchone()[0])
                for name in ("page_count", "freelist_count", "page_size")
            )
            return (pages - free) * size

        return await self._read(work)

    # --- Reading ---

    async def _read(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        def run() -> _T:
            if self._reads is None:
                self._reads = self._connect()
            try:
                return work(self._reads)
            except sqlite3.DatabaseError as error:
                raise LogCorrupt(str(self._path), str(error)) from error

        return await self._loop.run_in_executor(self._reader, run)

    def _connect(self) -> sqlite3.Connection:
        return log_file.connect(self._path, read_only=self._read_only)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        self._owner_id, self._topics, self._heads, self._lost = log_file.read_layout(
            connection, self._path, partitions=self._partitions, read_only=self._read_only
        )

    async def records(
        self, partition: Partition, offset: int, limit: int
    ) -> tuple[list[Record], int]:
        """Up to `limit` records from `offset` on, and the offset where to go on.

        Raises LogCorrupt with its place where the next record cannot be read; what lies before it
        has been returned by then.
        """
        topic = self._topics[partition.topic]

        def work(connection: sqlite3.Connection) -> tuple[list[Record], int]:
            end = log_file.next_offset(connection, topic.id, partition.number)
            rows, broken = self._rows(connection, topic.id, partition, offset, end, limit)
            found: list[Record] = []
            following = offset
            for at, appended_ms, key, value, stored in rows:
                if at != following and (gap := self._gap(connection, partition, following, at)):
                    broken = gap
                    break
                if stored != log_file.checksum(topic.id, partition.number, at, key, value):
                    broken = (at, "the checksum does not match")
                    break
                found.append(Record(partition.topic, partition.number, at, appended_ms, key, value))
                following = at + 1
            else:
                if broken is None and len(rows) < limit:
                    broken = self._gap(connection, partition, following, end)
            if broken is not None:
                if not found:
                    raise LogCorrupt(self._place(partition, broken[0]), broken[1])
                return found, found[-1].offset + 1
            return found, found[-1].offset + 1 if len(found) == limit else end

        return await self._read(functools.partial(log_file.at_one_moment, work=work))

    def _gap(
        self, connection: sqlite3.Connection, partition: Partition, first: int, before: int
    ) -> tuple[int, str] | None:
        """Whether something is missing from `first` on, before a record: a compacted topic has
        gaps, a journal has forgotten what lies before its first offset, and a salvage has said what
        it could not save; nothing else may be missing."""
        topic = self._topics[partition.topic]
        if topic.compacted or first >= before:
            return None
        kept = connection.execute(
            "SELECT first_offset FROM heads WHERE topic = ? AND partition = ?",
            (topic.id, partition.number),
        ).fetchone()[0]
        missing = log_file.behind(self._lost.get(partition, ()), max(first, kept))
        return (missing, "the record is missing") if missing < before else None

    def _rows(
        self,
        connection: sqlite3.Connection,
        topic: int,
        partition: Partition,
        offset: int,
        end: int,
        limit: int,
    ) -> tuple[list[Any], tuple[int, str] | None]:
        """Rows up to the first that cannot be read, and where and why that is."""
        try:
            cursor = connection.execute(
                'SELECT "offset", appended_ms, key, value, checksum FROM records WHERE topic = ?'
                ' AND partition = ? AND "offset" >= ? AND "offset" < ? ORDER BY "offset" LIMIT ?',
                (topic, partition.number, offset, end, limit),
            )
            return cursor.fetchall(), None
        except sqlite3.DatabaseError as error:
            rows: list[Any] = []
            for at in range(offset, end):
                if len(rows) == limit:
                    break
                row = self._one(connection, topic, partition.number, at)
                if row is _UNREADABLE:
                    return rows, (at, str(error))
                if row is not None:
                    rows.append(row)
            return rows, None

    @staticmethod
    def _one(connection: sqlite3.Connection, topic: int, partition: int, offset: int) -> Any:
        try:
            return connection.execute(
                'SELECT "offset", appended_ms, key, value, checksum FROM records'
                ' WHERE topic = ? AND partition = ? AND "offset" = ?',
                (topic, partition, offset),
            ).fetchone()
        except sqlite3.DatabaseError:
            return _UNREADABLE

    def _place(self, partition: Partition, offset: int) -> str:
        return f"{self._path}: {partition.topic}[{partition.number}] offset {offset}"

    def head(self, partition: Partition) -> int:
        """Offset of the next record to come."""
        return self._heads[partition]

    def topic_partitions(self, topics: Sequence[str]) -> list[Partition]:
        return [Partition(t, n) for t in topics for n in range(self._topics[t].partitions)]

    # --- Writing, in its own thread ---

    def _write_loop(self) -> None:
        connection = self._connect()
        ending = False
        while not ending:
            batch: list[_Append | _Forget] = []
            item = self._pending.get()
            while True:
                if item is None:
                    ending = True
                else:
                    batch.append(item)
                try:
                    item = self._pending.get_nowait()
                except queue.Empty:
                    break
            if batch:
                self._write(connection, batch)
        connection.close()

    def _write(self, connection: sqlite3.Connection, batch: list[_Append | _Forget]) -> None:
        heads: dict[Partition, int] = {}
        try:
            connection.execute("BEGIN IMMEDIATE")
            results = [
                self._insert(connection, work, heads)
                if isinstance(work, _Append)
                else self._drop(connection, work)
                for work in batch
            ]
            connection.executemany(
                "UPDATE heads SET next_offset = ? WHERE topic = ? AND partition = ?",
                [(at, self._topics[name].id, number) for (name, number), at in heads.items()],
            )
            connection.execute("COMMIT")
        except Exception as error:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            failure = LogWriteFailed(f"{self._path}: {error}")
            self._tell([(append.done, failure) for append in batch])
            return
        self._heads.update(heads)
        self._tell([(a.done, r) for a, r in zip(batch, results, strict=True)])

    def _drop(self, connection: sqlite3.Connection, forget: _Forget) -> list[Position]:
        topic = self._topics[forget.partition.topic]
        place = (topic.id, forget.partition.number)
        connection.execute(
            'DELETE FROM records WHERE topic = ? AND partition = ? AND "offset" < ?',
            (*place, forget.before),
        )
        connection.execute(
            "UPDATE heads SET first_offset = max(first_offset, min(?, next_offset))"
            " WHERE topic = ? AND partition = ?",
            (forget.before, *place),
        )
        return []

    def _insert(
        self, connection: sqlite3.Connection, append: _Append, heads: dict[Partition, int]
    ) -> list[Position]:
        topic = self._topics[append.topic]
        now_ms = time.time_ns() // 1_000_000
        positions, rows = [], []
        for message in append.messages:
            number = message.partition
            if number is None:
                number = partition_of(message.key, topic.partitions)
            place = Partition(append.topic, number)
            at = heads[place] if place in heads else self._heads[place]
            heads[place] = at + 1
            proof = log_file.checksum(topic.id, number, at, message.key, message.value)
            rows.append((topic.id, number, at, now_ms, message.key, message.value, proof))
            positions.append(Position(append.topic, number, at + 1))
        connection.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        # After the insert: a key may come twice in one append.
        for message, (_, number, following) in zip(append.messages, positions, strict=True):
            if topic.compacted:
                log_file.compact(connection, topic.id, number, message.key, following - 1)
            if message.keep != "no":
                log_file.keep(connection, topic.id, message)
        return positions

    def _tell(
        self, outcomes: list[tuple["asyncio.Future[list[Position]]", list[Position] | Exception]]
    ) -> None:
        def on_loop() -> None:
            for done, outcome in outcomes:
                if done.done():
                    continue
                if isinstance(outcome, Exception):
                    done.set_exception(outcome)
                    # The caller may have gone; that is no reason for a warning at exit.
                    done.exception()
                else:
                    done.set_result(outcome)
            self.notify()

        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(on_loop)

    def notify(self) -> None:
        """Wake readers and those who wait for readers."""
        if self._notifying is None or self._notifying.done():
            self._notifying = self._loop.create_task(self._notify())

    async def _notify(self) -> None:
        async with self._grown:
            self._grown.notify_all()

    async def wait_for(self, condition: Callable[[], bool], timeout: float) -> bool:
        try:
            async with asyncio.timeout(timeout), self._grown:
                await self._grown.wait_for(condition)
        except TimeoutError:
            return False
        return True

    def unsubscribed(self, subscription: "_Subscription") -> None:
        self._subscriptions.discard(subscription)


class _Subscription:
    """A reader of all partitions of its topics: an embedded log has one process to serve."""

    def __init__(self, log: SqliteLog, topics: Sequence[str], positions: PositionSource) -> None:
        self._log = log
        self._topics = tuple(topics)
        self._source = positions
        self._next: dict[Partition, int] | None = None
        self._dealt: dict[Partition, int] = {}
        self._turn = 0

    @property
    def assigned(self) -> frozenset[Partition]:
        return frozenset(self._next or ())

    def is_past(self, position: Position) -> bool:
        partition = Partition(position.topic, position.partition)
        if position.topic not in self._topics:
            return True
        return self._dealt.get(partition, 0) >= position.offset

    async def fetch(self, *, max_records: int, timeout: float) -> Sequence[Batch]:
        following = await self._begin() if self._next is None else self._next
        self._dealt = dict(following)
        self._log.notify()
        if not await self._log.wait_for(lambda: bool(self._behind()), timeout):
            return []
        batches: list[Batch] = []
        left = max_records
        # Partitions take turns, so that a busy one cannot starve the others.
        waiting = self._behind()
        self._turn += 1
        start = self._turn % len(waiting)
        for partition in waiting[start:] + waiting[:start]:
            start = following[partition]
            records, beyond = await self._log.records(partition, start, left)
            if records:
                batches.append(Batch(partition.topic, partition.number, records, beyond, start))
            following[partition] = beyond
            left -= len(records)
            if left <= 0:
                break
        return batches

    async def seek(self, partition: Partition, offset: int) -> None:
        if self._next is not None:
            self._next[partition] = offset

    async def caught_up(self) -> bool:
        if self._next is None:
            return False
        return all(self._dealt.get(p, 0) >= self._log.head(p) for p in self._next)

    async def close(self) -> None:
        self._log.unsubscribed(self)
        self._log.notify()

    def _behind(self) -> list[Partition]:
        assert self._next is not None
        return [p for p, offset in self._next.items() if self._log.head(p) > offset]

    async def _begin(self) -> dict[Partition, int]:
        partitions = self._log.topic_partitions(self._topics)
        given = await self._source(partitions)
        following: dict[Partition, int] = {}
        for topic in self._topics:
            for number, (first, end) in (await self._log.ends(topic)).items():
                partition = Partition(topic, number)
                offset = given.get(partition, first)
                if not first <= offset <= end:
                    raise PositionLost(
                        f"{topic}[{number}]: position {offset} is outside the log, "
                        f"which holds {first} to {end}"
                    )
                following[partition] = offset
        self._next = following
        return following


_UNREADABLE: Any = object()
