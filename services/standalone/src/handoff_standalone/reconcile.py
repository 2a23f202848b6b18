"""Holds what clients saw, or what an edge's journal holds, against what was recorded, metered and
billed. Pure.

The witness is whoever made the connections: it knows when it asked, when it had its 101 and when
the connection ended, and nothing of ids. An edge accepts between the first two instants, so each
witness is matched to a connection accepted in its window. What differs is named; what may differ,
because an edge was lost, is told with its reason.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from handoff_common.instants import to_ms
from handoff_common.minutes import MINUTE_MS, owed

SLACK_MS = 1_000
"""Between what a client sees and what the edge sees, either way: the machine may be busy."""

LOST = frozenset({"edge_crashed", "edge_lost"})
"""Reasons of ends that nobody saw: billed to the last proof of life, and no further."""

_OPEN_AND_CLOSED = 10**12


class Witness(NamedTuple):
    """One connection as its client saw it, epoch ms. opened_ms: None where there was no 101.
    ended_ms: None while it is open. head_bytes: of its request; 0 where that was not counted."""

    opening_ms: int
    opened_ms: int | None
    ended_ms: int | None
    head_bytes: int = 0


class Recorded(NamedTuple):
    """One connection as metering has it."""

    connection_id: str
    accepted_ms: int
    elapsed_ms: int
    minutes: int
    reason: str | None
    head_bytes: int = 0


class Window(NamedTuple):
    """`from_ms <= instant < to_ms`, both whole UTC hours: usage is kept by the hour."""

    from_ms: int
    to_ms: int

    def has(self, instant_ms: int) -> bool:
        return self.from_ms <= instant_ms < self.to_ms

    def minutes_of(self, row: "Recorded") -> int:
        """Of a connection's minutes, those that start within."""
        first = max(0, -((row.accepted_ms - self.from_ms) // MINUTE_MS))
        past = min(row.minutes, -((row.accepted_ms - self.to_ms) // MINUTE_MS))
        return max(0, past - first)


ALWAYS = Window(-_OPEN_AND_CLOSED * 1_000, _OPEN_AND_CLOSED * 1_000)


class Held(NamedTuple):
    """A connection as an edge's journal has it. elapsed_ms: of its latest event there. closed:
    whether that is its end."""

    connection_id: str
    accepted_ms: int
    elapsed_ms: int
    closed: bool


class Sums(NamedTuple):
    """minutes, opened, closed: over all usage rows. billed_minutes: of the invoices and the drafts;
    None where they were not looked at. late_minutes: those that came after their invoice was final,
    and are on none."""

    minutes: int
    opened: int
    closed: int
    billed_minutes: int | None = None
    late_minutes: int = 0


class Difference(NamedTuple):
    """code: stable. connection_id: empty where it is about a sum or a witness."""

    code: str
    connection_id: str
    text: str


@dataclass
class Report:
    """witnessed: connections that clients had. recorded: those that metering has; minutes: theirs.
    held: those that a journal still holds, None where none was read. differences: what is wrong.
    explained: what is as it must be though it differs."""

    witnessed: int
    recorded: int
    minutes: int = 0
    billed_minutes: int | None = None
    held: int | None = None
    differences: list[Difference] = field(default_factory=list)
    explained: list[Difference] = field(default_factory=list)
    unbilled_ms: int = 0

    @property
    def balanced(self) -> bool:
        return not self.differences


def witness_of(line: Mapping[str, Any]) -> Witness:
    """A line of a witness file. Raises ValueError that names the field, its value and what is
    allowed."""
    opening = _instant(line, "opening_ns", 1) // 1_000_000
    if line.get("refused"):
        return Witness(opening, None, None)
    opened, ended = _instant(line, "opened_ns", 1), _instant(line, "ended_ns", 0)
    if opened < line["opening_ns"]:
        raise ValueError(f"opened_ns: {opened} lies before opening_ns; allowed: at or after it")
    # Rounded so that the window never loses what lay in it.
    until = -(-ended // 1_000_000) if ended else None
    head = _integer(line, "sent_head", 0) if "sent_head" in line else 0
    return Witness(opening, -(-opened // 1_000_000), until, head)


def _instant(line: Mapping[str, Any], name: str, least: int) -> int:
    return _integer(line, name, least, "nanoseconds since the epoch, an integer")


def _integer(
    line: Mapping[str, Any], name: str, least: int, allowed: str = "an integer from 0 on"
) -> int:
    value = line.get(name)
    if type(value) is not int or value < least:
        given = "is missing" if value is None else f"{value!r}"
        raise ValueError(f"{name}: {given}; allowed: {allowed}")
    return value


def recorded_of(row: Mapping[str, Any]) -> Recorded:
    """A connection as `/v1/connections` shows it."""
    return Recorded(
        row["connection_id"],
        to_ms(datetime.fromisoformat(row["accepted_at"])),
        row["elapsed_ms"],
        row["minutes"],
        row["reason"],
        row["req_header_bytes"],
    )


def reconcile(
    witnesses: Iterable[Witness],
    recorded: Iterable[Recorded],
    sums: Sums,
    *,
    now_ms: int,
    slack_ms: int = SLACK_MS,
    window: Window = ALWAYS,
) -> Report:
    """Every witness has its connection, every connection its witness, each is billed for the time
    that it lived, and the sums are those of the connections.

    window: which connections must have their counterpart (those accepted in it), and of which hours
    the sums are. `recorded` has all connections that lived in it.
    """
    seen = list(witnesses)
    rows = sorted(recorded, key=lambda row: row.accepted_ms)
    real = [row for row in rows if row.reason != "never_established"]
    report = Report(
        sum(1 for one in seen if one.opened_ms is not None and window.has(one.opened_ms)),
        sum(1 for row in real if window.has(row.accepted_ms)),
        minutes=sum(window.minutes_of(row) for row in real),
        billed_minutes=sums.billed_minutes,
    )
    pairs, without_record, without_witness = match(
        [one for one in seen if one.opened_ms is not None], real
    )
    for one in without_record:
        if not (window.has(one.opening_ms) and window.has(one.opened_ms or 0)):
            # It may have been accepted outside.
            continue
        report.differences.append(
            Difference("not_recorded", "", f"opened at {one.opened_ms}: no connection was accepted")
        )
    _, _, never_seen = match(
        [one._replace(opened_ms=now_ms) for one in seen if one.opened_ms is None],
        sorted(without_witness, key=lambda row: row.accepted_ms),
    )
    for row in without_witness:
        if not window.has(row.accepted_ms):
            continue
        lost_before_101 = row not in never_seen and row.reason in LOST
        target = report.explained if lost_before_101 else report.differences
        why = "its edge died before the 101" if lost_before_101 else "no client opened it"
        target.append(Difference("not_seen", row.connection_id, f"{row.reason}: {why}"))
    for one, row in pairs:
        _durations(report, one, row, now_ms, slack_ms)
    _sums(report, real, sums, window)
    return report


def undelivered(report: Report, held: Iterable[Held], recorded: Iterable[Recorded]) -> None:
    """Add to the report what a journal still holds and metering does not have."""
    known = {row.connection_id: row for row in recorded}
    report.held = 0
    for one in held:
        report.held += 1
        row = known.get(one.connection_id)
        its = f"the journal has it up to {one.elapsed_ms} ms" + (", closed" if one.closed else "")
        if row is None:
            text = f"metering does not know it; {its}"
            report.differences.append(Difference("not_delivered", one.connection_id, text))
        elif row.elapsed_ms < one.elapsed_ms or (one.closed and row.reason is None):
            state = "open" if row.reason is None else row.reason
            text = f"metering has it up to {row.elapsed_ms} ms, {state}; {its}"
            report.differences.append(Difference("not_delivered", one.connection_id, text))
        elif row.reason in LOST and not one.closed:
            text = f"{row.reason} at {row.elapsed_ms} ms; its journal would take it up again"
            report.explained.append(Difference("held_open", one.connection_id, text))


def match(
    witnesses: Sequence[Witness], recorded: Sequence[Recorded]
) -> tuple[list[tuple[Witness, Recorded]], list[Witness], list[Recorded]]:
    """(pairs, witnesses left over, connections left over). `recorded` is in order of acceptance.

    Where a witness has counted its head, only a connection with such a head is its own.

    Each connection takes, of the witnesses in whose window it lies, the one whose window ends
    first: so as many are matched as can be. Then those that may change places do, where their ends
    fit better so.
    """
    if not any(one.head_bytes for one in witnesses):
        return _match(witnesses, recorded)
    pairs: list[tuple[Witness, Recorded]] = []
    missed: list[Witness] = []
    left: list[Recorded] = []
    heads = {one.head_bytes for one in witnesses} | {row.head_bytes for row in recorded}
    for head in sorted(heads):
        found = _match(
            [one for one in witnesses if one.head_bytes == head],
            [row for row in recorded if row.head_bytes == head],
        )
        pairs += found[0]
        missed += found[1]
        left += found[2]
    return pairs, missed, left


def _match(
    witnesses: Sequence[Witness], recorded: Sequence[Recorded]
) -> tuple[list[tuple[Witness, Recorded]], list[Witness], list[Recorded]]:
    waiting = sorted(witnesses)
    open_windows: list[tuple[int, int, Witness]] = []
    pairs: list[tuple[Witness, Recorded]] = []
    left: list[Recorded] = []
    missed: list[Witness] = []
    at = 0
    for row in recorded:
        while at < len(waiting) and waiting[at].opening_ms <= row.accepted_ms:
            one = waiting[at]
            heapq.heappush(open_windows, (one.opened_ms or 0, at, one))
            at += 1
        while open_windows and open_windows[0][0] < row.accepted_ms:
            missed.append(heapq.heappop(open_windows)[2])
        if open_windows:
            pairs.append((heapq.heappop(open_windows)[2], row))
        else:
            left.append(row)
    missed += [one for _, _, one in open_windows] + waiting[at:]
    _settle(pairs)
    return pairs, missed, left


def _settle(pairs: list[tuple[Witness, Recorded]]) -> None:
    """Change places until the ends fit, as far as windows allow. In order of acceptance."""
    changed = True
    while changed:
        changed = False
        for i, (one, row) in enumerate(pairs):
            for j in range(i + 1, len(pairs)):
                other, later = pairs[j]
                if later.accepted_ms > (one.opened_ms or 0):
                    break
                if other.opening_ms > row.accepted_ms:
                    continue
                if _misfit(one, row) + _misfit(other, later) > _misfit(one, later) + _misfit(
                    other, row
                ):
                    pairs[i], pairs[j] = (other, row), (one, later)
                    one = other
                    changed = True


def _misfit(one: Witness, row: Recorded) -> int:
    """How far apart the two ends are; an open one ends where its record does."""
    if one.ended_ms is None:
        return 0 if row.reason is None else _OPEN_AND_CLOSED
    if row.reason is None:
        return _OPEN_AND_CLOSED
    return abs(one.ended_ms - row.accepted_ms - row.elapsed_ms)


def _durations(report: Report, one: Witness, row: Recorded, now_ms: int, slack_ms: int) -> None:
    assert one.opened_ms is not None
    until = now_ms if one.ended_ms is None else one.ended_ms
    longest = until - one.opening_ms + slack_ms
    shortest = until - one.opened_ms - slack_ms
    if row.minutes != owed(row.elapsed_ms):
        text = f"{row.minutes} minutes for {row.elapsed_ms} ms; {owed(row.elapsed_ms)} are owed"
        report.differences.append(Difference("wrong_minutes", row.connection_id, text))
    if row.elapsed_ms > longest:
        text = f"billed for {row.elapsed_ms} ms, lived {longest} ms at most"
        report.differences.append(Difference("billed_too_long", row.connection_id, text))
    elif row.reason is None and one.ended_ms is not None:
        text = f"open, and its client saw its end at {one.ended_ms}"
        report.differences.append(Difference("not_closed", row.connection_id, text))
    elif row.elapsed_ms < shortest:
        unbilled = shortest - row.elapsed_ms
        text = f"{row.reason}: billed for {row.elapsed_ms} ms, lived {shortest} ms at least"
        found = Difference("billed_too_short", row.connection_id, text)
        if row.reason in LOST or row.reason is None:
            # No bill for our own outage: the last proof of life is all that is owed.
            report.explained.append(found)
            report.unbilled_ms += unbilled
        else:
            report.differences.append(found)


def _sums(report: Report, rows: Sequence[Recorded], sums: Sums, window: Window) -> None:
    minutes = sum(window.minutes_of(row) for row in rows)
    opened = sum(1 for row in rows if window.has(row.accepted_ms))
    closed = sum(
        1 for row in rows if row.reason is not None and window.has(row.accepted_ms + row.elapsed_ms)
    )
    if sums.late_minutes:
        text = f"{sums.late_minutes} minutes came after their invoice was final"
        report.explained.append(Difference("late_minutes", "", text))
    for code, found, expected in (
        ("usage_minutes", sums.minutes, minutes),
        ("usage_opened", sums.opened, opened),
        ("usage_closed", sums.closed, closed),
        ("billed_minutes", sums.billed_minutes, minutes - sums.late_minutes),
    ):
        if found is not None and found != expected:
            text = f"{found}, and the connections have {expected}"
            report.differences.append(Difference(code, "", text))
