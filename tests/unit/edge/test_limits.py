"""Counts: exact, and given back."""

from hypothesis import given, settings
from hypothesis import strategies as st

from handoff_edge.decision import Counts
from handoff_edge.limits import Admission, ServiceCounts


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


def test_a_place_is_given_back_once() -> None:
    counts = ServiceCounts()
    release = counts.reserve("s", 0)
    counts.reserve("s", 0)
    release()
    release()
    assert counts.counts("s", 0) == Counts(open=1, recent=2)
    counts.reserve("brief", 0)()
    assert counts.counts("brief", 1000) == Counts()
    assert counts.counts("other", 0) == Counts()


@settings(max_examples=150)
@given(st.lists(st.integers(0, 400), max_size=40), st.integers(1, 5))
def test_no_second_ever_sees_more_new_connections_than_allowed(
    waits: list[int], limit: int
) -> None:
    counts = ServiceCounts()
    now, taken = 0, []
    for wait in waits:
        now += wait
        if counts.counts("s", now).recent < limit:
            counts.reserve("s", now)
            taken.append(now)
    for at in taken:
        assert sum(1 for other in taken if at <= other < at + 1000) <= limit
