"""PROXY protocol headers: what they say, however they are cut, and what is none."""

import ipaddress
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handoff_edge.errors import Refused
from handoff_edge.proxy_header import SIGNATURE, V1_MAX, V2_MAX, ProxyReader
from support.proxy_headers import v1, v2

BEHIND = b"GET / HTTP/1.1\r\n"


def read(data: bytes, cuts: list[int] | None = None) -> tuple[str | None, bytes] | None:
    """The address and what lies behind, where the header is whole; bytes come as they are cut."""
    reader = ProxyReader()
    sight, at = b"", 0
    for cut in [*sorted(cuts or []), len(data)]:
        sight += data[at:cut]
        at = max(at, cut)
        taken = reader.take(sight)
        assert 0 <= taken <= len(sight)
        sight = sight[taken:]
        if reader.done:
            return reader.address, sight + data[at:]
        assert not sight, "what belongs to the header is taken at once, or the loop turns for it"
    return None


def code(data: bytes, cuts: list[int] | None = None) -> str:
    with pytest.raises(Refused) as caught:
        read(data, cuts)
    return caught.value.refusal.code


@pytest.mark.parametrize(
    ("header", "address"),
    [
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n", "192.0.2.7"),
        (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255"),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 0 443\r\n", "2001:db8::7"),
        (b"PROXY TCP6 " + b"ffff:" * 7 + b"ffff " + b"ffff:" * 7 + b"ffff 65535 65535\r\n", None),
        (b"PROXY UNKNOWN\r\n", None),
        (b"PROXY UNKNOWN ffff::1 whatever 1 2 3\r\n", None),
        (b"PROXY UNKNOWN " + b"x" * (V1_MAX - 16) + b"\r\n", None),
        (v2(b"\x21\x11", "192.0.2.7"), "192.0.2.7"),
        (v2(b"\x21\x21", "2001:db8::7"), "2001:db8::7"),
        (v2(b"\x21\x11", "192.0.2.7", tlvs=b"\x03\x00\x04abcd" + b"\x04\x00\x00"), "192.0.2.7"),
        (v2(b"\x21\x21", "2001:db8::7", tlvs=b"\xee" * 3_000), "2001:db8::7"),
        (v2(b"\x20\x00"), None),
        (v2(b"\x20\x11", "192.0.2.7"), None),
        (v2(b"\x20\x99", tlvs=b"ignored"), None),
        (v2(b"\x21\x00"), None),
        (v2(b"\x21\x00", tlvs=b"1234567"), None),
        (v2(b"\x21\x12", "192.0.2.7"), None),
        (v2(b"\x21\x22", "2001:db8::7"), None),
        (v2(b"\x21\x31", tlvs=bytes(216)), None),
        (v2(b"\x21\x32", tlvs=bytes(216)), None),
        (v2(b"\x21\x00", tlvs=bytes(V2_MAX - 16)), None),
    ],
)
def test_what_a_header_says(header: bytes, address: str | None) -> None:
    if header.startswith(b"PROXY TCP6 ffff"):
        address = ":".join(["ffff"] * 8)
    assert read(header + BEHIND) == (address, BEHIND)
    assert read(header) == (address, b"")
    every = list(range(1, len(header) + len(BEHIND)))
    assert read(header + BEHIND, every) == (address, BEHIND)
    for cut in range(len(header)):
        assert read(header[:cut]) is None


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"POST / HTTP/1.1\r\n",
        b"P ",
        b"PROXIED",
        b"PROXY\r\n",
        b"proxy TCP4 192.0.2.7 198.51.100.1 1 2\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\r\nGET / HTTP/1.1\r\n",
        SIGNATURE[:11] + b"\x0b",
        b"\x00",
    ],
)
def test_something_else_is_no_header(data: bytes) -> None:
    assert code(data) == "proxy_header_missing"
    assert code(data, list(range(1, len(data)))) == "proxy_header_missing"


@pytest.mark.parametrize(
    "data",
    [
        b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443 \r\n",
        b"PROXY TCP4  192.0.2.7 198.51.100.1 56324 443\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 56324\r\n",
        b"PROXY TCP4 192.0.2.256 198.51.100.1 56324 443\r\n",
        b"PROXY TCP4 192.0.2.07 198.51.100.1 56324 443\r\n",
        b"PROXY TCP4 192.0.2.7 localhost 56324 443\r\n",
        b"PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
        b"PROXY TCP6 192.0.2.7 198.51.100.1 1 2\r\n",
        b"PROXY TCP6 fe80::1%eth0 fe80::2 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 01 443\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 -1 443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 ١ 443\r\n".encode(),
        b"PROXY UDP4 192.0.2.7 198.51.100.1 1 2\r\n",
        b"PROXY UNKNOWNS\r\n",
        b"PROXY \r\n",
        b"PROXY TCP4 \xff\xfe 198.51.100.1 1 2\r\n",
        b"PROXY UNKNOWN a\rb\r\n",
        b"PROXY UNKNOWN " + b"x" * (V1_MAX - 15) + b"\r\n",
        b"PROXY UNKNOWN " + b"x" * V1_MAX,
        v2(b"\x11\x11", "192.0.2.7"),
        v2(b"\x22\x11", "192.0.2.7"),
        v2(b"\x2f\x00"),
        v2(b"\x21\x13", "192.0.2.7"),
        v2(b"\x21\x01"),
        v2(b"\x21\x41"),
        v2(b"\x21\x11", tlvs=bytes(11)),
        v2(b"\x21\x21", tlvs=bytes(35)),
        v2(b"\x21\x00", tlvs=bytes(V2_MAX - 15)),
        SIGNATURE + b"\x20\x00\xff\xff",
    ],
)
def test_a_header_that_is_none_of_the_protocols(data: bytes) -> None:
    assert code(data) == "proxy_header_malformed"
    assert code(data, list(range(1, len(data)))) == "proxy_header_malformed"


addresses = st.ip_addresses()
headers = st.one_of(
    st.builds(v1, addresses, ports=st.tuples(st.integers(0, 65535), st.integers(0, 65535))),
    st.builds(
        lambda address, tlvs: v2(
            b"\x21\x11" if address.version == 4 else b"\x21\x21", str(address), tlvs=tlvs
        ),
        addresses,
        st.binary(max_size=300),
    ),
)


@settings(max_examples=300)
@given(headers, st.binary(max_size=40), st.lists(st.integers(0, 400), max_size=6))
def test_any_cut_gives_the_same(header: bytes, behind: bytes, cuts: list[int]) -> None:
    data = header + behind
    found = read(data, [min(cut, len(data)) for cut in cuts])
    assert found == read(data)
    assert found is not None
    address, rest = found
    assert rest == behind
    if header.startswith(SIGNATURE):
        size = 4 if header[13] == 0x11 else 16
        assert ipaddress.ip_address(address or "") == ipaddress.ip_address(header[16 : 16 + size])
    else:
        assert address == header.split(b" ")[2].decode()


def mutated(header: bytes, at: int, byte: int) -> bytes:
    at %= len(header)
    return header[:at] + bytes([byte]) + header[at + 1 :]


garbage = st.one_of(
    st.binary(max_size=200),
    st.binary(max_size=200).map(lambda tail: b"PROXY " + tail),
    st.binary(max_size=200).map(lambda tail: SIGNATURE + tail),
    st.builds(mutated, headers, st.integers(0, 400), st.integers(0, 255)),
)


@settings(max_examples=500)
@given(garbage, st.lists(st.integers(0, 400), max_size=6))
def test_garbage_is_refused_or_read_and_nothing_else(data: bytes, cuts: list[int]) -> None:
    def outcome(cuts: list[int]) -> Any:
        try:
            return read(data, cuts)
        except Refused as error:
            return error.refusal.code

    found = outcome([min(cut, len(data)) for cut in cuts])
    assert found == outcome([])
    if isinstance(found, str):
        assert found in ("proxy_header_missing", "proxy_header_malformed")
    elif found is not None and found[0] is not None:
        ipaddress.ip_address(found[0])


def test_a_length_is_read_in_network_order() -> None:
    header = SIGNATURE + b"\x20\x00" + struct.pack("!H", 256) + bytes(256)
    assert read(header + BEHIND) == (None, BEHIND)
