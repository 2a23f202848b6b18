"""Feeds the rule book from the log, and keeps it on disk with the positions it was read up to.

An edge that starts reads first what came while it was gone, since the file may be old: what it does
not tell of would be refused. One that starts while the log is away works from the file and states
its age. A log that fails while the edge runs changes nothing: the book stays as it is, and reading
is tried again.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from handoff_common import codec
from handoff_common.clock import Clock
from handoff_common.errors import LogError, PositionLost, Unreadable
from handoff_common.log import Batch, EventLog, Partition
from handoff_common.telemetry import get_logger
from handoff_common.topics import CONTROLS, CUSTOMERS, SERVICES
from handoff_edge.rulebook import RuleBook, Saved

_TOPICS: Final = (SERVICES.name, CUSTOMERS.name, CONTROLS.name)
_BATCH: Final = 2_000
_POLL_SECONDS: Final = 1.0
_RETRY_SECONDS: Final = 1.0


class _File(msgspec.Struct, frozen=True, kw_only=True):
    """rulebook.json. current_ms: when the book was last known to be up to date. positions: topic →
    partition → next offset; identities: topic → identity of the topic that they belong to."""

    current_ms: int
    identities: dict[str, str]
    positions: dict[str, dict[str, int]]
    book: Saved


class Configuration:
    """See the module.

    book: the rule book. positions: up to where it was read. seen: whether there ever was a
    configuration, be it an empty one. changed: set at each change; who waits for it clears it.
    """

    def __init__(
        self, log: EventLog, clock: Clock, path: Path, *, save_seconds: float = 5.0
    ) -> None:
        self._log = log
        self._clock = clock
        self._path = path
        self._save_seconds = save_seconds
        self._logger = get_logger("configuration")
        self.positions: dict[Partition, int] = {}
        self._identities: dict[str, str] = {}
        self._unsaved = False
        self._current_ms = 0
        self.book = RuleBook()
        self.seen = False
        self.changed = asyncio.Event()
        self._looked = asyncio.Event()
        self._current = False

    @property
    def age_ms(self) -> int | None:
        """Since the book was last known to be up to date; None while there is none."""
        return self._clock.now_ms() - self._current_ms if self.seen else None

    async def load(self) -> None:
        """Take over the file, where there is one and it belongs to this log."""
        try:
            text = await asyncio.to_thread(self._path.read_bytes)
        except FileNotFoundError:
            return
        except OSError as error:
            self._logger.error("rulebook_unreadable", path=str(self._path), detail=str(error))
            return
        try:
            saved = msgspec.json.decode(text, type=_File)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._logger.error("rulebook_unreadable", path=str(self._path), detail=str(error))
            return
        self._identities = saved.identities
        try:
            if not await self._is_of_this_log():
                return
        except LogError as error:
            # The log is away: the book is worked from, and looked at again when it is back.
            self._logger.warning("rulebook_unconfirmed", detail=str(error))
        self.book = RuleBook.restored(saved.book)
        self.positions = {
            Partition(topic, int(number)): offset
            for topic, offsets in saved.positions.items()
            for number, offset in offsets.items()
        }
        self._current_ms = saved.current_ms
        self.seen = True

    async def first_look(self, *, timeout: float) -> bool:
        """Wait until `run` has read the log to its end, or found that it cannot; whether the book
        is up to date. timeout: seconds, for a log that answers neither way."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._looked.wait()
        return self._current

    async def run(self) -> None:
        """The loop that reads the log."""
        while True:
            try:
                await self._read()
            except PositionLost as error:
                # Snapshots bear revisions, so reading all of them again does no harm.
                self._logger.warning("rulebook_read_anew", detail=str(error))
                self.positions = {}
            except LogError as error:
                self._logger.error("configuration_unreachable", detail=str(error))
                self._looked.set()
                await asyncio.sleep(_RETRY_SECONDS)

    async def keep(self) -> None:
        """The loop that saves the book when it changed."""
        while True:
            await asyncio.sleep(self._save_seconds)
            if self._unsaved:
                await self.save()

    async def save(self) -> None:
        """Write the file; a failure is logged, since the log can be read again instead."""
        if not self.seen:
            return
        self._unsaved = False
        positions: dict[str, dict[str, int]] = {}
        for (topic, number), offset in self.positions.items():
            positions.setdefault(topic, {})[str(number)] = offset
        try:
            saved = _File(
                current_ms=self._current_ms,
                identities=self._identities,
                positions=positions,
                book=self.book.saved(),
            )
            await asyncio.to_thread(_replace, self._path, msgspec.json.encode(saved))
        except OSError as error:
            self._unsaved = True
            self._logger.error("rulebook_not_saved", path=str(self._path), detail=str(error))

    async def _is_of_this_log(self) -> bool:
        """Whether what was read belongs to the topics as they are now. Raises LogError."""
        for topic, identity in self._identities.items():
            if topic not in _TOPICS or await self._log.identity(topic) != identity:
                self._logger.warning("rulebook_of_another_log", topic=topic)
                return False
        return True

    async def _read(self) -> None:
        if not await self._is_of_this_log():
            # Revisions of another log say nothing here: what it holds replaces the book.
            self.book, self.positions = RuleBook(), {}
        self._identities = {topic: await self._log.identity(topic) for topic in _TOPICS}

        async def positions(_: Sequence[Partition]) -> Mapping[Partition, int]:
            return self.positions

        subscription = self._log.subscribe(_TOPICS, group=None, positions=positions)
        caught_up = False
        try:
            while True:
                batches = await subscription.fetch(
                    max_records=_BATCH, timeout=_POLL_SECONDS if caught_up else 0.0
                )
                for batch in batches:
                    self._fold(batch)
                if batches:
                    continue
                caught_up = await subscription.caught_up()
                if caught_up:
                    self._current_ms = self._clock.now_ms()
                    self._current = True
                    self._looked.set()
                    if not self.seen:
                        self.seen = self._unsaved = True
                        self.changed.set()
        finally:
            await subscription.close()

    def _fold(self, batch: Batch) -> None:
        for record in batch.records:
            try:
                event = codec.decode(record.topic, record.value)
            except Unreadable as error:
                self._logger.error(
                    "record_unreadable",
                    topic=record.topic,
                    partition=record.partition,
                    offset=record.offset,
                    detail=str(error),
                )
                continue
            if self.book.apply(event):
                self.changed.set()
        self.positions[Partition(batch.topic, batch.partition)] = batch.next_offset
        self._unsaved = True


def _replace(path: Path, data: bytes) -> None:
    """Durable and atomic: after a crash there is the old file or the new one."""
    draft = path.with_name(path.name + ".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
