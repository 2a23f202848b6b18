"""The followers of frames, held to one that is slow and plain: it reads the whole stream anew."""

import random
from typing import NamedTuple

import pytest

from handoff_relay import IMPLEMENTATIONS
from handoff_relay.frames import FrameFollower, close_frame
from support.mutations import cuts, fuzz

CORPUS = [
    b"\x81\x05hello\x82\x85abcd\x00\x00\x00\x00\x00",
    b"\x01\x03abc\x89\x00\x80\x03def",
    b"\x82\x7e\x00\x80" + bytes(128) + b"\x81\x00",
    b"\x82\xff" + (200).to_bytes(8, "big") + bytes(204) + b"\x8a\x01x",
    b"\x81\x00" + close_frame(4001, "enough") + b"\x81\x00",
    close_frame(1000, "bye", b"\x01\x02\x03\x04"),
    b"\x88\x00",
    b"\x88\x01a",
    b"\xf1\x7e\x00\x01x\x0b\x00",
]
DICTIONARY = [
    *(b"\x81", b"\x82", b"\x00", b"\x80", b"\x88", b"\x89", b"\x08", b"\x7d", b"\x7e", b"\x7f"),
    *(b"\xfe", b"\xff", b"\x7f" + bytes(7) + b"\x01", b"\x7e\x00\x02", b"\x88\x82", b"\x7f\x80"),
]


class Learnt(NamedTuple):
    messages: int
    closed: bool
    close_code: int | None
    valid: bool
    at_boundary: bool


def slowly(stream: bytes) -> Learnt:
    """From the rules alone: RFC 6455, section 5.2, and what makes a stream no frames."""
    messages, at = 0, 0
    while at < len(stream):
        if at + 1 == len(stream):
            return Learnt(messages, False, None, True, False)
        fin, opcode = stream[at] >= 0x80, stream[at] % 16
        masked, size = stream[at + 1] >= 0x80, stream[at + 1] % 128
        if opcode >= 8 and (size > 125 or not fin):
            return Learnt(messages, False, None, False, False)
        start = at + 2
        if size >= 126:
            width = 2 if size == 126 else 8
            if width == 8 and stream[start : start + 1] >= b"\x80":
                return Learnt(messages, False, None, False, False)
            if start + width > len(stream):
                return Learnt(messages, False, None, True, False)
            size = int.from_bytes(stream[start : start + width], "big")
            start += width
        key = stream[start : start + 4] if masked else bytes(4)
        start += 4 if masked else 0
        payload = stream[start : start + size]
        if start > len(stream):
            return Learnt(messages, False, None, True, False)
        if opcode == 8:
            if len(payload) < min(size, 2):
                return Learnt(messages, False, None, True, False)
            code = (payload[0] ^ key[0]) * 256 + (payload[1] ^ key[1]) if size >= 2 else 1005
            return Learnt(messages, True, code, True, False)
        if len(payload) < size:
            return Learnt(messages, False, None, True, False)
        messages += fin and opcode < 8
        at = start + size
    return Learnt(messages, False, None, True, True)


@pytest.mark.parametrize("relay", list(IMPLEMENTATIONS))
def test_what_is_learnt_of_a_stream(relay: str) -> None:
    new: type = FrameFollower
    if relay == "native":
        from handoff_relay import _native

        new = _native.FrameFollower

    def learnt(pieces: list[bytes], *, to_boundaries: bool) -> Learnt:
        follower = new()
        for piece in pieces:
            start = 0
            if to_boundaries:
                start = follower.feed_to_boundary(piece, 0, len(piece))
            follower.feed(piece, start, len(piece))
        return Learnt(*(getattr(follower, name) for name in Learnt._fields))

    def check(data: bytes, chance: random.Random) -> object:
        expected = slowly(data)
        assert learnt([data], to_boundaries=False) == expected
        assert learnt(cuts(data, chance), to_boundaries=False) == expected
        assert learnt(cuts(data, chance), to_boundaries=True) == expected
        return expected

    assert fuzz(CORPUS, DICTIONARY, check) > 100
