"""Connection events → usage. Pure: a fold per connection, and the sum of what it yields.

It owns the rules of what a connection owes, and when an event counts. It knows no log, no table and
no clock. What an event changes is said as deltas of hourly totals, so that folding one event at a
time and folding everything again give the same.

What a connection's state is made of, and which event wins:

- Its edge's own word: the greatest `(elapsed_ms, seq)` of `accepted` and `bytes`. An event that is
  not greater is a repeat or stale, and ignored. Counters never go down.
- A close by the edge itself is its last word: it always counts, whatever was seen before it, and
  nothing that comes after it does. At equal `elapsed_ms` it wins over `bytes`.
- A provisional close (`edge_crashed`, `edge_lost`) holds until the edge itself says more:
  `accepted` or `bytes` that is new and not older than that close reopens the connection; a close
  replaces it. `edge_lost` counts only for an open connection and only when it is newer than what
  the edge said. `edge_crashed` is the word of the journal's next holder: it replaces `edge_lost`,
  and never ends a connection before an instant at which its edge saw it alive. A repeat of either,
  after the edge has reopened the connection, is known by its `seq` and ignored.

Minutes are a function of the state (`_minutes_owed`): what a watermark let accrue before a close
leaves no trace after it. Any single event is enough to bill by.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from operator import add, sub
from typing import NamedTuple

from msgspec import Struct, structs

from handoff_common.events import (
    PROVISIONAL,
    AcceptedData,
    ClosedBy,
    ClosedData,
    ConnectionAccepted,
    ConnectionClosed,
    ConnectionData,
    ConnectionEvent,
    Counters,
    Reason,
    counters_of,
)
from handoff_common.instants import to_ms
from handoff_common.minutes import MINUTE_MS, by_hour, hour_of, owed

NO_BYTES = Counters()


class AcceptFacts(Struct, frozen=True, kw_only=True, gc=False):
    """What only `accepted` says; for people, not for the bill."""

    domain: str
    rule: str | None
    backend: str
    service_version: int
    subprotocol: str | None
    tls: bool
    client_network: str


class End(Struct, frozen=True, gc=False):
    """How a connection ended, `elapsed_ms` after it was accepted."""

    reason: Reason
    closed_by: ClosedBy
    close_code: int | None
    elapsed_ms: int

    @property
    def provisional(self) -> bool:
        return self.reason in PROVISIONAL


class ConnectionState(Struct, frozen=True, kw_only=True, gc=False):
    """One connection as far as its events were folded.

    elapsed_ms, seq: of the edge's own newest `accepted` or `bytes` (of the close, where that came
    first). counters: cumulative, as billed. minutes: billed so far, accrued ones included.
    bytes_hour_ms: the one hour in which all its bytes so far were billed; None when there are none,
    or when they lie in several.
    """

    connection_id: str
    customer_id: str
    service_id: str
    region: str
    pop: str
    edge_id: str
    accepted_ms: int
    elapsed_ms: int
    seq: int
    counters: Counters
    minutes: int
    bytes_hour_ms: int | None = None
    end: End | None = None
    accept: AcceptFacts | None = None

    @property
    def is_open(self) -> bool:
        return self.end is None

    @property
    def next_minute_ms(self) -> int:
        """When the first minute that is not billed yet would start; it is owed once a proof of life
        lies after that instant."""
        return self.accepted_ms + self.minutes * MINUTE_MS

    @property
    def seen_ms(self) -> int:
        """The last instant at which one of its own events saw it alive, or its end."""
        return self.accepted_ms + (self.elapsed_ms if self.end is None else self.end.elapsed_ms)

    @property
    def closed_by_edge(self) -> bool:
        """Whether the edge's own count of closed connections has it."""
        return self.end is not None and self.end.reason is not Reason.EDGE_LOST


class UsageKey(NamedTuple):
    customer_id: str
    service_id: str
    region: str
    hour_ms: int


class Totals(NamedTuple):
    """Of one UsageKey. As a change, its numbers may be negative; as a total, none ever is."""

    minutes: int = 0
    counters: Counters = NO_BYTES
    opened: int = 0
    closed: int = 0
    lost: int = 0

    def plus(self, other: "Totals") -> "Totals":
        return Totals(
            self.minutes + other.minutes,
            self.counters
            if other.counters is NO_BYTES
            else other.counters
            if self.counters is NO_BYTES
            else Counters._make(map(add, self.counters, other.counters)),
            self.opened + other.opened,
            self.closed + other.closed,
            self.lost + other.lost,
        )


NOTHING = Totals()


def summed(several: Sequence[Totals]) -> Totals:
    """The sum of one or more."""
    if len(several) == 1:
        return several[0]
    minutes, counters, opened, closed, lost = zip(*several, strict=True)
    return Totals(
        sum(minutes),
        Counters._make(map(sum, zip(*counters, strict=True))),
        sum(opened),
        sum(closed),
        sum(lost),
    )


class UsageDelta(NamedTuple):
    key: UsageKey
    change: Totals


Deltas = tuple[UsageDelta, ...]


def fold(state: ConnectionState | None, event: ConnectionEvent) -> tuple[ConnectionState, Deltas]:
    """The state after the event, and what it changes in the hourly totals.

    A stale event or a repeat gives back the very same state object and no deltas. (A late
    `accepted` only adds what it alone says, with no deltas.)
    """
    data = event.data
    if state is None:
        after = _begin(data)
    elif isinstance(event, ConnectionClosed):
        after = _closed(state, event.data)
    else:
        after = _alive(state, data)
    if isinstance(event, ConnectionAccepted) and after.accept is None:
        after = structs.replace(after, accept=_facts(event.data))
    if after is state:
        return state, ()
    return _settle(state, after, data.elapsed_ms)


def accrue(state: ConnectionState, through_ms: int) -> tuple[ConnectionState, Deltas]:
    """Bill an open connection's minutes up to a proof of life at `through_ms`.

    Never takes back; does nothing to a closed connection.
    """
    if state.end is not None or through_ms <= state.next_minute_ms:
        return state, ()
    minutes = owed(through_ms - state.accepted_ms)
    after = structs.replace(state, minutes=minutes)
    return after, tuple(
        UsageDelta(_key(state, hour), Totals(minutes=count))
        for hour, count in by_hour(state.accepted_ms, state.minutes, minutes)
    )


def usage_at(
    events: Iterable[tuple[int, ConnectionEvent]], through: Mapping[int, int]
) -> dict[UsageKey, Totals]:
    """What the totals are after the events, with open connections accrued up to a cut.

    events: (slice, event), each slice's in its order; slices may be mixed.
    through: slice → instant in epoch ms up to which its open connections are known to have lived;
    a slice left out accrues nothing. Rows that come to nothing are left out. For hours that end by
    `through` the result is what metering publishes, whatever it saw accrue later.
    """
    states: dict[str, tuple[int, ConnectionState]] = {}
    totals: defaultdict[UsageKey, Totals] = defaultdict(Totals)
    for number, event in events:
        connection_id = event.data.connection_id
        _, before = states.get(connection_id, (number, None))
        after, deltas = fold(before, event)
        states[connection_id] = (number, after)
        for key, change in deltas:
            totals[key] = totals[key].plus(change)
    for number, state in states.values():
        if number in through:
            for key, change in accrue(state, through[number])[1]:
                totals[key] = totals[key].plus(change)
    return {key: total for key, total in totals.items() if total != NOTHING}


# --- Which event counts --------------------------------------------------------------------------


def _begin(data: ConnectionData) -> ConnectionState:
    return ConnectionState(
        connection_id=data.connection_id,
        customer_id=data.customer_id,
        service_id=data.service_id,
        region=data.region,
        pop=data.pop,
        edge_id=data.edge_id,
        accepted_ms=to_ms(data.accepted_at),
        elapsed_ms=data.elapsed_ms,
        seq=data.seq,
        counters=counters_of(data),
        minutes=0,
        end=_end(data, data.elapsed_ms) if isinstance(data, ClosedData) else None,
    )


def _alive(state: ConnectionState, data: ConnectionData) -> ConnectionState:
    """`accepted` or `bytes` from the edge itself."""
    if (data.elapsed_ms, data.seq) <= (state.elapsed_ms, state.seq):
        return state
    if state.end is not None and (
        not state.end.provisional or data.elapsed_ms < state.end.elapsed_ms
    ):
        return state
    return structs.replace(
        state,
        elapsed_ms=data.elapsed_ms,
        seq=data.seq,
        counters=_greatest(state.counters, counters_of(data)),
        end=None,
    )


def _closed(state: ConnectionState, data: ClosedData) -> ConnectionState:
    end = state.end
    elapsed = data.elapsed_ms
    if end is not None and not end.provisional:
        return state
    if data.reason is Reason.EDGE_LOST:
        if end is not None or (elapsed, data.seq) <= (state.elapsed_ms, state.seq):
            return state
    elif data.reason is Reason.EDGE_CRASHED:
        if elapsed <= state.elapsed_ms and data.seq <= state.seq:
            return state
        elapsed = max(elapsed, state.elapsed_ms)
        if end is not None and end.reason is Reason.EDGE_CRASHED and elapsed <= end.elapsed_ms:
            return state
    return structs.replace(
        state,
        counters=_greatest(state.counters, counters_of(data)),
        end=_end(data, elapsed),
    )


def _end(data: ClosedData, elapsed_ms: int) -> End:
    return End(data.reason, data.closed_by, data.close_code, elapsed_ms)


def _facts(data: AcceptedData) -> AcceptFacts:
    return AcceptFacts(
        domain=data.domain,
        rule=data.rule,
        backend=data.backend,
        service_version=data.service_version,
        subprotocol=data.subprotocol,
        tls=data.tls,
        client_network=data.client_network,
    )


# --- What it changes ------------------------------------------------------------------------------


def _minutes_owed(before: ConnectionState | None, after: ConnectionState) -> int:
    if after.end is not None:
        never = after.end.reason is Reason.NEVER_ESTABLISHED
        return 0 if never else owed(after.end.elapsed_ms)
    accrued = before.minutes if before is not None and before.end is None else 0
    return max(accrued, owed(after.elapsed_ms))


def _settle(
    before: ConnectionState | None, after: ConnectionState, event_elapsed_ms: int
) -> tuple[ConnectionState, Deltas]:
    """Bill the difference between two states: minutes to the hours in which they start, bytes to
    the hour of the event, and the counts of opened, closed and lost."""
    changes = _Changes()
    accepted_ms = after.accepted_ms
    old_end = None if before is None else before.end
    if before is None:
        changes.at(hour_of(accepted_ms)).opened += 1
    if after.end is not old_end and after.end != old_end:
        if old_end is not None:
            changes.at(hour_of(accepted_ms + old_end.elapsed_ms)).ended(old_end, -1)
        if after.end is not None:
            changes.at(hour_of(accepted_ms + after.end.elapsed_ms)).ended(after.end, 1)

    billed = 0 if before is None else before.minutes
    minutes = _minutes_owed(before, after)
    if minutes > billed:
        for hour, count in by_hour(accepted_ms, billed, minutes):
            changes.at(hour).minutes += count
    elif minutes < billed:
        for hour, count in by_hour(accepted_ms, minutes, billed):
            changes.at(hour).minutes -= count

    counted = NO_BYTES if before is None else before.counters
    counters, bytes_hour = after.counters, after.bytes_hour_ms
    if after.end is not None and after.end.reason is Reason.NEVER_ESTABLISHED:
        # Nothing is owed. All it can have reported is its handshake, in one hour; bytes that were
        # reported over several hours have been carried, whatever its edge says now, and stay.
        counters = counted
        if bytes_hour is not None:
            changes.at(bytes_hour).count(_less(NO_BYTES, counted))
            counters, bytes_hour = NO_BYTES, None
    elif counters != counted:
        hour = hour_of(accepted_ms + event_elapsed_ms)
        changes.at(hour).count(counters if counted == NO_BYTES else _less(counters, counted))
        bytes_hour = hour if counted == NO_BYTES or bytes_hour == hour else None

    if (
        minutes != after.minutes
        or bytes_hour != after.bytes_hour_ms
        or counters is not after.counters
    ):
        after = structs.replace(after, minutes=minutes, counters=counters, bytes_hour_ms=bytes_hour)
    return after, changes.deltas(after)


class _Hour:
    """What changes in one hour, while it is being added up."""

    __slots__ = ("closed", "counters", "lost", "minutes", "opened")

    def __init__(self) -> None:
        self.minutes = 0
        self.counters = NO_BYTES
        self.opened = 0
        self.closed = 0
        self.lost = 0

    def ended(self, end: End, sign: int) -> None:
        self.closed += sign
        if end.provisional:
            self.lost += sign

    def count(self, counters: Counters) -> None:
        self.counters = (
            counters
            if self.counters is NO_BYTES
            else Counters._make(map(add, self.counters, counters))
        )


class _Changes:
    """Hour → what changes in it; most events touch one."""

    __slots__ = ("_hours",)

    def __init__(self) -> None:
        self._hours: dict[int, _Hour] = {}

    def at(self, hour_ms: int) -> _Hour:
        hour = self._hours.get(hour_ms)
        if hour is None:
            hour = self._hours[hour_ms] = _Hour()
        return hour

    def deltas(self, state: ConnectionState) -> Deltas:
        found = []
        for hour_ms, hour in self._hours.items():
            total = Totals(hour.minutes, hour.counters, hour.opened, hour.closed, hour.lost)
            if total != NOTHING:
                found.append(UsageDelta(_key(state, hour_ms), total))
        return tuple(found)


def _less(counters: Counters, other: Counters) -> Counters:
    return Counters._make(map(sub, counters, other))


def _greatest(counters: Counters, other: Counters) -> Counters:
    return Counters._make(map(max, counters, other))


def _key(state: ConnectionState, hour_ms: int) -> UsageKey:
    return UsageKey(state.customer_id, state.service_id, state.region, hour_ms)
