"""Counts of refused handshakes by UTC hour, service and cause. Pure.

Counts are absolute since the process started, so that whoever reads them keeps the greatest of each
and may miss or repeat any but the last. An hour is told in parts of a bounded size, and only those
that have changed are told again: a service's cause stays in the part that it first came into, and a
part always tells all that it has.

Memory is bounded: services by the rule book, causes by the table of codes, hours that cannot be
sent by HOURS, and all of it by CELLS. What belongs to no service counts under nobody, however many
names are asked for.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from handoff_common.events import EdgeRefusals, RefusalCount, RefusalsData
from handoff_common.instants import from_ms
from handoff_common.minutes import hour_of
from handoff_edge.connection import Place

PART: Final = 200
"""Counts in one event."""

HOURS: Final = 48
"""Hours that are kept while the log is away; of an older one, what was not sent is lost."""


CELLS: Final = 100_000
"""Counts that are held, some 25 MB. Beyond them the oldest hour goes; within one hour, what is new
counts under nobody."""


class Owner(NamedTuple):
    """Whose a refused handshake was."""

    customer_id: str
    service_id: str


class Cell(NamedTuple):
    """What is counted. owner: None where no service has the domain, or none was asked for."""

    owner: Owner | None
    cause: str


class Part(NamedTuple):
    """All that one part of an hour has counted so far."""

    hour_ms: int
    number: int
    counts: tuple[tuple[Cell, int], ...]


class _Hour:
    """parts: the counts. place: cell → its part. changed: parts that are to be told again."""

    def __init__(self) -> None:
        self.parts: list[dict[Cell, int]] = []
        self.place: dict[Cell, int] = {}
        self.changed: set[int] = set()

    def add(self, cell: Cell) -> None:
        number = self.place.get(cell)
        if number is None:
            number = self.place[cell] = len(self.place) // PART
            if number == len(self.parts):
                self.parts.append({})
        counts = self.parts[number]
        counts[cell] = counts.get(cell, 0) + 1
        self.changed.add(number)


class Tally:
    """The counts of one process. `add` costs a few look-ups, whatever it holds."""

    def __init__(self) -> None:
        self._hours: dict[int, _Hour] = {}
        self._held = 0

    def __len__(self) -> int:
        """Counts that are held."""
        return self._held

    def add(self, now_ms: int, owner: Owner | None, cause: str) -> None:
        """Count one. `now_ms` never goes back: an hour that is over is not begun again."""
        at = hour_of(now_ms)
        hour = self._hours.get(at)
        if hour is None:
            hour = self._hours[at] = _Hour()
            while len(self._hours) > HOURS:
                self._drop(min(self._hours))
        cell = Cell(owner, cause)
        if cell not in hour.place:
            while self._held >= CELLS and len(self._hours) > 1:
                self._drop(min(self._hours))
            if self._held >= CELLS:
                cell = Cell(None, cause)
            self._held += cell not in hour.place
        hour.add(cell)

    def take(self) -> list[Part]:
        """What has changed since the last call, oldest first; counted as sent from now on."""
        taken = [
            Part(at, number, tuple(hour.parts[number].items()))
            for at, hour in self._hours.items()
            for number in sorted(hour.changed)
        ]
        for hour in self._hours.values():
            hour.changed.clear()
        return taken

    def put_back(self, parts: Iterable[Part]) -> None:
        """These were not sent after all."""
        for part in parts:
            hour = self._hours.get(part.hour_ms)
            if hour is not None:
                hour.changed.add(part.number)

    def tidy(self, now_ms: int) -> None:
        """Forget the hours that are over and sent: when nothing is on its way."""
        this = hour_of(now_ms)
        for at in [at for at, hour in self._hours.items() if at < this and not hour.changed]:
            self._drop(at)

    def _drop(self, at: int) -> None:
        self._held -= len(self._hours.pop(at).place)


def key_of(edge_id: str, started_ms: int, part: Part) -> str:
    """Apart from an edge's watermarks, which compaction must not drop for it; an hour and a part
    have one each, so that the last record of every key together holds all that was counted."""
    hour = from_ms(part.hour_ms)
    return f"refusals/{edge_id}/{started_ms}/{hour:%Y%m%dT%H}/{part.number}"


def event_of(place: Place, started_ms: int, part: Part, now_ms: int) -> EdgeRefusals:
    name = f"{started_ms}-{from_ms(part.hour_ms):%Y%m%dT%H}-{part.number}"
    return EdgeRefusals(
        id=f"{place.edge_id}-refusals-{name}-{now_ms}",
        source=place.source,
        subject=place.edge_id,
        time=from_ms(now_ms),
        data=RefusalsData(
            edge_id=place.edge_id,
            region=place.region,
            pop=place.pop,
            started_at=from_ms(started_ms),
            hour=from_ms(part.hour_ms),
            part=part.number,
            counts=tuple(
                RefusalCount(
                    customer_id=owner.customer_id if owner else None,
                    service_id=owner.service_id if owner else None,
                    cause=cause,
                    count=count,
                )
                for (owner, cause), count in part.counts
            ),
        ),
    )
