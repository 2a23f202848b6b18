"""The frame follower, against frames that the websockets library makes."""

import itertools
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ProtocolError
from websockets.frames import Close, Frame, Opcode
from websockets.streams import StreamReader

from handoff_relay.frames import FrameFollower, close_frame, may_be_sent

DATA = (Opcode.CONT, Opcode.TEXT, Opcode.BINARY)


class Seen(NamedTuple):
    messages: int
    closed: bool
    close_code: int | None
    valid: bool
    at_boundary: bool


def seen(follower: FrameFollower) -> Seen:
    return Seen(
        follower.messages,
        follower.closed,
        follower.close_code,
        follower.valid,
        follower.at_boundary,
    )


def follow(stream: bytes, cuts: list[int] | None = None) -> FrameFollower:
    """As the relay does it: each chunk lies somewhere in a buffer that is used again."""
    follower = FrameFollower()
    marks = [0, *sorted(cut % (len(stream) + 1) for cut in cuts or ()), len(stream)]
    for start, end in itertools.pairwise(marks):
        buffer = bytearray(b"\x88\x80" + stream[start:end] + b"\x88\x80")
        follower.feed(buffer, 2, 2 + end - start)
    return follower


sizes = st.one_of(
    st.sampled_from((0, 1, 2, 125, 126, 127, 65535, 65536)), st.integers(0, 300), st.integers(0, 9)
)


@st.composite
def data_frames(draw: st.DrawFn) -> Frame:
    control = draw(st.booleans())
    opcode = draw(st.sampled_from((Opcode.PING, Opcode.PONG) if control else DATA))
    size = min(draw(sizes), 125) if control else draw(sizes)
    return Frame(
        opcode,
        draw(st.sampled_from((b"\x88", b"\x00", b"\xff", b"x"))) * size,
        fin=control or draw(st.booleans()),
        rsv1=draw(st.booleans()),
        rsv3=draw(st.booleans()),
    )


def serialized(frame: Frame, *, mask: bool) -> bytes:
    # Without an extension the library refuses to set reserved bits.
    plain = Frame(frame.opcode, frame.data, frame.fin).serialize(mask=mask)
    return bytes((plain[0] | frame.rsv1 << 6 | frame.rsv3 << 4,)) + plain[1:]


streams = st.lists(data_frames(), max_size=12)
cuts = st.lists(st.integers(0, 2**18), max_size=20)
codes = st.one_of(st.none(), st.integers(0, 65535))


def close_payload(code: int | None) -> bytes:
    return b"" if code is None else code.to_bytes(2, "big") + b"why"


@settings(max_examples=80)
@given(streams, st.booleans(), cuts)
def test_frames_are_followed_however_they_are_cut(
    frames: list[Frame], mask: bool, cuts: list[int]
) -> None:
    stream = b"".join(serialized(frame, mask=mask) for frame in frames)
    messages = sum(frame.fin and frame.opcode in DATA for frame in frames)
    assert seen(follow(stream, cuts)) == Seen(messages, False, None, True, True)


@settings(max_examples=100)
@given(streams, st.booleans(), codes, st.binary(max_size=40), cuts)
def test_a_close_frame_is_read_and_nothing_behind_it(
    frames: list[Frame], mask: bool, code: int | None, behind: bytes, cuts: list[int]
) -> None:
    stream = b"".join(serialized(frame, mask=mask) for frame in frames)
    stream += Frame(Opcode.CLOSE, close_payload(code)).serialize(mask=mask) + behind
    messages = sum(frame.fin and frame.opcode in DATA for frame in frames)
    expected = Seen(messages, True, 1005 if code is None else code, True, False)
    assert seen(follow(stream, cuts)) == expected


@settings(max_examples=200)
@given(st.binary(max_size=400), cuts)
@example(b"\x82\x7f\x80", [])
@example(b"\x82\xff\x00\x00\x00\x00\x00\x00\x00\x01abcd!", [1, 2, 3])
@example(b"\x88\x81abcd!", [3])
def test_any_bytes_give_the_same_in_one_piece_and_in_many(stream: bytes, cuts: list[int]) -> None:
    whole = seen(follow(stream))
    assert seen(follow(stream, cuts)) == whole
    assert seen(follow(stream, list(range(len(stream))))) == whole


@settings(max_examples=80)
@given(streams, st.booleans(), codes, st.integers(0, 2**18), st.integers(0, 2**18))
def test_a_boundary_is_where_a_frame_ends_and_nowhere_else(
    frames: list[Frame], mask: bool, code: int | None, start: int, end: int
) -> None:
    """`feed_to_boundary` finds the first one in a chunk, and leaves the rest alone."""
    ends, stream = {0}, b""
    for frame in frames:
        stream += serialized(frame, mask=mask)
        ends.add(len(stream))
    stream += Frame(Opcode.CLOSE, close_payload(code)).serialize(mask=mask)
    start %= len(stream) + 1
    end = start + end % (len(stream) + 1 - start)
    follower = FrameFollower()
    buffer = bytearray(stream)
    follower.feed(buffer, 0, start)
    assert follower.at_boundary == (start in ends)
    found = follower.feed_to_boundary(buffer, start, end)
    assert found == min((at for at in ends if start <= at <= end), default=end)
    assert follower.at_boundary == (found in ends)
    follower.feed(buffer, found, len(stream))
    assert seen(follower) == seen(follow(stream))


@pytest.mark.parametrize(
    ("stream", "valid"),
    [
        pytest.param(b"\x82\x7f\x80" + bytes(7), False, id="top bit of a length"),
        pytest.param(b"\x82\x7f\x7f" + bytes(7), True, id="a very long frame"),
        pytest.param(b"\x89\x7e\x00\x7e" + bytes(126), False, id="ping of 126 bytes"),
        pytest.param(b"\x88\x7f" + bytes(8), False, id="close with a long length"),
        pytest.param(b"\x09\x00", False, id="fragmented ping"),
        pytest.param(b"\x0f\x00", False, id="fragmented reserved control frame"),
        pytest.param(b"\x82\x7e\x00\x01x", True, id="length not in its shortest form"),
        pytest.param(b"\xf3\x01x", True, id="reserved bits and opcode"),
        pytest.param(b"\x80\x00\x80\x00", True, id="continuation of nothing"),
        pytest.param(b"\x81\x01x\x81\x81abcdx", True, id="masked and not"),
    ],
)
def test_what_makes_a_stream_invalid(stream: bytes, valid: bool) -> None:
    follower = follow(stream)
    assert follower.valid == valid
    follower.feed(b"\x81\x00", 0, 2)
    assert follower.valid == valid
    if not valid:
        assert seen(follower) == Seen(0, False, None, False, False)


def test_a_close_frame_with_half_a_code_bears_none() -> None:
    assert follow(b"\x88\x01x").close_code == 1005


@settings(max_examples=80)
@given(
    st.integers(1000, 4999).filter(may_be_sent),
    st.text(max_size=200),
    st.one_of(st.none(), st.binary(min_size=4, max_size=4)),
)
def test_our_close_frame_is_what_an_endpoint_reads(
    code: int, reason: str, mask_key: bytes | None
) -> None:
    frame = close_frame(code, reason, mask_key)
    reader = StreamReader()
    reader.feed_data(frame)
    parsing = Frame.parse(reader.read_exact, mask=mask_key is not None, max_size=None)
    with pytest.raises(StopIteration) as parsed:
        next(parsing)
    received = Close.parse(parsed.value.value.data)
    assert not reader.buffer
    assert received.code == code
    sent = reason.encode("utf-8", "replace")
    assert sent.startswith(received.reason.encode())
    assert len(sent) <= 123 or len(received.reason.encode()) > 119
    assert follow(frame).close_code == code


def test_only_codes_that_an_endpoint_accepts_may_be_sent() -> None:
    for code in range(6000):
        try:
            Close(code, "").check()
        except ProtocolError:
            assert not may_be_sent(code)
        else:
            assert may_be_sent(code)
    with pytest.raises(ValueError, match="code is 1006; allowed"):
        close_frame(1006, "")


def test_a_mask_key_has_four_bytes() -> None:
    with pytest.raises(ValueError, match="mask_key has 3 bytes; allowed: 4"):
        close_frame(1000, "", b"abc")
