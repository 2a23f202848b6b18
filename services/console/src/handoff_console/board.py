"""What a live page shows, and which of it has changed since a viewer last heard. Pure.

A page is parts (a piece of HTML each, by name) and one table of rows, each with an id. Every change
raises the version; a viewer is told what is newer than the version that it has, however many came
between. So one board serves any number of viewers, fast and slow ones, and keeps nothing of them.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple


class View(NamedTuple):
    """parts: name → HTML. rows: (id, HTML of a `tr` with this id), as they are to stand. final:
    nothing will change any more."""

    parts: Mapping[str, str]
    rows: Sequence[tuple[str, str]] = ()
    final: bool = False


class Event(NamedTuple):
    """name: of a part, or `rows`. html: may have several lines."""

    name: str
    html: str


class _Held(NamedTuple):
    version: int
    html: str


class Board:
    def __init__(self) -> None:
        self.version = 0
        self._parts: dict[str, _Held] = {}
        self._rows: dict[str, _Held] = {}
        self._order: tuple[str, ...] = ()
        self._ordered_at = 0

    def put(self, view: View) -> bool:
        """Show this; whether anything is not as before. A part that is not in it stays."""
        following = self.version + 1
        changed = False
        for name, html in view.parts.items():
            held = self._parts.get(name)
            if held is None or held.html != html:
                self._parts[name] = _Held(following, html)
                changed = True
        rows = {}
        for row_id, html in view.rows:
            held = self._rows.get(row_id)
            if held is None or held.html != html:
                held = _Held(following, html)
                changed = True
            rows[row_id] = held
        order = tuple(rows)
        if order != self._order:
            self._order, self._ordered_at = order, following
            changed = True
        self._rows = rows
        if changed:
            self.version = following
        return changed

    def since(self, version: int) -> list[Event]:
        """What is newer than a version; 0 has seen nothing.

        Of the table only the rows that have changed are told. Where rows have come, gone or moved,
        a row with the ids of all of them in `data-order` goes before.
        """
        found = [
            Event(name, held.html) for name, held in self._parts.items() if held.version > version
        ]
        rows = [held.html for held in self._rows.values() if held.version > version]
        if self._ordered_at > version:
            rows.insert(0, f'<tr data-order="{escape(" ".join(self._order))}"></tr>')
        if rows:
            found.append(Event("rows", "\n".join(rows)))
        return found
