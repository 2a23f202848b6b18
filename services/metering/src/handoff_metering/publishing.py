"""What metering says to others: usage rows, progress, ends of connections,
decisions about parked records. Pure: builds messages.

A row's version is (generation, revision): docs/adr/0009-usage-row-versions.md.
"""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from handoff_common.codec import encode
from handoff_common.events import (
    EndConnection,
    EndConnectionData,
    ParkedDecision,
    ParkedDecisionData,
    ProgressData,
    UsageData,
    UsageProgress,
    UsageTotals,
)
from handoff_common.instants import from_ms
from handoff_common.log import Message
from handoff_common.topics import CONNECTIONS, CONTROLS, USAGE
from handoff_metering.usage import ConnectionState, Totals, UsageKey

Outgoing = tuple[str, Message]
END_WITHIN_MS = 300_000


class Version(NamedTuple):
    """offset: of the slice's last connection record that was folded by then; -1 for none."""

    generation: int
    revision: int
    offset: int


def row_key(key: UsageKey, number: int) -> str:
    hour = from_ms(key.hour_ms).strftime("%Y-%m-%dT%H")
    return f"{key.customer_id}/{key.service_id}/{key.region}/{hour}/{number}"


def usage_rows(
    rows: Mapping[UsageKey, Totals], number: int, version: Version, now_ms: int
) -> list[Outgoing]:
    """Absolute totals of a slice's rows."""
    return [
        (USAGE.name, _usage_row(key, rows[key], number, version, now_ms)) for key in sorted(rows)
    ]


def _usage_row(key: UsageKey, total: Totals, number: int, version: Version, now_ms: int) -> Message:
    subject = row_key(key, number)
    event = UsageTotals(
        id=f"{subject}/{version.generation}.{version.revision}",
        source=f"/metering/{number}",
        subject=subject,
        time=from_ms(now_ms),
        data=UsageData(
            customer_id=key.customer_id,
            service_id=key.service_id,
            region=key.region,
            hour=from_ms(key.hour_ms),
            slice=number,
            generation=version.generation,
            revision=version.revision,
            offset=version.offset,
            minutes=total.minutes,
            opened=total.opened,
            closed=total.closed,
            lost=total.lost,
            **total.counters._asdict(),
        ),
    )
    return Message(subject, encode(event))


class Progress(NamedTuple):
    """What a slice's progress says besides its version."""

    position: int
    through_ms: int
    open_orphans: int
    parked: dict[str, int]
    difference: int


def progress(
    said: Progress,
    number: int,
    slices: int,
    version: Version,
    partitions: Iterable[int],
    now_ms: int,
) -> list[Outgoing]:
    """A slice's progress, to every partition of the usage topic: behind whichever row it may speak
    of."""
    data = ProgressData(
        slice=number,
        slices=slices,
        generation=version.generation,
        revision=version.revision,
        position=said.position,
        through=from_ms(said.through_ms),
        open_orphans=said.open_orphans,
        parked=said.parked,
        difference=said.difference,
    )
    messages: list[Outgoing] = []
    for partition in partitions:
        key = f"progress/{number}/{partition}"
        event = UsageProgress(
            id=f"{key}/{version.generation}.{version.revision}",
            source=f"/metering/{number}",
            subject=key,
            time=from_ms(now_ms),
            data=data,
        )
        messages.append((USAGE.name, Message(key, encode(event), partition)))
    return messages


def end_connection(
    state: ConnectionState, *, reason: str, requested_by: str, now_ms: int
) -> Outgoing:
    """Ask the edges to end one connection; void after 5 minutes."""
    key = f"connection/{state.connection_id}"
    event = EndConnection(
        id=f"{state.connection_id}-end-{now_ms}",
        source="/metering",
        subject=key,
        time=from_ms(now_ms),
        data=EndConnectionData(
            connection_id=state.connection_id,
            customer_id=state.customer_id,
            service_id=state.service_id,
            reason=reason,
            requested_by=requested_by,
            expires_at=from_ms(now_ms + END_WITHIN_MS),
        ),
    )
    return CONTROLS.name, Message(key, encode(event))


def decision(
    partition: int,
    offset: int,
    what: Literal["retry", "discard"],
    reason: str,
    *,
    by: str,
    event_id: str,
    now_ms: int,
) -> Outgoing:
    """What was decided about a parked record: to the record's own partition, so that it is read
    behind it."""
    key = f"parked/{partition}/{offset}"
    event = ParkedDecision(
        id=event_id,
        source="/metering/parked",
        subject=key,
        time=from_ms(now_ms),
        data=ParkedDecisionData(
            partition=partition, offset=offset, decision=what, reason=reason, decided_by=by
        ),
    )
    return CONNECTIONS.name, Message(key, encode(event), partition)
