"""The file in which the workers of a node count together (docs/adr/0018-limits-per-node.md).

`counts/table` below the node's data folder, mapped into each worker; `counts/N` is the file whose
lock says that the owner of row N is there. The kernel frees it with the process, however that ends.
"""

import fcntl
import mmap
import os
import time
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Final

from handoff_common.errors import HandoffError
from handoff_common.events import Limits
from handoff_edge.counts_table import KEY_BYTES, ROWS, SIZE, CountsTable
from handoff_edge.errors import Refusal, Refused
from handoff_edge.limits import over_limit

COUNTS: Final = "counts"
"""The folder, below the node's data folder."""

_PATIENCE_SECONDS: Final = 0.5
_IMPATIENT_SECONDS: Final = 0.01
_START_SECONDS: Final = 10.0
_PAUSE_SECONDS: Final = 0.00005


def boot_ms() -> int:
    """The one clock that all processes of a machine share and nobody sets."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)) // 1_000_000


class NodeCounts:
    """One worker's hold on the file. Not thread-safe."""

    def __init__(self, folder: Path, *, now_ms: Callable[[], int] = boot_ms) -> None:
        """Join the workers that are there. Raises OSError, HandoffError."""
        self._folder = folder
        self._now_ms = now_ms
        self._columns: dict[str, tuple[bytes, int]] = {}
        self._told: set[str] = set()
        self._peers: dict[int, int] = {}
        self._stuck = False
        folder.mkdir(parents=True, exist_ok=True)
        self._file = os.open(folder / "table", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not self._lock(_START_SECONDS):
            raise HandoffError(f"{folder / 'table'}: another worker has held its lock for too long")
        try:
            self._row = self._claim()
            if not any(self._alive(row) for row in range(ROWS) if row != self._row):
                # Nobody counts: what is there is of a former start of the machine, or release.
                _write_empty(self._file)
            if os.fstat(self._file).st_size != SIZE:
                raise HandoffError(f"{folder / 'table'} is in use by workers of another release")
            self._map = mmap.mmap(self._file, SIZE)
            self._table = CountsTable(memoryview(self._map), self._row, self._alive)
            self._table.enter()
        finally:
            self._unlock()

    def take(self, service_id: str, limits: Limits, here: int) -> None:
        """Count one in, where the limits allow it with all that the node has.

        here: connections that this worker has with it. Raises Refused; nothing was counted then.
        """
        if not self._lock(_PATIENCE_SECONDS):
            raise Refused(Refusal("busy", "the node's counts are locked", retry_after=1))
        try:
            now_ms = self._now_ms()
            column = self._column(service_id, now_ms)
            if column is None:
                text = "too many services with limits have connections on this node"
                raise Refused(Refusal("busy", text, retry_after=5))
            if here > 1:
                # Those from before it had a limit may not have been counted yet.
                self._table.put(column, here - 1)
                self._told.add(service_id)
            if over_limit(limits, self._table.counts(column, now_ms)):
                # Asked again without those that are gone: to look for them costs calls.
                self._table.void(column)
                if refusal := over_limit(limits, self._table.counts(column, now_ms)):
                    raise Refused(refusal)
            if limits.max_new_per_second is not None:
                self._table.begin(column, now_ms)
            self._table.put(column, here)
            self._told.add(service_id)
        finally:
            self._unlock()

    def tell(self, service_id: str, here: int) -> bool:
        """Count what this worker has of a service that has got a limit meanwhile, where the table
        has room for it; False where nobody can be asked now."""
        if service_id in self._told:
            return True
        if not self._lock(_PATIENCE_SECONDS):
            return False
        try:
            column = self._column(service_id, self._now_ms())
            if column is not None:
                self._table.put(column, here)
                self._told.add(service_id)
            return True
        finally:
            self._unlock()

    def put(self, service_id: str, here: int) -> None:
        """What this worker has of a service now; for one that nobody limits, nothing is done."""
        if service_id not in self._told:
            return
        _, column = self._columns[service_id]
        self._table.put(column, here)
        if not here:
            # From now on the column may be given to another service.
            self._told.discard(service_id)

    def close(self) -> None:
        """Leave: what this worker had is void."""
        self._table.release()
        self._map.close()
        for descriptor in (*self._peers.values(), self._file):
            os.close(descriptor)

    def _column(self, service_id: str, now_ms: int) -> int | None:
        known = self._columns.get(service_id)
        if known is not None and self._table.is_at(*known):
            return known[1]
        key = blake2b(service_id.encode(), digest_size=KEY_BYTES).digest()
        column = self._table.column(key, now_ms)
        if column is not None:
            self._columns[service_id] = key, column
        return column

    def _claim(self) -> int:
        for row in range(ROWS):
            descriptor = self._peer(row)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            return row
        raise HandoffError(f"{self._folder}: {ROWS} workers count there already")

    def _alive(self, row: int) -> bool:
        """Whether somebody owns the row. Asked under the node's lock, under which rows are taken
        too: nobody can find one locked by a mere question."""
        if row not in self._peers and not (self._folder / str(row)).exists():
            return False
        try:
            descriptor = self._peer(row)
        except OSError:
            # Out of descriptors: who cannot be asked is taken to be there, so no limit is passed.
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        return False

    def _peer(self, row: int) -> int:
        if row not in self._peers:
            path = self._folder / str(row)
            self._peers[row] = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return self._peers[row]

    def _lock(self, seconds: float) -> bool:
        """The node's lock, which nobody holds for more than some microseconds. Where somebody was
        stopped in between, only the first who comes waits long for it: the loop stands still."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._stuck = not self._try_for(_IMPATIENT_SECONDS if self._stuck else seconds)
            return not self._stuck
        return True

    def _try_for(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(_PAUSE_SECONDS)
            with suppress(BlockingIOError):
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
        return False

    def _unlock(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)


def _write_empty(descriptor: int) -> None:
    """Written out, not only made that long: with the disk full, who then writes to a hole of a
    mapped file is killed."""
    os.ftruncate(descriptor, 0)
    empty, at = bytes(SIZE), 0
    while at < SIZE:
        at += os.pwrite(descriptor, empty[at:], at)
