"""How many connections were open at once: the sweep against counting instant by instant."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handoff_metering.concurrency import Bucket, sweep

PERIOD = 10
Pair = tuple[int, int | None]
"""When a connection was accepted, and when it ended; None: it is open."""


def swept(pairs: Sequence[Pair], from_ms: int, to_ms: int, period_ms: int = PERIOD) -> list[Bucket]:
    def inside(instants: Sequence[int | None]) -> list[int]:
        return [at for at in instants if at is not None and from_ms <= at < to_ms]

    before = [end for begin, end in pairs if begin < from_ms]
    return sweep(
        sum(end is None or end >= from_ms for end in before),
        inside([begin for begin, _ in pairs]),
        inside([end for _, end in pairs]),
        from_ms=from_ms,
        to_ms=to_ms,
        period_ms=period_ms,
    )


def counted(pairs: Sequence[Pair], from_ms: int, to_ms: int) -> list[Bucket]:
    """The same, by looking at each millisecond."""
    found = []
    for start in range(from_ms, to_ms, PERIOD):
        instants = range(start, min(start + PERIOD, to_ms))
        at_once = [
            sum(begin <= t and (end is None or t < end) for begin, end in pairs) for t in instants
        ]
        opened = sum(begin in instants for begin, _ in pairs)
        closed = sum(end is not None and end in instants for _, end in pairs)
        found.append(Bucket(start, instants.stop, opened, closed, max(at_once), sum(at_once)))
    return found


instants = st.integers(0, 60)
pairs = st.lists(
    st.tuples(instants, st.none() | st.integers(0, 40)).map(
        lambda one: (one[0], None if one[1] is None else one[0] + one[1])
    ),
    max_size=15,
)


@given(pairs, st.integers(0, 4).map(lambda n: n * PERIOD), st.integers(0, 45))
def test_the_sweep_is_what_counting_gives(given_: list[Pair], from_ms: int, length_ms: int) -> None:
    to_ms = from_ms + length_ms
    assert swept(given_, from_ms, to_ms) == counted(given_, from_ms, to_ms)


@given(pairs)
def test_every_connection_is_opened_once_and_its_time_counted_once(given_: list[Pair]) -> None:
    buckets = swept(given_, 0, 110)
    assert sum(bucket.opened for bucket in buckets) == len(given_)
    assert sum(bucket.closed for bucket in buckets) == sum(end is not None for _, end in given_)
    lived = sum((110 if end is None else end) - begin for begin, end in given_)
    assert sum(bucket.open_ms for bucket in buckets) == lived


@given(pairs)
def test_shorter_periods_are_parts_of_longer_ones(given_: list[Pair]) -> None:
    fine, coarse = swept(given_, 0, 60), swept(given_, 0, 60, 2 * PERIOD)
    for at, bucket in enumerate(coarse):
        first, second = fine[2 * at : 2 * at + 2]
        assert bucket.peak == max(first.peak, second.peak)
        assert bucket.open_ms == first.open_ms + second.open_ms
        assert bucket.opened == first.opened + second.opened


def test_one_that_ends_as_another_begins_is_not_open_beside_it() -> None:
    [bucket] = swept([(0, 5), (5, 9)], 0, PERIOD)
    assert (bucket.opened, bucket.closed, bucket.peak, bucket.open_ms) == (2, 2, 1, 9)


def test_one_that_ended_as_the_period_began_is_not_in_its_peak() -> None:
    first, second = swept([(0, 10)], 0, 2 * PERIOD)
    assert (first.peak, first.closed) == (1, 0)
    assert (second.peak, second.closed, second.open_ms) == (0, 1, 0)


@pytest.mark.parametrize(
    ("open_ms", "length_ms", "average"),
    [
        (0, 60_000, "0"),
        (60_000, 60_000, "1"),
        (90_000, 60_000, "1.5"),
        (1, 3, "0.333"),
        (2, 3, "0.667"),
        (1, 2_000, "0.001"),
        (6_000_000, 60_000, "100"),
        (10**18, 3, "333333333333333333.333"),
    ],
)
def test_an_average_is_a_decimal_of_at_most_three_places(
    open_ms: int, length_ms: int, average: str
) -> None:
    assert Bucket(0, length_ms, 0, 0, 0, open_ms).average == average
