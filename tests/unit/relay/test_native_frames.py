"""The follower in Rust learns what the one in Python learns, from any bytes and any cuts."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handoff_relay import IMPLEMENTATIONS
from handoff_relay.frames import FrameFollower

if "native" not in IMPLEMENTATIONS:
    pytest.skip("the native relay is not built", allow_module_level=True)

from handoff_relay import _native

bits = st.sampled_from(
    (b"\x81", b"\x82", b"\x00", b"\x88", b"\x89", b"\x7e", b"\x7f", b"\x80", b"\xff")
)
streams = st.lists(st.one_of(bits, st.binary(max_size=12)), max_size=40).map(b"".join)


def learnt(follower: FrameFollower | _native.FrameFollower) -> tuple[object, ...]:
    return (
        follower.messages,
        follower.closed,
        follower.close_code,
        follower.valid,
        follower.at_boundary,
    )


@given(streams, st.lists(st.integers(0, 400), max_size=12), st.booleans())
def test_both_followers_learn_the_same(stream: bytes, cuts: list[int], to_boundaries: bool) -> None:
    one, two = FrameFollower(), _native.FrameFollower()
    marks = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    for start, end in itertools.pairwise(marks):
        if to_boundaries:
            found = one.feed_to_boundary(stream, start, end)
            assert two.feed_to_boundary(stream, start, end) == found
            start = found
        one.feed(stream, start, end)
        two.feed(stream, start, end)
        assert learnt(one) == learnt(two)
