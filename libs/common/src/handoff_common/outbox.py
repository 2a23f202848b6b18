"""The outbox: events saved with the state that caused them, forwarded to the log in order.

A crash between the log's acknowledgement and the delete sends an event again; readers keep the
greatest revision, so that does no harm. Of several processes on one Postgres database one sends at
a time: it holds the table's name as an advisory lock in the transaction that also deletes what was
sent, so a sender that dies or is cut off leaves no lease behind.
"""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    Column,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    delete,
    func,
    insert,
    select,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from handoff_common import bulk
from handoff_common.away import BACK_OFF_SECONDS
from handoff_common.database import Database, among, try_lock_name
from handoff_common.errors import DatabaseAway, LogUnreachable, LogWriteFailed
from handoff_common.log import EventLog, Message, Position
from handoff_common.telemetry import get_logger

_BATCH = 1_000
_POLL_SECONDS = 1.0
_TURN_SECONDS = 0.05


def outbox_table(metadata: MetaData) -> Table:
    return Table(
        "outbox",
        metadata,
        Column(
            "id",
            BigInteger().with_variant(Integer, "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        Column("topic", String(128), nullable=False),
        Column("partition", Integer),
        Column("key", Text, nullable=False),
        Column("value", LargeBinary, nullable=False),
        sqlite_autoincrement=True,
    )


_COLUMNS = ("topic", "partition", "key", "value")


async def enqueue(
    tx: AsyncConnection, table: Table, messages: Sequence[tuple[str, Message]]
) -> None:
    """Save outgoing events in the caller's transaction; `messages` are (topic, message)."""
    records = [(topic, m.partition, m.key, m.value) for topic, m in messages]
    if len(records) >= bulk.FEW:
        await bulk.copy(tx, table, _COLUMNS, records)
    elif records:
        await tx.execute(
            insert(table), [dict(zip(_COLUMNS, record, strict=True)) for record in records]
        )


class Outbox:
    """Forwards one outbox table. Each process runs one; the database has them take turns."""

    def __init__(self, database: Database, table: Table, log: EventLog) -> None:
        self._database = database
        self._table = table
        self._log = log
        self._wake = asyncio.Event()
        self._sent = asyncio.Event()
        self._last: dict[tuple[str, int], Position] = {}
        self._logger = get_logger("outbox")

    def poke(self) -> None:
        """Say that something was committed; without it the loop looks every second."""
        self._wake.set()

    async def run(self) -> None:
        failures = 0
        while True:
            self._wake.clear()
            try:
                sent = await self._forward()
                failures = 0
            except (LogWriteFailed, LogUnreachable, DatabaseAway) as error:
                pause = BACK_OFF_SECONDS[min(failures, len(BACK_OFF_SECONDS) - 1)]
                failures += 1
                self._logger.warning("outbox_held", detail=str(error), retry_in=pause)
                await asyncio.sleep(pause)
                continue
            if sent:
                continue
            try:
                # While another process sends, what it has read may lie before what woke this one.
                async with asyncio.timeout(_TURN_SECONDS if sent is None else _POLL_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def flushed(self, *, timeout: float) -> Sequence[Position] | None:
        """Wait until all that was enqueued and committed before the call is in the log, whichever
        process sends it.

        Returns positions in the log behind which it lies, None when `timeout` seconds did not
        suffice.
        """
        self.poke()
        try:
            async with asyncio.timeout(timeout):
                positions = dict(self._last)
                waiting = await self._waiting(None)
                while waiting is not None:
                    self._sent.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_TURN_SECONDS):
                            await self._sent.wait()
                    still = await self._waiting(waiting.last)
                    if still is None:
                        positions |= await self._ends(waiting.topics)
                    waiting = still and still._replace(last=waiting.last)
        except (TimeoutError, LogUnreachable, DatabaseAway):
            return None
        return list((positions | self._last).values())

    async def _waiting(self, through: int | None) -> "_Waiting | None":
        """What is to be sent, up to an id; None where there is nothing.

        Ids are given out before they are committed, so a smaller one may still come: what was
        committed by now is sent once nothing up to the greatest id of now is left.
        """
        c = self._table.c
        query = select(c.topic, func.max(c.id)).group_by(c.topic)
        if through is not None:
            query = query.where(c.id <= through)
        async with self._database.read() as tx:
            rows = (await tx.execute(query)).all()
        if not rows:
            return None
        return _Waiting(max(last for _, last in rows), tuple(topic for topic, _ in rows))

    async def _ends(self, topics: Sequence[str]) -> dict[tuple[str, int], Position]:
        """Where the topics end now: behind whatever another process has sent."""
        found = {}
        for topic in topics:
            for number, (_, end) in (await self._log.ends(topic)).items():
                if end:
                    found[topic, number] = Position(topic, number, end)
        return found

    async def _forward(self) -> int | None:
        """Send what waits, a batch; how many, None while another process sends."""
        if self._database.is_sqlite:
            # One process owns the file, and a transaction around the log would keep others waiting.
            async with self._database.read() as tx:
                rows = await self._batch(tx)
            for run in _runs(rows):
                await self._append(run)
                async with self._database.transaction() as tx:
                    await self._delete(tx, run)
                self._sent.set()
            return len(rows)
        async with self._database.transaction() as tx:
            if not await try_lock_name(tx, f"send {self._table.name}"):
                return None
            rows = await self._batch(tx)
            for run in _runs(rows):
                await self._append(run)
            await self._delete(tx, rows)
        if rows:
            self._sent.set()
        return len(rows)

    async def _batch(self, tx: AsyncConnection) -> Sequence[Any]:
        return (
            await tx.execute(select(self._table).order_by(self._table.c.id).limit(_BATCH))
        ).all()

    async def _append(self, run: Sequence[Any]) -> None:
        written = await self._log.append(
            run[0].topic, [Message(r.key, bytes(r.value), r.partition) for r in run]
        )
        for position in written:
            self._last[position.topic, position.partition] = position

    async def _delete(self, tx: AsyncConnection, rows: Sequence[Any]) -> None:
        # By their ids, not by a range: on Postgres a smaller id may be committed after a greater.
        if rows:
            await tx.execute(
                delete(self._table).where(among(tx, self._table.c.id, [r.id for r in rows]))
            )


class _Waiting(NamedTuple):
    last: int
    topics: tuple[str, ...]


def _runs(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Neighbours of one topic, so that each append is one topic's and the order stays."""
    for _, run in groupby(rows, key=lambda row: row.topic):
        yield list(run)
