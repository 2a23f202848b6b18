"""What edges say of refusals: repeats, another order and the loss of all but the last change
nothing."""

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from handoff_common.events import EdgeRefusals, RefusalCount, RefusalsData
from handoff_common.instants import from_ms
from handoff_common.minutes import HOUR_MS, hour_of
from handoff_edge.connection import Place
from handoff_edge.refusals import Owner, Tally, event_of, key_of
from handoff_metering.refusals import NOBODY, Count, Key, newest

T0 = 1_790_000_000_000 - 1_790_000_000_000 % HOUR_MS


def told(*counts: RefusalCount, **changes: Any) -> RefusalsData:
    values: dict[str, Any] = {
        "edge_id": "edge-1",
        "region": "europe",
        "pop": "fra1",
        "started_at": from_ms(T0 - 5),
        "hour": from_ms(T0),
        "counts": counts,
        **changes,
    }
    return RefusalsData(**values)


def count(refused: int, cause: str = "not_enabled", service_id: str | None = "svc") -> RefusalCount:
    customer_id = "cus" if service_id else None
    return RefusalCount(customer_id=customer_id, service_id=service_id, cause=cause, count=refused)


def test_the_greatest_of_each_count_holds() -> None:
    found = newest([told(count(3)), told(count(7), count(2, "no_rule")), told(count(5))])
    key = Key("edge-1", T0 - 5, T0, "svc", "not_enabled")
    assert found == {key: Count("cus", 7), key._replace(cause="no_rule"): Count("cus", 2)}


def test_processes_and_hours_are_apart() -> None:
    found = newest(
        [
            told(count(3)),
            told(count(1), started_at=from_ms(T0)),
            told(count(2), hour=from_ms(T0 + HOUR_MS)),
            told(count(4), edge_id="edge-2"),
        ]
    )
    assert sorted(one.refused for one in found.values()) == [1, 2, 3, 4]


def test_nobodys_has_no_service_and_no_customer() -> None:
    found = newest([told(count(9, "unknown_domain", None))])
    key = Key("edge-1", T0 - 5, T0, NOBODY, "unknown_domain")
    assert found == {key: Count(NOBODY, 9)}


def test_hours_of_months_that_are_gone_are_left_out() -> None:
    assert newest([told(count(3))], since_ms=T0) != {}
    assert newest([told(count(3))], since_ms=T0 + HOUR_MS) == {}


def test_what_no_column_holds_is_left_out() -> None:
    found = newest([told(count(1, service_id="s" * 65), count(2, service_id="a\0b"), count(3))])
    assert [one.refused for one in found.values()] == [3]
    assert newest([told(count(3), edge_id="e" * 65)]) == {}


@given(st.data())
def test_repeat_order_and_loss_of_what_came_between_change_nothing(data: st.DataObject) -> None:
    """Two processes of an edge count; of each key the last event arrives at least once, the others
    as often and whenever they like."""
    truth: Counter[tuple[int, str, str]] = Counter()
    last: dict[str, EdgeRefusals] = {}
    everything: list[EdgeRefusals] = []
    for started in (T0, T0 + 7):
        tally, now = Tally(), started
        steps = st.tuples(
            st.integers(0, HOUR_MS),
            st.sampled_from([None, Owner("c", "s-1"), Owner("c", "s-2")]),
            st.sampled_from(["busy", "no_rule"]),
            st.booleans(),
        )
        for wait, owner, cause, report in data.draw(st.lists(steps, max_size=12)):
            now += wait
            tally.add(now, owner, cause)
            truth[hour_of(now), owner.service_id if owner else NOBODY, cause] += 1
            if report:
                _report(tally, started, now, last, everything)
        _report(tally, started, now, last, everything)
    between = data.draw(st.lists(st.sampled_from(everything))) if everything else []
    arrived = data.draw(st.permutations([*last.values(), *between]))
    found: Counter[tuple[int, str, str]] = Counter()
    for key, one in newest(event.data for event in arrived).items():
        found[key.hour_ms, key.service_id, key.cause] += one.refused
    assert found == truth


def _report(
    tally: Tally, started: int, now: int, last: dict[str, EdgeRefusals], all_: list[EdgeRefusals]
) -> None:
    for part in tally.take():
        event = event_of(Place("edge-1", "europe", "fra1"), started, part, now)
        last[key_of("edge-1", started, part)] = event
        all_.append(event)
    tally.tidy(now)
