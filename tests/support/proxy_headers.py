"""PROXY protocol headers as a load balancer would send them."""

import ipaddress
import struct

from handoff_edge.proxy_header import SIGNATURE

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def v1(client: Address, *, ports: tuple[int, int] = (40_000, 443)) -> bytes:
    """Version 1, of a client that connected to the documentation's server."""
    family, server = ("TCP4", "198.51.100.1") if client.version == 4 else ("TCP6", "2001:db8::1")
    return f"PROXY {family} {client} {server} {ports[0]} {ports[1]}\r\n".encode()


def v2(command_and_family: bytes, client: str | None = None, *, tlvs: bytes = b"") -> bytes:
    """Version 2. client: whose address comes first in the block, if any does."""
    block = b""
    if client is not None:
        packed = ipaddress.ip_address(client).packed
        block = packed + bytes(len(packed)) + struct.pack("!HH", 40_000, 443)
    block += tlvs
    return SIGNATURE + command_and_family + struct.pack("!H", len(block)) + block
