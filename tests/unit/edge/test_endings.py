"""Which open connections must end, and why."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handoff_common.events import Reason
from handoff_common.instants import to_ms
from handoff_edge.endings import DRAINED, Ending, told_by, verdict
from handoff_edge.rulebook import RuleBook
from support.edge_events import NOW, cap, contract, customer, service

HOUR = timedelta(hours=1)


def ask(*events: Any, at: Any = NOW, noticed: Any = NOW) -> Ending | None:
    book = RuleBook()
    for event in events:
        book.apply(event)
    return verdict(
        book, "svc", "cus", to_ms(at), contract_grace_ms=3_600_000, noticed_ms=to_ms(noticed)
    )


def reason(*events: Any, **times: Any) -> Reason | None:
    ending = ask(*events, **times)
    return ending.reason if ending else None


@given(st.integers(1, 10_000), st.floats(0.01, 100), st.floats(0, 200))
def test_a_spread_tells_the_first_at_once_and_all_within_it(
    count: int, spread: float, elapsed: float
) -> None:
    assert told_by(count, 0, spread) == 1, "not all at once"
    told = told_by(count, elapsed, spread)
    assert 1 <= told <= count
    assert told >= min(count, count * elapsed / spread)
    assert told_by(count, spread, spread) == count
    assert told_by(count, elapsed, 0) == count
    assert told_by(count, elapsed + 1, spread) >= told


def test_an_enabled_service_with_a_contract_goes_on() -> None:
    assert ask(service(), customer()) is None


def test_a_configuration_that_is_not_there_ends_nothing() -> None:
    assert ask(customer()) is None


def test_disabled_unless_open_ones_are_to_be_kept() -> None:
    ending = ask(service(1, websockets_enabled=False), customer())
    assert ending is not None
    assert (ending.reason, ending.close_code) == (Reason.DISABLED, 1001)
    assert ask(service(1, websockets_enabled=False, keep_open=True), customer()) is None
    assert reason(service(1, deleted_at=NOW, keep_open=True), customer()) is Reason.DISABLED


def test_a_contracts_end_is_counted_from_when_it_ended() -> None:
    ended = customer(1, contracts=(contract(NOW - HOUR, NOW),))
    assert ask(service(), ended, at=NOW + HOUR - timedelta(milliseconds=1)) is None
    ending = ask(service(), ended, at=NOW + HOUR)
    assert ending is not None
    assert (ending.reason, ending.close_code) == (Reason.CONTRACT_ENDED, 1008)
    kept = service(1, websockets_enabled=False, keep_open=True)
    assert reason(kept, ended, at=NOW + HOUR) is Reason.CONTRACT_ENDED


def test_a_contract_that_vanished_counts_from_when_that_was_noticed() -> None:
    gone = customer(1, contracts=())
    assert ask(service(), gone, at=NOW + HOUR / 2) is None
    assert reason(service(), gone, at=NOW + HOUR) is Reason.CONTRACT_ENDED
    deleted = customer(1, deleted_at=NOW)
    assert reason(service(), deleted, at=NOW + HOUR) is Reason.CONTRACT_ENDED
    assert ask(service(), deleted, at=NOW + HOUR, noticed=NOW + HOUR) is None


@pytest.mark.parametrize("change", [{"suspended": True}, {"account_type": "trial"}], ids=str)
def test_an_account_that_may_not_use_it_any_more_counts_from_when_that_was_noticed(
    change: dict[str, Any],
) -> None:
    barred = customer(1, **change)
    assert ask(service(), barred, at=NOW + HOUR / 2) is None
    ending = ask(service(), barred, at=NOW + HOUR)
    assert ending is not None
    assert (ending.reason, ending.close_code) == (Reason.CONTRACT_ENDED, 1008)
    assert ask(service(), barred, customer(2), at=NOW + HOUR) is None, "taken back in time"
    ended = customer(1, contracts=(contract(NOW - HOUR, NOW),), **change)
    assert reason(service(), ended, at=NOW + HOUR, noticed=NOW + HOUR) is Reason.CONTRACT_ENDED


def test_a_version_that_is_deactivated_ends_nothing() -> None:
    idle = service(1, active_version=None, domains=(), backends=())
    assert ask(idle, customer(), at=NOW + HOUR) is None


def test_a_hard_cap_ends_open_connections_only_if_asked() -> None:
    assert ask(service(), customer(), cap()) is None
    ending = ask(service(), customer(), cap(end_open=True))
    assert ending is not None
    assert (ending.reason, ending.close_code) == (Reason.OVER_BUDGET, 1013)
    assert ask(service(), customer(), cap(end_open=True), cap(on=False, end_open=True)) is None


def test_draining_says_going_away() -> None:
    assert DRAINED.close_code == 1001
