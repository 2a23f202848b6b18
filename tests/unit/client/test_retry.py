"""When a call is sent again: rules that hold for every policy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handoff_client import Repeat, RetryPolicy
from handoff_client.retry import Trouble, trouble_of, wait_before_repeat

seconds = st.floats(0.001, 1e4)


@st.composite
def policies(draw: st.DrawFn) -> RetryPolicy:
    first, longest = sorted((draw(st.floats(0, 100)), draw(st.floats(0, 100))))
    return RetryPolicy(draw(seconds), draw(seconds), draw(st.integers(1, 2000)), first, longest)


@given(
    policies(),
    st.sampled_from(Repeat),
    st.sampled_from(Trouble),
    st.integers(1, 2000),
    st.floats(0, 1e5),
    st.floats(0, 1),
    st.none() | st.floats(0, 1e6),
)
def test_a_wait_is_bounded_and_only_where_a_repeat_is_allowed(
    policy: RetryPolicy,
    repeat: Repeat,
    trouble: Trouble,
    attempt: int,
    elapsed: float,
    chance: float,
    retry_after: float | None,
) -> None:
    wait = wait_before_repeat(
        policy,
        repeat,
        trouble,
        attempt=attempt,
        elapsed=elapsed,
        chance=chance,
        retry_after=retry_after,
    )
    if wait is None:
        return
    assert attempt < policy.attempts
    assert not (repeat is Repeat.NEVER and trouble is Trouble.LOST)
    assert elapsed + wait < policy.deadline
    assert (retry_after or 0) <= wait <= (retry_after or 0) + policy.longest_wait


@given(policies(), st.sampled_from(Trouble), st.integers(1, 2000))
def test_what_may_be_repeated_is_repeated_while_there_is_time(
    policy: RetryPolicy, trouble: Trouble, attempt: int
) -> None:
    wait = wait_before_repeat(policy, Repeat.FREELY, trouble, attempt=attempt, elapsed=0, chance=0)
    assert (wait is not None) == (attempt < policy.attempts)


def test_waits_double_up_to_the_longest() -> None:
    policy = RetryPolicy(deadline=1e6, attempts=99, first_wait=0.2, longest_wait=5)

    def longest(attempt: int) -> float | None:
        return wait_before_repeat(
            policy, Repeat.KEYED, Trouble.LOST, attempt=attempt, elapsed=0, chance=1
        )

    assert [longest(n) for n in (1, 2, 3, 4, 5, 6, 50)] == [0.2, 0.4, 0.8, 1.6, 3.2, 5, 5]


@given(st.integers(100, 599))
def test_only_what_time_may_cure_is_trouble(status: int) -> None:
    assert (trouble_of(status) is not None) == (status in (429, 502, 503, 504))


@pytest.mark.parametrize(
    "wrong",
    [{"timeout": 0}, {"deadline": -1}, {"attempts": 0}, {"first_wait": 9}, {"first_wait": -1}],
)
def test_a_policy_that_nobody_could_keep_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        RetryPolicy(**wrong)  # type: ignore[arg-type]
