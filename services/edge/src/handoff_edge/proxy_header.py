"""The PROXY protocol's header, sans-IO: who the client of a load balancer is. Pure.

Versions 1 and 2 as in HAProxy's proxy-protocol.txt. Only the address is taken from it; what a
header adds (TLVs) is passed over. It must come first and be whole: whoever may send one must, and
nothing of what lies behind it may be read with it, since that may be TLS.
"""

import ipaddress
import re
from typing import Final

from handoff_edge.errors import refused

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
"""With it version 2 begins; no request does."""

V1_MAX: Final = 107
"""Bytes of a header of version 1, its CRLF included."""

V2_MAX: Final = 4_096
"""Bytes of a header of version 2 that are taken; the protocol would allow 65,551."""

SIGHT: Final = V2_MAX
"""Bytes to look at, at most, in one turn."""

_V1: Final = b"PROXY "
_V1_KINDS: Final = (b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN")
_V2_FIXED: Final = 16
_PORT: Final = re.compile(r"0|[1-9][0-9]{0,4}")
_LOCAL, _PROXY = 0x20, 0x21
_SIZES: Final = {0x11: 4, 0x21: 16}
"""Family and transport → bytes of an address: TCP over IPv4, and over IPv6."""

_ELSEWHERE: Final = frozenset({0x00, 0x12, 0x22, 0x31, 0x32})
"""Valid, and nothing that a client of this port can have: unknown, UDP, Unix sockets. The protocol
wants them taken as unknown."""


class ProxyReader:
    """Takes what belongs to the header from the bytes in sight, and not one more.

    done: the header is whole. address: of the client; None where the header names none, so that the
    connection's own is the client's (a load balancer's health check).
    """

    def __init__(self) -> None:
        self.done = False
        self.address: str | None = None
        self._buffer = bytearray()

    def take(self, data: bytes) -> int:
        """How many of the bytes in sight belong to the header; they are taken and not shown again.

        Raises Refused: `proxy_header_missing`, `proxy_header_malformed`.
        """
        seen = len(self._buffer)
        buffer = self._buffer + data
        whole = self._length(buffer)
        taken = len(data) if whole is None else whole - seen
        self._buffer += data[:taken]
        if whole is not None:
            self.done = True
            header = bytes(self._buffer)
            self.address = _v1(header) if header.startswith(_V1) else _v2(header)
        return taken

    def _length(self, buffer: bytearray) -> int | None:
        """Of the header, once it is all there."""
        if buffer.startswith(_V1):
            end = buffer.find(b"\n", 0, V1_MAX)
            if end >= 0:
                return end + 1
            if len(buffer) >= V1_MAX:
                raise _malformed(f"version 1 is longer than {V1_MAX} bytes")
            return None
        if buffer.startswith(SIGNATURE):
            if len(buffer) < _V2_FIXED:
                return None
            length = _V2_FIXED + int.from_bytes(buffer[14:16], "big")
            if length > V2_MAX:
                raise _malformed(f"version 2 has {length} bytes; {V2_MAX} are allowed")
            return length if len(buffer) >= length else None
        if _V1.startswith(buffer) or SIGNATURE.startswith(buffer):
            return None
        text = "this network must begin a connection with a header of the PROXY protocol"
        raise refused("proxy_header_missing", text)


def begins_one(data: bytes | bytearray) -> bool:
    """Whether a request line, or what stands in its place, is the header of a proxy."""
    return data.startswith((SIGNATURE, *_V1_KINDS))


def _v1(header: bytes) -> str | None:
    if not header.endswith(b"\r\n") or b"\r" in header[:-2]:
        raise _malformed("version 1 ends with CR LF, and has neither before")
    try:
        _, kind, *rest = header[:-2].decode("ascii").split(" ")
    except UnicodeDecodeError:
        raise _malformed("version 1 is ASCII") from None
    if kind == "UNKNOWN":
        return None
    if kind not in ("TCP4", "TCP6"):
        raise _malformed(f"{kind!r} is none of TCP4, TCP6, UNKNOWN")
    if len(rest) != 4:
        raise _malformed(f"{kind} takes two addresses and two ports")
    parse = ipaddress.IPv4Address if kind == "TCP4" else ipaddress.IPv6Address
    try:
        if "%" in rest[0] + rest[1]:
            raise ValueError("a zone")
        source, _ = parse(rest[0]), parse(rest[1])
    except ValueError:
        raise _malformed(f"{rest[0]!r} and {rest[1]!r} are not two addresses of {kind}") from None
    if not all(_PORT.fullmatch(port) and int(port) <= 65_535 for port in rest[2:]):
        raise _malformed(f"{rest[2]!r} and {rest[3]!r} are not two ports")
    return str(source)


def _v2(header: bytes) -> str | None:
    command, kind = header[12], header[13]
    if command == _LOCAL:
        return None
    if command != _PROXY:
        raise _malformed(f"version and command are {command:#04x}; 0x20 and 0x21 are known")
    if kind in _ELSEWHERE:
        return None
    size = _SIZES.get(kind)
    if size is None:
        raise _malformed(f"family and transport are {kind:#04x}")
    block = header[_V2_FIXED:]
    if len(block) < 2 * size + 4:
        raise _malformed(f"{len(block)} bytes do not hold two addresses and ports")
    return str(ipaddress.ip_address(block[:size]))


def _malformed(what: str) -> Exception:
    return refused("proxy_header_malformed", f"the header of the PROXY protocol is wrong: {what}")
