"""Headers of the PROXY protocol: refused, or an address; and never a byte of what is behind."""

import ipaddress
import random

from handoff_edge.errors import STATUS, Refused
from handoff_edge.proxy_header import SIGNATURE, V1_MAX, V2_MAX, ProxyReader
from support.mutations import cuts, fuzz
from support.proxy_headers import v1, v2

REQUEST = b"GET / HTTP/1.1\r\n"
CORPUS = [
    v1(ipaddress.ip_address("192.0.2.1")) + REQUEST,
    v1(ipaddress.ip_address("2001:db8::2")) + REQUEST,
    b"PROXY UNKNOWN\r\n" + REQUEST,
    v2(b"\x21\x11", "192.0.2.1", tlvs=b"\x04\x00\x01x") + b"\x16\x03\x01",
    v2(b"\x21\x21", "2001:db8::2") + REQUEST,
    v2(b"\x20\x00") + REQUEST,
    SIGNATURE + b"\x21\x11\xff\xff",
]
DICTIONARY = [
    *(b"\r\n", b"\n", b"\r", b" ", b"\x00", b"PROXY ", b"TCP4", b"TCP6", b"UNKNOWN", SIGNATURE),
    *(b"\x21\x11", b"\x20\x00", b"\x00\x0c", b"\x00\x24", b"255.255.255.255", b"::ffff:1.2.3.4"),
    *(b"%lo", b"65536", b"-1", b"+1", b"0x1", b"\xc2\xb2"),
]


def read(pieces: list[bytes]) -> tuple[str, str | None, bytes]:
    """The outcome, the address, and what was left for others: bytes come as into a socket, of which
    only what is taken is gone."""
    reader, waiting = ProxyReader(), b""
    try:
        for piece in pieces:
            waiting += piece
            if not reader.done and waiting:
                taken = reader.take(waiting)
                assert 0 <= taken <= len(waiting)
                waiting = waiting[taken:]
    except Refused as error:
        assert error.refusal.code in STATUS
        return error.refusal.code, None, b""
    return "read" if reader.done else "not whole", reader.address, waiting


def check(data: bytes, chance: random.Random) -> object:
    outcome, address, behind = found = read([data])
    assert read(cuts(data, chance)) == found
    if outcome != "read":
        return outcome
    header = data[: len(data) - len(behind)]
    assert data.endswith(behind)
    if header.startswith(SIGNATURE):
        assert len(header) == 16 + int.from_bytes(header[14:16], "big") <= V2_MAX
    else:
        assert header.startswith(b"PROXY ") and header.index(b"\r\n") == len(header) - 2
        assert len(header) <= V1_MAX
    if address is not None:
        assert str(ipaddress.ip_address(address)) == address
    return outcome, header[:16], address is None


def test_proxy_headers_are_refused_or_read_to_their_end() -> None:
    assert fuzz(CORPUS, DICTIONARY, check) > 100
