"""Pace: never more than the rate and a burst. Wheel: never early, never lost."""

from hypothesis import given, settings
from hypothesis import strategies as st

from handoff_relay.pace import Pace
from handoff_relay.wheel import Wheel

SECOND = 1_000_000_000


@settings(max_examples=150)
@given(
    st.integers(1, 10**9),
    st.lists(st.tuples(st.integers(0, 3 * SECOND), st.integers(0, 2**20)), max_size=40),
)
def test_no_span_carries_more_than_rate_and_burst(rate: int, steps: list[tuple[int, int]]) -> None:
    pace, now, passed = Pace(rate, 0), 0, 0
    burst = max(rate // 4, 1)
    spent: list[tuple[int, int]] = []
    for wait, wish in steps:
        now += wait
        size = min(wish, pace.share(now))
        pace.spend(size)
        passed += size
        spent.append((now, size))
    for i, (since, _) in enumerate(spent):
        span = sum(size for _, size in spent[i:])
        assert span * SECOND <= (now - since) * rate + burst * SECOND


@settings(max_examples=100)
@given(st.integers(1, 10**6), st.lists(st.integers(1, 10**7), min_size=1, max_size=50))
def test_no_fraction_is_lost(rate: int, waits: list[int]) -> None:
    """Looked at often or seldom, it comes to the same, as long as it is not full."""
    often, seldom = Pace(rate, 0), Pace(rate, 0)
    debt = 10**9
    for pace in (often, seldom):
        pace.spend(debt)
    now = 0
    for wait in waits:
        now += wait
        often.available(now)
    assert often.available(now) == seldom.available(now)


def test_each_that_waits_is_left_as_much() -> None:
    pace = Pace(4000, 0)
    pace.waiting = 3
    assert pace.share(0) == 250
    pace.spend(999)
    assert pace.share(0) == 1
    pace.spend(1)
    assert pace.share(0) == 0
    assert pace.share(SECOND // 4000 - 1) == 0
    assert pace.share(SECOND // 4000) == 1


def test_another_rate_holds_from_now_on() -> None:
    pace = Pace(1_000_000, 0)
    pace.change(40, 0)
    assert pace.available(10 * SECOND) == 10
    pace.spend(10)
    pace.change(4_000_000, 11 * SECOND)
    assert pace.available(11 * SECOND) == 10
    assert pace.available(12 * SECOND) == 1_000_000


class Thing:
    def __init__(self) -> None:
        self.slot = -1


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(("place", "advance", "remove", "take")),
            st.integers(0, 5),
            st.integers(0, 200),
        ),
        max_size=60,
    )
)
def test_every_entry_comes_out_once_and_never_early(steps: list[tuple[str, int, int]]) -> None:
    wheel: Wheel[Thing] = Wheel(7)
    things = [Thing() for _ in range(6)]
    due: dict[Thing, int] = {}
    now = 0
    for action, which, time in steps:
        thing = things[which]
        if action == "place":
            wheel.place(thing, now + time)
            due[thing] = now + time
        elif action == "advance":
            wheel.advance(thing, now + time)
            # Coarse as it is, a deadline in the same slot counts as no sooner.
            if thing not in due or -(-(now + time) // 7) < -(-due[thing] // 7):
                due[thing] = now + time
        elif action == "remove":
            wheel.remove(thing)
            due.pop(thing, None)
        else:
            now += time
            taken = wheel.take(now)
            assert len(taken) == len(set(taken))
            assert all(due[thing] <= now for thing in taken)
            for thing in taken:
                del due[thing]
            assert all(at > now - 7 for at in due.values())
    assert set(wheel.take(now + 1000)) == set(due)
    assert wheel.take(now + 2000) == []
