"""The origin's answer, sans-IO: a valid 101, or another final answer and where it ends.

Owns what makes an origin's agreement valid, and the framing of what is passed on in its place. The
bytes themselves are never changed. An answer that two parsers could frame differently is refused.
"""

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import Final, Protocol

from handoff_common.request_head import elements
from handoff_edge.errors import Refused, refused
from handoff_edge.head import Head, Values, extension_names, read_fields, tokens_of, values_of

ANSWER_HEAD_MAX: Final = 64 * 1024
"""Bytes of all heads of an answer together, the skipped ones included."""

PASSED_ON_MAX: Final = 1024 * 1024
"""Bytes of a passed-on answer, head included."""

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: [\x20-\x7e\x80-\xff\t]*)?")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[\x20-\x7e\x80-\xff\t]*)?")
_CHUNK_LINE_MAX = 4096
_LENGTH_DIGITS = 18


def accept_for(key: str) -> str:
    """The Sec-WebSocket-Accept that agrees to a Sec-WebSocket-Key."""
    digest = hashlib.sha1(key.encode("ascii") + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode("ascii")


@dataclass(frozen=True, slots=True)
class Upgraded:
    """A valid 101. raw: its head, exact. rest: what came behind it. received: bytes of every head
    that the origin sent, skipped ones too."""

    raw: bytes
    subprotocol: str | None
    rest: bytes
    received: int


@dataclass(frozen=True, slots=True)
class Declined:
    """Another final answer. raw: its head. rest: what has come of the body; `body` frames it."""

    status: int
    raw: bytes
    rest: bytes
    body: "Body"


class AnswerReader:
    """Collects bytes until the final head is whole."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self._buffer = bytearray()
        self._start = self._line_start = self._searched = 0

    def feed(self, data: bytes) -> Upgraded | Declined | None:
        """None until the final head is whole. Raises Refused with a code that begins with
        `origin_`."""
        self._buffer += data
        while (at := self._buffer.find(b"\n", self._searched, ANSWER_HEAD_MAX)) >= 0:
            if at == 0 or self._buffer[at - 1] != 0x0D:
                text = "a line of the origin's answer ends with LF alone; it must end with CRLF"
                raise refused("origin_invalid_answer", text)
            end = self._searched = at + 1
            if at - 1 != self._line_start:
                self._line_start = end
                continue
            raw = bytes(self._buffer[self._start : end])
            version, status, values = _read_head(raw)
            if 100 <= status < 200 and status != 101:
                self._start = self._line_start = end
                continue
            rest = bytes(self._buffer[end:])
            if status == 101:
                subprotocol = _check_upgrade(self._head, version, values)
                return Upgraded(raw, subprotocol, rest, received=end)
            return Declined(status, raw, rest, _body(status, values))
        if len(self._buffer) > ANSWER_HEAD_MAX:
            text = f"the head of the origin's answer is longer than {ANSWER_HEAD_MAX} bytes"
            raise refused("origin_answer_too_large", text)
        return None


def _read_head(raw: bytes) -> tuple[int, int, Values]:
    end = raw.index(b"\r\n")
    match = _STATUS_LINE.fullmatch(raw, 0, end)
    if not match:
        text = f"the origin's answer begins with {raw[: min(end, 60)]!r}, no HTTP/1.1 status"
        raise refused("origin_invalid_answer", text)
    try:
        fields = read_fields(raw, end + 2)
    except Refused as error:
        large = error.refusal.code == "head_too_large"
        code = "origin_answer_too_large" if large else "origin_invalid_answer"
        raise refused(code, f"the origin's answer: {error.refusal.text}") from None
    return int(match[1]), int(match[2]), values_of(fields)


def _check_upgrade(head: Head, version: int, values: Values) -> str | None:
    """The agreed subprotocol. Raises Refused for a 101 that does not agree to `head`."""
    connection, upgrade = tokens_of(values, "connection"), tokens_of(values, "upgrade")
    if version != 1 or "upgrade" not in connection or upgrade != ["websocket"]:
        text = "the origin's 101 must be HTTP/1.1 with Connection: Upgrade, Upgrade: websocket"
        raise refused("origin_bad_upgrade", text)
    if values.get("sec-websocket-accept") != [accept_for(head.key)]:
        text = "the origin's Sec-WebSocket-Accept does not answer the client's key"
        raise refused("origin_bad_accept", text)
    chosen = values.get("sec-websocket-protocol", ())
    if len(chosen) > 1 or (chosen and chosen[0] not in head.subprotocols):
        offered = ", ".join(head.subprotocols) or "none"
        text = f"the origin chose subprotocol {', '.join(chosen)!r}; offered: {offered}"
        raise refused("origin_bad_subprotocol", text)
    try:
        names = extension_names(values)
    except Refused as error:
        raise refused("origin_bad_extension", f"the origin's {error.refusal.text}") from None
    if unoffered := set(names) - head.extensions:
        text = f"the origin uses extension {sorted(unoffered)[0]!r}, which was not offered"
        raise refused("origin_bad_extension", text)
    return chosen[0] if chosen else None


class Body(Protocol):
    """Where a body ends. `take` is given what comes and says how much of it belongs."""

    def take(self, data: bytes) -> tuple[int, bool]:
        """(bytes of `data` that belong to the answer, whether the answer is whole)."""


class _Sized:
    def __init__(self, length: int) -> None:
        self._left = length

    def take(self, data: bytes) -> tuple[int, bool]:
        taken = min(len(data), self._left)
        self._left -= taken
        return taken, self._left == 0


class _UntilEnd:
    def take(self, data: bytes) -> tuple[int, bool]:
        return len(data), False


class _Chunked:
    """Follows chunk sizes and trailers; the bytes stay as they are."""

    def __init__(self) -> None:
        self._left = 0
        self._line = bytearray()
        self._in_line = True
        self._trailers = False

    def take(self, data: bytes) -> tuple[int, bool]:
        at = 0
        while at < len(data):
            if not self._in_line:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
                self._in_line = self._left == 0
                continue
            end = data.find(b"\n", at)
            self._line += data[at : end + 1 if end >= 0 else len(data)]
            if len(self._line) > _CHUNK_LINE_MAX:
                raise refused("origin_bad_framing", "a chunk line of the origin is too long")
            if end < 0:
                return len(data), False
            at = end + 1
            line, self._line = bytes(self._line), bytearray()
            if self._ends_with(line):
                return at, True
        return at, False

    def _ends_with(self, line: bytes) -> bool:
        """Take one whole line; True behind the last one."""
        if not line.endswith(b"\r\n"):
            raise refused("origin_bad_framing", "the origin ends a chunk line with LF alone")
        if self._trailers:
            return line == b"\r\n"
        size = _CHUNK_SIZE.fullmatch(line[:-2])
        if not size:
            raise refused("origin_bad_framing", f"bad chunk size {line[:20]!r} from the origin")
        length = int(size[1], 16)
        if length == 0:
            self._trailers = True
        else:
            self._left = length + 2
            self._in_line = False
        return False


def _body(status: int, values: Values) -> Body:
    codings = tokens_of(values, "transfer-encoding")
    lengths = set(elements(values.get("content-length", ())))
    if codings and lengths:
        text = "the origin's answer has both Content-Length and Transfer-Encoding"
        raise refused("origin_bad_framing", text)
    if status in (204, 304):
        return _Sized(0)
    if codings:
        return _Chunked() if codings[-1] == "chunked" else _UntilEnd()
    if not lengths:
        return _UntilEnd()
    length = lengths.pop()
    digits = length.isascii() and length.isdigit() and len(length) <= _LENGTH_DIGITS
    if lengths or not digits:
        raise refused("origin_bad_framing", "the origin's Content-Length cannot be understood")
    return _Sized(int(length))
