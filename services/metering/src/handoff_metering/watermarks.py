"""How far each edge has vouched, and how far a slice may believe it. Pure.

A watermark says that every event of its edge up to `through` lies before the positions that it
names, and that each of the edge's connections without a `closed` lived until then. A slice may use
it only once it has read past its own position in it: until then a `closed` may lie unread, and
minutes would accrue to a connection that has ended. So the watermarks that a slowly reading slice
has not passed yet are kept, newest last, and the newest passed one counts.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from msgspec import Struct

from handoff_common.events import EdgeWatermark
from handoff_common.instants import to_ms

_KEPT = 64


class Mark(Struct, frozen=True, kw_only=True):
    """One watermark. positions: slice → next offset after the edge's events; absent: none there."""

    through_ms: int
    positions: Mapping[int, int]
    open_connections: int
    accepted_total: int
    closed_total: int
    journal_backlog: int
    journal_age_ms: int
    ended: bool

    def passed_by(self, number: int, position: int) -> bool:
        return position >= self.positions.get(number, 0)


class Edge(Struct, frozen=True, kw_only=True):
    """An edge's watermarks, oldest first; never empty."""

    edge_id: str
    region: str
    pop: str
    marks: tuple[Mark, ...]

    @property
    def latest(self) -> Mark:
        return self.marks[-1]

    def passed(self, number: int, position: int) -> Mark | None:
        """The newest watermark that a slice at `position` has passed."""
        for mark in reversed(self.marks):
            if mark.passed_by(number, position):
                return mark
        return None

    def passed_everywhere(self, positions: Mapping[int, int]) -> Mark | None:
        """The newest watermark that every slice has passed. positions: slice → next offset."""
        for mark in reversed(self.marks):
            if all(positions.get(number, 0) >= at for number, at in mark.positions.items()):
                return mark
        return None


Edges = Mapping[str, Edge]


def fold(edges: Edges, watermark: EdgeWatermark) -> Edges:
    """The edges after one more watermark.

    At most 64 are kept per edge; the oldest and the newest stay, so that a slice that has fallen
    far behind still comes by one.
    """
    data = watermark.data
    mark = Mark(
        through_ms=to_ms(data.through),
        positions={int(number): at for number, at in data.positions.items()},
        open_connections=data.open_connections,
        accepted_total=data.accepted_total,
        closed_total=data.closed_total,
        journal_backlog=data.journal_backlog,
        journal_age_ms=data.journal_age_ms,
        ended=data.ended,
    )
    known = edges.get(data.edge_id)
    marks = (*known.marks, mark) if known else (mark,)
    if len(marks) > _KEPT:
        marks = (marks[0], *marks[2:])
    edge = Edge(edge_id=data.edge_id, region=data.region, pop=data.pop, marks=marks)
    return {**edges, data.edge_id: edge}


class Hold(NamedTuple):
    """What keeps a slice's low watermark where it is."""

    edge_id: str | None
    through_ms: int | None
    cause: str


class Low(NamedTuple):
    """through_ms: up to where nothing of this slice is missing; None where that cannot be said.
    holds: the edges that keep it from being later, the earliest first."""

    through_ms: int | None
    holds: tuple[Hold, ...]


def low(
    edges: Edges,
    number: int,
    position: int,
    *,
    lost: Collection[str],
    open_on: Mapping[str, int],
    seen: Collection[str],
) -> Low:
    """The smallest watermark of the edges that still count, each passed by the slice.

    An edge that has ended, or is lost, no longer counts once the slice has passed its last
    watermark and holds none of its connections open. Where no edge counts any more, the latest of
    them still vouches for what lies before it, and nobody for what comes after. An edge that has
    sent events and no watermark, or whose watermarks lie all ahead, leaves the question open.

    lost: edges given up. open_on: edge → open connections of this slice, for ended and lost edges
    at least. seen: edges of which this slice has events.
    """
    holds = [
        Hold(edge_id, None, "no watermark of this edge has arrived")
        for edge_id in sorted(frozenset(seen) - edges.keys())
    ]
    for edge_id, edge in sorted(edges.items()):
        latest = edge.latest
        if latest.passed_by(number, position) and (latest.ended or edge_id in lost):
            if not open_on.get(edge_id):
                continue
            cause = "its connections are open, though it has ended or is lost"
            holds.append(Hold(edge_id, latest.through_ms, cause))
            continue
        mark = edge.passed(number, position)
        if mark is None:
            holds.append(Hold(edge_id, None, "its events have not been read up to its watermark"))
        else:
            holds.append(Hold(edge_id, mark.through_ms, "its latest watermark"))
    if not holds:
        through = max((edge.latest.through_ms for edge in edges.values()), default=None)
        cause = "no edge is up" if edges else "no edge has been seen"
        return Low(through, (Hold(None, through, cause),))
    holds.sort(key=lambda hold: (hold.through_ms is not None, hold.through_ms or 0))
    return Low(holds[0].through_ms, tuple(holds))


class Difference(NamedTuple):
    """Events that an edge says it delivered and that were not found."""

    accepted: int
    closed: int

    @property
    def total(self) -> int:
        return abs(self.accepted) + abs(self.closed)


def difference(
    edge: Edge, positions: Mapping[int, int], accepted: int, closed: int
) -> Difference | None:
    """An edge's own totals against what was projected; None until a watermark has been passed.

    Events may be read that came after the watermark, so more than it says is no difference; once
    the edge has ended, both must be equal.
    """
    mark = edge.passed_everywhere(positions)
    if mark is None:
        return None
    missing = Difference(mark.accepted_total - accepted, mark.closed_total - closed)
    if mark.ended and mark is edge.latest:
        return missing
    return Difference(max(0, missing.accepted), max(0, missing.closed))
