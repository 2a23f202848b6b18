"""Which addresses a handoff may go to. Pure: one function, one table.

A customer names an origin, and names resolve to whatever their owner says: without this table, the
edge would be a way into its own network.
"""

import ipaddress
from collections.abc import Collection
from functools import lru_cache
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_TABLE: Final[tuple[tuple[Network, str], ...]] = tuple(
    (ipaddress.ip_network(network), kind)
    for network, kind in (
        ("0.0.0.0/32", "unspecified"),
        ("0.0.0.0/8", "reserved"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "reserved"),
        ("192.88.99.0/24", "6to4"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "reserved"),
        ("198.51.100.0/24", "reserved"),
        ("203.0.113.0/24", "reserved"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("::ffff:0:0/96", "mapped"),
        ("64:ff9b::/96", "NAT64"),
        ("64:ff9b:1::/48", "NAT64"),
        ("2001::/23", "reserved"),
        ("2001:db8::/32", "reserved"),
        ("2002::/16", "6to4"),
        ("3fff::/20", "reserved"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "private"),
        ("ff00::/8", "multicast"),
    )
)
"""The first network that holds an address names its kind."""

_KNOWN: Final = 4_096
"""Addresses whose kind is remembered: origins are few, and each is dialled often."""

_GLOBAL_V6 = ipaddress.ip_network("2000::/3")


@lru_cache(_KNOWN)
def kind_of(address: Address) -> str | None:
    """What makes the address no public one; None for a public address."""
    for network, kind in _TABLE:
        if address.version == network.version and address in network:
            return kind
    if address.version == 6 and address not in _GLOBAL_V6:
        return "reserved"
    return None


def judge(
    address: str,
    port: int,
    *,
    allow_private: bool,
    own_ports: Collection[int] = (),
    own_networks: Collection[Network] = (),
) -> str | None:
    """Why the address must not be dialled, or None where it may.

    allow_private: the deployment says that its origins live in private networks.
    own_ports: ports that this node listens on; at a loopback or unspecified address they are its
        own, and a handoff to itself would never end. own_networks: the edges' addresses. Both are
        refused whatever `allow_private` says.
    """
    parsed, seen = _read(address)
    if any(seen.version == network.version and seen in network for network in own_networks):
        return "an edge's own"
    if port in own_ports and kind_of(seen) in ("loopback", "unspecified"):
        return "this edge's own"
    return None if allow_private else kind_of(parsed)


def within(address: str, networks: Collection[Network]) -> bool:
    """Whether one of the networks holds the address; an IPv4 one may be mapped into IPv6."""
    if not networks:
        return False
    _, seen = _read(address)
    return any(seen.version == network.version and seen in network for network in networks)


@lru_cache(_KNOWN)
def _read(address: str) -> tuple[Address, Address]:
    """The address without its zone, and the IPv4 one that it may be in IPv6's clothes."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    plain = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return parsed, plain or parsed


def network_of(address: str) -> str:
    """The client network that may be kept: the /24 of an IPv4 address, the /48 of an IPv6 one.

    address: as the kernel gives it, or as `ipaddress` writes it.
    """
    if ":" not in address:
        # Asked for each client: the general way takes ten times as long.
        return address[: address.rindex(".")] + ".0/24"
    parsed = ipaddress.ip_address(address.partition("%")[0])
    assert isinstance(parsed, ipaddress.IPv6Address)
    if parsed.ipv4_mapped:
        return network_of(str(parsed.ipv4_mapped))
    return str(ipaddress.ip_network((parsed, 48), strict=False))
