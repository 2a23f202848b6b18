"""The address guard: no origin name may lead into a private network."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handoff_edge.addresses import judge, kind_of, network_of, within

REFUSED = {
    "0.0.0.0": "unspecified",
    "0.1.2.3": "reserved",
    "10.1.2.3": "private",
    "100.64.0.1": "shared",
    "127.0.0.1": "loopback",
    "127.255.255.254": "loopback",
    "169.254.169.254": "link-local",
    "172.16.0.1": "private",
    "172.31.255.255": "private",
    "192.0.2.1": "reserved",
    "192.88.99.1": "6to4",
    "192.168.1.1": "private",
    "198.19.0.1": "reserved",
    "224.0.0.1": "multicast",
    "255.255.255.255": "reserved",
    "::": "unspecified",
    "::1": "loopback",
    "::ffff:8.8.8.8": "mapped",
    "::ffff:10.0.0.1": "mapped",
    "::8.8.8.8": "reserved",
    "64:ff9b::808:808": "NAT64",
    "64:ff9b:1::1": "NAT64",
    "100::1": "reserved",
    "2001::1": "reserved",
    "2001:db8::1": "reserved",
    "2002:a00:1::1": "6to4",
    "fc00::1": "private",
    "fd12::1": "private",
    "fe80::1": "link-local",
    "fe80::1%eth0": "link-local",
    "fec0::1": "private",
    "ff02::1": "multicast",
    "4000::1": "reserved",
}
PUBLIC = ["1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::1"]


@pytest.mark.parametrize(("address", "kind"), REFUSED.items())
def test_addresses_that_are_not_public(address: str, kind: str) -> None:
    assert judge(address, 443, allow_private=False) == kind
    assert judge(address, 443, allow_private=True) is None


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    assert judge(address, 443, allow_private=False) is None


def test_an_edge_never_dials_itself_or_its_siblings() -> None:
    own = (ipaddress.ip_network("198.51.100.0/24"), ipaddress.ip_network("1.1.1.1"))
    for address in ("127.0.0.1", "127.8.8.8", "0.0.0.0", "::1", "::ffff:127.0.0.1"):
        found = judge(address, 8080, allow_private=True, own_ports=(8080,))
        assert found == "this edge's own"
        assert judge(address, 9999, allow_private=True, own_ports=(8080,)) is None
    for address in ("198.51.100.7", "1.1.1.1", "::ffff:1.1.1.1"):
        assert judge(address, 443, allow_private=True, own_networks=own) == "an edge's own"


@given(st.ip_addresses(v=4))
def test_agrees_with_the_standard_library_on_ipv4(address: ipaddress.IPv4Address) -> None:
    # The standard library calls all of these not global; ours may be stricter, never laxer.
    if not address.is_global or address.is_multicast:
        assert kind_of(address) is not None


@given(st.ip_addresses(v=6))
def test_agrees_with_the_standard_library_on_ipv6(address: ipaddress.IPv6Address) -> None:
    exceptions = ("2001:1::", "2001:3::", "2001:4:112::", "2001:20::", "2001:30::")
    if not address.is_global and not str(address).startswith(exceptions):
        assert kind_of(address) is not None


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.77", "203.0.113.0/24"),
        ("::ffff:203.0.113.77", "203.0.113.0/24"),
        ("2a00:1450:4001:82a::200e", "2a00:1450:4001::/48"),
        ("fe80::1%lo", "fe80::/48"),
    ],
)
def test_only_the_network_of_a_client_is_kept(address: str, network: str) -> None:
    assert network_of(address) == network


@given(st.ip_addresses(v=4))
def test_the_network_of_an_ipv4_client_is_its_24(address: ipaddress.IPv4Address) -> None:
    assert network_of(str(address)) == str(ipaddress.ip_network((address, 24), strict=False))


def test_an_address_is_within_networks_of_its_own_version() -> None:
    networks = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")]
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd00::1", "fd00::1%eth0"):
        assert within(address, networks)
    for address in ("11.1.2.3", "fe80::1", "::ffff:11.1.2.3", "::a01:203"):
        assert not within(address, networks)
    assert not within("10.1.2.3", [])
