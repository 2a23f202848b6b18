"""Which records count: what is parked, and what a decision about a parked record does."""

from collections.abc import Sequence

import pytest

from handoff_common import codec
from handoff_common.events import (
    ConnectionEvent,
    Envelope,
    ParkedDecision,
    ParkedDecisionData,
)
from handoff_common.instants import from_ms
from handoff_common.log import Record
from handoff_common.topics import CONNECTIONS
from handoff_metering import replay
from handoff_metering.retention import first_id
from support.metering_edge import Script

T0 = 1_790_000_000_000
YEARS = 366 * 86_400_000


def records(*values: Envelope | bytes, appended_ms: int = T0 + 600_000) -> list[Record]:
    return [
        Record(
            CONNECTIONS.name,
            0,
            offset,
            appended_ms,
            "key",
            value if isinstance(value, bytes) else codec.encode(value),
        )
        for offset, value in enumerate(values)
    ]


def decision(offset: int, what: str, partition: int = 0) -> ParkedDecision:
    return ParkedDecision(
        id=f"decision-{offset}",
        source="/operators",
        subject="parked",
        time=from_ms(T0),
        data=ParkedDecisionData(
            partition=partition,
            offset=offset,
            decision="retry" if what == "retry" else "discard",
            reason="looked at it",
            decided_by="me",
        ),
    )


def counted(found: Sequence[Record]) -> list[ConnectionEvent]:
    return [event for _, event in replay.readable(found)]


def test_what_cannot_be_read_is_left_out() -> None:
    good = Script(T0).accepted()
    reading = replay.Reading()
    taken = [reading.take(record) for record in records(b"not json", b'{"type":"x"}', good)]
    assert taken == [None, None, good]
    assert reading.parked == 2


@pytest.mark.parametrize(
    ("accepted_ms", "elapsed_ms", "counts"),
    [
        (T0, 900_000, True),
        (T0, 900_001, False),
        (T0, 2**62, False),
        (T0 + 900_001, 0, False),
        (T0 - 9 * YEARS, 0, True),
        (T0 - 11 * YEARS, 0, False),
    ],
)
def test_an_instant_far_from_the_logs_own_is_parked(
    accepted_ms: int, elapsed_ms: int, counts: bool
) -> None:
    # What is billed is accepted_at and elapsed_ms; `time` may say something else.
    event = codec.encode(Script(accepted_ms).bytes(0))
    value = event.replace(b'"elapsed_ms":0', b'"elapsed_ms":%d' % elapsed_ms)
    assert bool(counted(records(value))) is counts


def test_a_time_ahead_of_the_log_is_parked_too() -> None:
    event = codec.encode(Script(T0 + 900_001).bytes(0))
    honest = b'"accepted_at":"%s"' % from_ms(T0).isoformat().encode()
    at = event.index(b'"accepted_at":')
    value = event[:at] + honest + event[event.index(b",", at) :]
    assert not counted(records(value))


def test_a_name_longer_than_any_edge_makes_is_parked() -> None:
    assert not counted(records(Script(T0, region="x" * 33).accepted()))


def test_a_retry_counts_at_the_decisions_place() -> None:
    skewed = Script(T0 + 1_000_000, connection_id="late").accepted()
    plain = Script(T0).accepted()
    found = counted(records(skewed, plain, decision(0, "retry")))
    assert found == [plain, skewed]


def test_a_discarded_record_never_counts() -> None:
    skewed = Script(T0 + 1_000_000).accepted()
    reading = replay.Reading()
    script = records(skewed, decision(0, "discard"), decision(0, "retry"))
    assert [reading.take(record) for record in script] == [None, None, None]
    assert reading.parked == 0


def test_a_retry_in_vain_leaves_the_record_parked() -> None:
    reading = replay.Reading()
    for record in records(b"not json", decision(0, "retry")):
        assert reading.take(record) is None
    assert reading.parked == 1


def test_a_decision_about_another_partition_or_nothing_does_nothing() -> None:
    skewed = Script(T0 + 1_000_000).accepted()
    assert not counted(records(skewed, decision(0, "retry", partition=3), decision(7, "retry")))


def test_a_decision_whose_own_instant_lies_ahead_is_parked() -> None:
    skewed = Script(T0 + 1_000_000).accepted()
    assert not counted(records(skewed, decision(0, "retry"), appended_ms=T0 - 300_001))


def test_what_comes_for_a_retired_connection_is_parked_and_cannot_be_retried() -> None:
    made, late = T0 - 400 * 86_400_000, T0 + 600_000
    gone = first_id(made)[:13] + "-7000-8000-000000000001"
    script = Script(made, connection_id=gone)
    lived = [script.accepted(), script.closed(60_000)]
    straggler = Script(made, connection_id=gone, customer_id="customer-2").bytes(90_000)
    taken = replay.Reading(keep_months=2)
    early = [taken.take(r) for r in records(*lived, appended_ms=made + 60_000)]
    assert early == lived
    *_, last, again = records(*lived, straggler, decision(2, "retry"), appended_ms=late)
    assert taken.take(last) is None
    assert taken.take(again) is None
    assert taken.parked == 1
    # Its month is kept for longer, or it is open, or nobody asks for this customer.
    for reading, events in (
        (replay.Reading(keep_months=20), lived),
        (replay.Reading(keep_months=2), lived[:1]),
        (replay.Reading(keep_months=2, customer_id="customer-1"), []),
    ):
        for record in records(*events, appended_ms=made + 60_000):
            reading.take(record)
        assert reading.take(last) == straggler
