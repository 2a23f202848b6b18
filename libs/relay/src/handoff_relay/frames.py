"""Follows WebSocket frame headers in one direction of a stream; sans-IO.

It learns where frames end, how many messages passed, and whether and with which code the sender
said Close. It never sees what a message holds: payloads are skipped, not read.

A stream is followed as long as its frame lengths can be believed. It stops being valid for good at
- a length with its top bit set (not a length at all), or
- a control frame (opcode 8 to 15) that is longer than 125 bytes or not final: what looks like this
  is no WebSocket stream, or one whose peer will fail it.
All else is for the endpoints to judge, and followed: reserved bits and opcodes, a missing or
needless mask, lengths not in their shortest form, messages that do not fit together. What comes
behind a Close frame is no longer part of the protocol and is not looked at.
"""

from typing import Final

CLOSE_WITHOUT_CODE: Final = 1005
"""What RFC 6455 calls a Close frame that bears no code."""

REASON_MAX: Final = 123

_HEADER_MAX: Final = 14
_FIN = 0x80
_MASKED = 0x80
_CONTROL = 0x08
_CLOSE = 0x8


class FrameFollower:
    """One direction. `messages`, `closed`, `close_code` and `valid` may be read at any time.

    messages: data messages whose last byte has passed.
    closed: the header and code of a Close frame have passed.
    close_code: what that frame said; 1005 where it bore no code; None before.
    valid: False once the stream stopped being frames (see the module); nothing is learnt then.
    """

    __slots__ = ("_ends_message", "_head", "_left", "close_code", "closed", "messages", "valid")

    def __init__(self) -> None:
        self.messages = 0
        self.closed = False
        self.close_code: int | None = None
        self.valid = True
        self._left = 0
        """Payload bytes of the present frame still to come."""
        self._ends_message = False
        """That frame is the last of a data message."""
        self._head = b""
        """The start of a frame, not enough yet to read its header."""

    @property
    def at_boundary(self) -> bool:
        """Between two frames, so that a frame may be put in here. Never behind a Close frame."""
        return self.valid and not self.closed and not self._left and not self._head

    def feed(self, buffer: bytes | bytearray, start: int, end: int) -> None:
        """Follow `buffer[start:end]`, the stream's next bytes."""
        if self.closed or not self.valid:
            return
        left = self._left
        if left:
            if end - start < left:
                self._left = left - (end - start)
                return
            start += left
            self._left = 0
            self.messages += self._ends_message
        elif self._head:
            start = self._resume(buffer, start, end)
        # The loop below is the relay's hottest: whole, short data frames take its first branch.
        messages = 0
        while start < end:
            if end - start > 1:
                first = buffer[start]
                second = buffer[start + 1]
                if not first & _CONTROL and (size := second & 0x7F) < 126:
                    after = start + size + (6 if second & _MASKED else 2)
                    if after <= end:
                        if first & _FIN:
                            messages += 1
                        start = after
                        continue
            start = self._frame(buffer, start, end)
        self.messages += messages

    def feed_to_boundary(self, buffer: bytes | bytearray, start: int, end: int) -> int:
        """Follow `buffer[start:end]` up to the first frame boundary in it.

        Returns the index behind the last byte followed: `end` where there was no boundary.
        """
        while start < end and not self.at_boundary:
            if self.closed or not self.valid:
                return end
            # All of a payload at once, a header byte by byte: it may be all there is of a frame.
            after = min(end, start + (self._left or 1))
            self.feed(buffer, start, after)
            start = after
        return start

    def _resume(self, buffer: bytes | bytearray, start: int, end: int) -> int:
        """Go on with a header of which `_head` came before; the index behind what was followed."""
        known = len(self._head)
        joined = self._head + bytes(buffer[start : min(end, start + _HEADER_MAX)])
        self._head = b""
        followed = self._header(joined, 0, len(joined))
        if self._head or not followed:
            return end
        return self._payload(start + followed - known, end)

    def _frame(self, buffer: bytes | bytearray, start: int, end: int) -> int:
        """Follow the frame that begins at `start`; the index behind what was followed."""
        followed = self._header(buffer, start, end)
        if self._head or not followed:
            return end
        return self._payload(followed, end)

    def _payload(self, start: int, end: int) -> int:
        left = self._left
        if left > end - start:
            self._left = left - (end - start)
            return end
        self._left = 0
        self.messages += self._ends_message
        return start + left

    def _header(self, buffer: bytes | bytearray, start: int, end: int) -> int:
        """Read a header into `_left` and `_ends_message`; the index behind it.

        Too few bytes are put into `_head`. 0 where nothing more is to be followed: the frame is
        a Close, or none.
        """
        if end - start < 2:
            self._head = bytes(buffer[start:end])
            return 0
        first = buffer[start]
        second = buffer[start + 1]
        size = second & 0x7F
        control = first & _CONTROL
        if control and (size > 125 or not first & _FIN):
            self.valid = False
            return 0
        extended = 0 if size < 126 else 2 if size == 126 else 8
        behind = start + 2 + extended + (4 if second & _MASKED else 0)
        closes = first & 0x0F == _CLOSE
        if behind + (min(size, 2) if closes else 0) > end:
            self._head = bytes(buffer[start:end])
            # Nothing can be believed about a length that is none, so say so at once.
            if extended == 8 and end - start > 2 and buffer[start + 2] & 0x80:
                self._head = b""
                self.valid = False
            return 0
        if extended:
            size = int.from_bytes(buffer[start + 2 : start + 2 + extended], "big")
            if size >> 63:
                self.valid = False
                return 0
        if closes:
            self.closed = True
            self.close_code = _code(buffer, behind, size, masked=bool(second & _MASKED))
            return 0
        self._left = size
        self._ends_message = bool(first & _FIN) and not control
        return behind


def _code(buffer: bytes | bytearray, at: int, size: int, *, masked: bool) -> int:
    if size < 2:
        return CLOSE_WITHOUT_CODE
    high, low = buffer[at], buffer[at + 1]
    if masked:
        high ^= buffer[at - 4]
        low ^= buffer[at - 3]
    return high << 8 | low


def may_be_sent(code: int) -> bool:
    """Whether an endpoint may put this code into a Close frame (RFC 6455, 7.4, and IANA)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def close_frame(code: int, reason: str, mask_key: bytes | None = None) -> bytes:
    """A Close frame; masked where a key (4 bytes) is given, as towards a server.

    `reason` is cut to 123 bytes of UTF-8, between characters. Raises ValueError for a code that
    may not be sent or a key of another size.
    """
    if not may_be_sent(code):
        raise ValueError(f"code is {code}; allowed: 1000-1003, 1007-1014, 3000-4999")
    text = reason.encode("utf-8", "replace")[:REASON_MAX].decode("utf-8", "ignore").encode()
    payload = code.to_bytes(2, "big") + text
    head = bytes((_FIN | _CLOSE, len(payload)))
    if mask_key is None:
        return head + payload
    if len(mask_key) != 4:
        raise ValueError(f"mask_key has {len(mask_key)} bytes; allowed: 4")
    masked = bytes(byte ^ mask_key[i & 3] for i, byte in enumerate(payload))
    return bytes((head[0], head[1] | _MASKED)) + mask_key + masked
