"""The log that connects the services: the protocol that its two implementations share.

A log is a set of topics; a topic is a fixed number of partitions; a partition is a sequence of
records with ascending offsets. `log_sqlite` is the embedded one and the edge's journal.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

Keep = Literal["no", "hold", "release"]
"""What a journal does with a record besides appending it: `hold` makes it the key's latest record,
to be found by `Journal.held` until a `release` for that key."""


class Message(NamedTuple):
    """What is appended. The key chooses the partition unless `partition` names it."""

    key: str
    value: bytes
    partition: int | None = None
    keep: Keep = "no"


class Record(NamedTuple):
    """What is read. `appended_ms` is the log's own append time, epoch milliseconds."""

    topic: str
    partition: int
    offset: int
    appended_ms: int
    key: str
    value: bytes


class Partition(NamedTuple):
    topic: str
    number: int


class Position(NamedTuple):
    """`offset` is that of the next record to read."""

    topic: str
    partition: int
    offset: int


class Batch(NamedTuple):
    """Records of one partition in order, never empty. `next_offset` is where to go on; a compacted
    log may have gaps, so it need not be the last offset plus one. `start` is where the reader
    stood: a batch follows only on what ended there."""

    topic: str
    partition: int
    records: Sequence[Record]
    next_offset: int
    start: int


PositionSource = Callable[[Sequence[Partition]], Awaitable[Mapping[Partition, int]]]
"""Asked at each assignment where to begin; a partition left out begins at its start."""


class Subscription(Protocol):
    """A reader. Asking for the next batch says that the ones before have been dealt with."""

    @property
    def assigned(self) -> frozenset[Partition]: ...

    async def fetch(self, *, max_records: int, timeout: float) -> Sequence[Batch]:
        """Batches of one or more partitions, or none after `timeout` seconds.

        Raises PositionLost where a position is beyond what the log holds, LogCorrupt where a record
        cannot be read.
        """

    async def seek(self, partition: Partition, offset: int) -> None:
        """Go on reading elsewhere, after a failed compare-and-set."""

    async def caught_up(self) -> bool:
        """Whether everything that is in the log now has been dealt with (fetched *and* followed by
        another fetch)."""

    async def close(self) -> None: ...


class EventLog(Protocol):
    async def append(self, topic: str, messages: Sequence[Message]) -> Sequence[Position]:
        """Append all or nothing; returns when durable, with the position after each message.

        Raises LogWriteFailed.
        """

    async def partitions(self, topic: str) -> int: ...

    async def identity(self, topic: str) -> str:
        """Changes when a topic is deleted and made anew; stored beside positions."""

    async def ends(self, topic: str) -> Mapping[int, tuple[int, int]]:
        """Partition → (offset of the first record kept, offset of the next record to come)."""

    def subscribe(
        self, topics: Sequence[str], *, group: str | None, positions: PositionSource
    ) -> Subscription:
        """A reader of the topics: of the partitions its group leaves to it, or of all of them where
        `group` is None."""

    async def settled(self, positions: Sequence[Position], *, timeout: float) -> bool:
        """Wait until every reader that this process can see has dealt with what lies before the
        positions; False when `timeout` seconds did not suffice."""

    async def close(self) -> None: ...


class Totals(NamedTuple):
    """Since the journal was made: keys held for the first time, and keys released."""

    held: int
    released: int


class Journal(Protocol):
    """What an edge needs besides a log: its identity, and its open connections after a crash."""

    @property
    def owner_id(self) -> str:
        """Made once with the journal; the edge id."""

    async def held(self, topic: str) -> Mapping[str, bytes]:
        """Key → latest record of each key of the topic that is held and not released."""

    async def totals(self, topic: str) -> Totals: ...


class JournaledLog(EventLog, Journal, Protocol):
    """The embedded log: both in one, so that an append and its `keep` are one transaction."""


class Spool(JournaledLog, Protocol):
    """A journal that is not the log itself: what it holds is copied, in order, and then dropped."""

    def head(self, partition: Partition) -> int:
        """Offset of the next record to come."""

    async def records(
        self, partition: Partition, offset: int, limit: int
    ) -> tuple[Sequence[Record], int]:
        """Up to `limit` records from `offset` on, and where to go on. Raises LogCorrupt."""

    async def forget(self, partition: Partition, before: int) -> None:
        """Drop the records before an offset: they are in the log that others read.

        Raises LogWriteFailed.
        """

    async def size(self) -> int:
        """Bytes that are in use."""

    async def wait_for(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Wait until something was appended that makes the condition true."""
