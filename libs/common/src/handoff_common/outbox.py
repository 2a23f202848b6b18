"""The outbox: events saved with the state that caused them, forwarded to the log in order.

A crash between the log's acknowledgement and the delete sends an event again; readers keep the
greatest revision, so that does no harm.
"""

import asyncio
from collections.abc import Sequence

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

from handoff_common.database import Database
from handoff_common.errors import LogWriteFailed
from handoff_common.log import EventLog, Message, Position
from handoff_common.telemetry import get_logger

_BATCH = 1_000
_POLL_SECONDS = 1.0
_BACK_OFF_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


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


async def enqueue(
    tx: AsyncConnection, table: Table, messages: Sequence[tuple[str, Message]]
) -> None:
    """Save outgoing events in the caller's transaction; `messages` are (topic, message)."""
    if messages:
        await tx.execute(
            insert(table),
            [
                {"topic": topic, "partition": m.partition, "key": m.key, "value": m.value}
                for topic, m in messages
            ],
        )


class Outbox:
    """Forwards one outbox table. Exactly one runs per table at a time."""

    def __init__(self, database: Database, table: Table, log: EventLog) -> None:
        self._database = database
        self._table = table
        self._log = log
        self._wake = asyncio.Event()
        self._sent = asyncio.Condition()
        self._sent_id = 0
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
            except LogWriteFailed as error:
                pause = _BACK_OFF_SECONDS[min(failures, len(_BACK_OFF_SECONDS) - 1)]
                failures += 1
                self._logger.warning("outbox_held", detail=str(error), retry_in=pause)
                await asyncio.sleep(pause)
                continue
            if not sent:
                try:
                    async with asyncio.timeout(_POLL_SECONDS):
                        await self._wake.wait()
                except TimeoutError:
                    pass

    async def flushed(self, *, timeout: float) -> Sequence[Position] | None:
        """Wait until all that was enqueued and committed before the call is in the log.

        Returns the newest positions that this outbox has written, None when `timeout` seconds did
        not suffice.
        """
        self.poke()
        try:
            async with asyncio.timeout(timeout):
                async with self._database.read() as tx:
                    last = await tx.scalar(select(func.max(self._table.c.id)))
                if last is not None:
                    async with self._sent:
                        await self._sent.wait_for(lambda: self._sent_id >= last)
        except TimeoutError:
            return None
        return list(self._last.values())

    async def _forward(self) -> int:
        table = self._table
        async with self._database.read() as tx:
            rows = (await tx.execute(select(table).order_by(table.c.id).limit(_BATCH))).all()
        start = 0
        while start < len(rows):
            end = start
            while end < len(rows) and rows[end].topic == rows[start].topic:
                end += 1
            run = rows[start:end]
            written = await self._log.append(
                run[0].topic, [Message(r.key, bytes(r.value), r.partition) for r in run]
            )
            for position in written:
                self._last[position.topic, position.partition] = position
            async with self._database.transaction() as tx:
                await tx.execute(
                    delete(table).where(table.c.id >= run[0].id, table.c.id <= run[-1].id)
                )
            async with self._sent:
                self._sent_id = run[-1].id
                self._sent.notify_all()
            start = end
        return len(rows)
