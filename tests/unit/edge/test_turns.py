"""Turns: nobody waits behind another's crowd."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handoff_edge.turns import Turns


def test_one_who_brings_much_waits_behind_himself() -> None:
    turns = Turns[str]()
    for number in range(100):
        turns.put("crowd", f"c{number}")
    turns.put("quiet", "q0")
    turns.put("quiet", "q1")
    assert [turns.take() for _ in range(5)] == ["c0", "q0", "c1", "q1", "c2"]


def test_nothing_waits() -> None:
    turns = Turns[int]()
    assert not turns
    with pytest.raises(LookupError):
        turns.take()


@given(st.lists(st.none() | st.integers(0, 3), max_size=60))
def test_all_come_out_in_their_order_and_never_later_than_all_others_once(
    moves: list[int | None],
) -> None:
    """A number brings something of that one's; None takes."""
    turns = Turns[tuple[int, int]]()
    brought: dict[int, list[int]] = {whose: [] for whose in range(4)}
    since_his_turn: dict[int, int] = {}
    for at, whose in enumerate(moves):
        if whose is not None:
            turns.put(whose, (whose, at))
            brought[whose].append(at)
            since_his_turn.setdefault(whose, 0)
        elif turns:
            next_, number = turns.take()
            assert number == brought[next_].pop(0)
            del since_his_turn[next_]
            since_his_turn = {one: taken + 1 for one, taken in since_his_turn.items()}
            assert all(taken < 4 for taken in since_his_turn.values())
            if brought[next_]:
                since_his_turn[next_] = 0
        assert len(turns) == sum(map(len, brought.values()))
