"""Counts: exact, and given back."""

from collections import Counter
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handoff_common.events import Limits
from handoff_edge.errors import Refusal, Refused
from handoff_edge.limits import Admission, Counts, Handshakes, ServiceCounts

ANY = Limits()


def test_heads_are_bounded_in_total_and_per_network() -> None:
    admission = Admission(total=3, per_network=2)
    assert admission.admit("a") and admission.admit("a")
    assert not admission.admit("a")
    assert admission.admit("b")
    assert not admission.admit("c")
    admission.leave("a")
    assert admission.admit("c")
    assert admission.waiting == 3
    for network in ("a", "b", "c"):
        admission.leave(network)
    assert admission.waiting == 0
    assert admission.admit("a") and admission.admit("a") and admission.admit("b")


def test_who_is_not_known_yet_counts_in_total_only() -> None:
    admission = Admission(total=4, per_network=1)
    assert all(admission.admit(None) for _ in range(4))
    assert not admission.admit(None) and not admission.admit("a")
    assert admission.identify("a")
    assert not admission.identify("a")
    admission.leave(None)
    assert not admission.admit("a"), "its network is full"
    assert admission.admit("b")
    admission.leave("a")
    assert admission.admit("a")


def test_a_place_is_given_back_once() -> None:
    counts = ServiceCounts()
    release = counts.reserve("s", ANY, 0)
    counts.reserve("s", ANY, 0)
    release()
    release()
    assert counts.counts("s", 0) == Counts(open=1, recent=2)
    counts.reserve("brief", ANY, 0)()
    assert counts.counts("brief", 1000) == Counts()
    assert counts.counts("other", 0) == Counts()


def test_a_place_is_taken_up_to_the_limit_and_no_further() -> None:
    counts = ServiceCounts()
    limits = Limits(max_connections=2, max_new_per_second=3)
    first = counts.reserve("s", limits, 0)
    counts.reserve("s", limits, 0)
    refusal = refused(counts, limits, 0)
    assert (refusal.code, refusal.status) == ("too_many_connections", 429)
    assert refusal.retry_after
    first()
    counts.reserve("s", limits, 999)()
    assert refused(counts, limits, 999).code == "too_many_new"
    assert counts.counts("s", 999) == Counts(open=1, recent=3), "a refused one is not counted"
    counts.reserve("s", limits, 1000)


def refused(counts: ServiceCounts, limits: Limits, now_ms: int) -> Refusal:
    with pytest.raises(Refused) as caught:
        counts.reserve("s", limits, now_ms)
    return caught.value.refusal


@settings(max_examples=150)
@given(st.lists(st.integers(0, 400), max_size=40), st.integers(1, 5))
def test_no_second_ever_sees_more_new_connections_than_allowed(
    waits: list[int], limit: int
) -> None:
    counts = ServiceCounts()
    now, taken = 0, []
    for wait in waits:
        now += wait
        with suppress(Refused):
            counts.reserve("s", Limits(max_new_per_second=limit), now)
            taken.append(now)
    for at in taken:
        assert sum(1 for other in taken if at <= other < at + 1000) <= limit


@settings(max_examples=150)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=300), st.integers(1, 40))
def test_handshakes_are_bounded_and_no_service_takes_the_last_place(
    steps: list[tuple[str, bool]], total: int
) -> None:
    handshakes = Handshakes(total)
    under_way: Counter[str] = Counter()
    for whose, leaves in steps:
        if leaves and under_way[whose]:
            handshakes.leave(whose)
            under_way[whose] -= 1
            continue
        free = total - under_way.total()
        entered = handshakes.enter(whose)
        assert entered == (under_way[whose] < 4 * free)
        # Who has none gets one wherever there is one.
        assert entered or under_way[whose] or not free
        under_way[whose] += entered
        assert handshakes.under_way == under_way.total() <= total


def test_one_service_gets_four_fifths_of_the_handshakes() -> None:
    handshakes = Handshakes(100)
    assert sum(handshakes.enter("a") for _ in range(100)) == 80
    assert sum(handshakes.enter("b") for _ in range(100)) == 16
    assert handshakes.enter(None)
