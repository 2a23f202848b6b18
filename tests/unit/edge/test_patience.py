"""Who is refused again and again is refused slowly, and nobody else is."""

from hypothesis import given
from hypothesis import strategies as st

from handoff_edge.patience import Patience


def patience(*, at_once: int = 3, most: int = 100) -> Patience:
    return Patience(at_once=at_once, seconds=1.0, most=most)


def test_a_few_refusals_are_answered_at_once_and_the_next_are_not() -> None:
    p = patience()
    assert [p.enter("a", 1_000) for _ in range(5)] == [0, 0, 0, 1.0, 1.0]
    assert p.waiting == 2


def test_another_service_is_answered_at_once() -> None:
    p = patience()
    for _ in range(10):
        p.enter("a", 1_000)
    assert p.enter("b", 1_000) == 0
    assert p.enter(None, 1_000) == 0


def test_a_second_later_it_is_answered_at_once_again() -> None:
    p = patience()
    for _ in range(10):
        p.enter("a", 1_000)
    assert p.enter("a", 1_999) == 1.0
    assert p.enter("a", 2_000) == 0


def test_a_clock_that_was_set_back_keeps_nobody_waiting_for_longer() -> None:
    p = patience(at_once=1)
    p.enter("a", 9_000_000)
    assert p.enter("a", 1_000) == 0


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 400), st.booleans()), max_size=200),
    st.integers(0, 5),
)
def test_no_more_wait_than_may(comers: list[tuple[str, int, bool]], most: int) -> None:
    p = patience(most=most)
    now_ms, waiting = 0, 0
    for whose, later_ms, one_leaves in comers:
        now_ms += later_ms
        if one_leaves and waiting:
            p.leave()
            waiting -= 1
        waiting += p.enter(whose, now_ms) > 0
        assert p.waiting == waiting <= most
