"""The counts that the workers of one node share: a table in a buffer that all of them see. Pure.

A row for each worker, a column for each service that has a limit. A cell holds how many connections
of the service that worker has; a worker writes its own row only. A row whose owner is gone is void.
Beside the cells, each column counts the connections begun in each of the last 1000 milliseconds.

Whoever calls holds the node's lock, except for `put`, which changes one cell from a value above
zero. A worker may be killed between any two writes: what is written first never says too little.
"""

from array import array
from collections.abc import Callable
from typing import Final

from handoff_edge.limits import Counts

ROWS: Final = 128
"""Workers at once: as many as a node may have, and as many that still drain behind a restart."""

SERVICES: Final = 4_096
"""Services with a limit that may have connections at once."""

KEY_BYTES: Final = 16
_SPAN_MS: Final = 1_000
_HEADER: Final = 16
_NOBODY: Final = bytes(KEY_BYTES)

SIZE: Final = _HEADER + SERVICES * (KEY_BYTES + 8 + 2 * _SPAN_MS + 4 * ROWS)
"""Bytes of the buffer. All zero is an empty table."""


class CountsTable:
    """The table, as the worker of row `own` sees it.

    buffer: SIZE bytes, writable. alive: whether the owner of a row is there.
    """

    def __init__(self, buffer: memoryview, own: int, alive: Callable[[int], bool]) -> None:
        self._own = own
        self._alive = alive
        self._views: list[memoryview] = []
        end = _HEADER
        self._used = self._view(buffer[:_HEADER], "I")
        """[0]: columns handed out so far. [1]: rows ever used."""
        self._keys = self._view(buffer[end : (end := end + KEY_BYTES * SERVICES)], "B")
        self._until = self._view(buffer[end : (end := end + 8 * SERVICES)], "Q")
        """Column → the millisecond up to which its `begun` is told."""
        self._begun = self._view(buffer[end : (end := end + 2 * _SPAN_MS * SERVICES)], "H")
        self._cells = self._view(buffer[end : end + 4 * ROWS * SERVICES], "I")
        self._full_until = 0

    def enter(self) -> None:
        """Take the own row over, which may hold what its last owner left."""
        start = self._own * SERVICES
        self._cells[start : start + SERVICES] = memoryview(array("I", bytes(4 * SERVICES)))
        self._used[1] = max(self._used[1], self._own + 1)

    def column(self, key: bytes, now_ms: int) -> int | None:
        """Where the service of that key is counted, from now on if it was not; None where the table
        is full of others."""
        found = self._search(key)
        if found is not None:
            return found
        column = self._used[0]
        if column >= SERVICES:
            again = self._free(now_ms)
            if again is None:
                return None
            column = again
        self._until[column] = 0
        self._keys[column * KEY_BYTES : (column + 1) * KEY_BYTES] = key
        self._used[0] = max(self._used[0], column + 1)
        return column

    def is_at(self, key: bytes, column: int) -> bool:
        """Whether the service is still counted there."""
        return self._keys[column * KEY_BYTES : (column + 1) * KEY_BYTES] == key

    def open(self, column: int) -> int:
        """Connections of all workers. Those of one that is gone may be among them: see `void`."""
        return sum(self._cells[column : self._used[1] * SERVICES : SERVICES])

    def void(self, column: int) -> None:
        """Take out what workers left there that are gone."""
        for row in range(self._used[1]):
            at = row * SERVICES + column
            if self._cells[at] and row != self._own and not self._alive(row):
                self._cells[at] = 0

    def recent(self, column: int, now_ms: int) -> int:
        """Connections begun in the 1000 milliseconds that end with `now_ms`."""
        self._advance(column, now_ms)
        start = column * _SPAN_MS
        return sum(self._begun[start : start + _SPAN_MS])

    def begin(self, column: int, now_ms: int) -> None:
        """One more is begun."""
        self._advance(column, now_ms)
        self._begun[column * _SPAN_MS + self._until[column] % _SPAN_MS] += 1

    def put(self, column: int, connections: int) -> None:
        """What the own worker has."""
        self._cells[self._own * SERVICES + column] = connections

    def counts(self, column: int, now_ms: int) -> Counts:
        return Counts(self.open(column), self.recent(column, now_ms))

    def release(self) -> None:
        """Let the buffer go; nothing may be called any more."""
        for view in self._views:
            view.release()

    def _view(self, part: memoryview, kind: str) -> memoryview:
        view = part.cast("B").cast(kind) if kind != "B" else part.cast("B")  # type: ignore[call-overload]
        self._views += [part, view]
        return view

    def _advance(self, column: int, now_ms: int) -> None:
        """Forget what is older than a second. Done twice, it does no harm: the instant is written
        last."""
        until, start = self._until[column], column * _SPAN_MS
        passed = now_ms - until
        if passed <= 0:
            return
        if passed >= _SPAN_MS:
            self._clear(start, _SPAN_MS)
        else:
            first = (until + 1) % _SPAN_MS
            tail = min(passed, _SPAN_MS - first)
            self._clear(start + first, tail)
            self._clear(start, passed - tail)
        self._until[column] = now_ms

    def _clear(self, at: int, count: int) -> None:
        if count:
            self._begun[at : at + count] = memoryview(bytes(2 * count)).cast("H")

    def _search(self, key: bytes) -> int | None:
        keys = self._keys[: self._used[0] * KEY_BYTES].tobytes()
        at = keys.find(key)
        while at >= 0:
            if at % KEY_BYTES == 0:
                return at // KEY_BYTES
            at = keys.find(key, at + 1)
        return None

    def _free(self, now_ms: int) -> int | None:
        """A column whose service has no connection and begun none for a second. All of them are
        given back at once, and not looked for again before a second has passed."""
        found = self._search(_NOBODY)
        if found is not None or now_ms < self._full_until:
            return found
        for column in range(SERVICES):
            self.void(column)
            if not self.open(column) and not self.recent(column, now_ms):
                self._keys[column * KEY_BYTES : (column + 1) * KEY_BYTES] = _NOBODY
        self._full_until = now_ms + _SPAN_MS
        return self._search(_NOBODY)
