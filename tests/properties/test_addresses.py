"""No address that only the platform may reach counts as public, in whichever form it is written."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.internet.addresses import CLOSED_IPV4, CLOSED_IPV6, GLOBAL_IPV6, is_public

CLOSED = [
    # Written down again, so that a slip in the module's own lists is seen.
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.0.1",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "192.168.255.255",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:0:127.0.0.1",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:2::1",
    "2001:db8::1",
    "2002:0808:0808::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fe80::1",
    "fe80::1%eth0",
    "2606:4700::1%eth0",
    "fec0::1",
    "ff02::1",
]
OPEN = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "169.253.255.255",
    "172.15.255.255",
    "172.32.0.0",
    "192.167.255.255",
    "223.255.255.255",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
    "2001:4860:4860::8888",
    "2606:4700:4700::1111",
    "2a00:1450::1",
]


@pytest.mark.parametrize("text", CLOSED)
def test_closed(text: str) -> None:
    assert not is_public(ip_address(text))


@pytest.mark.parametrize("text", OPEN)
def test_open(text: str) -> None:
    assert is_public(ip_address(text))


def within(networks: Sequence[IPv4Network] | Sequence[IPv6Network]) -> st.SearchStrategy[IPv4Address | IPv6Address]:
    return st.sampled_from(networks).flatmap(lambda network: st.ip_addresses(network=str(network)))


def embedded(address: IPv4Address) -> list[IPv6Address]:
    """Every IPv6 address that some machine takes for this IPv4 address."""
    number = int(address)
    return [
        IPv6Address(number),
        IPv6Address((0xFFFF << 32) | number),
        IPv6Address((0xFFFF << 48) | number),
        IPv6Address((0x64FF9B << 96) | number),
        IPv6Address((0x64FF9B0001 << 80) | number),
        IPv6Address((0x2002 << 112) | (number << 80) | 1),
        IPv6Address((0x20010000 << 96) | (number << 64) | (number ^ 0xFFFFFFFF)),
    ]


@given(within(CLOSED_IPV4))
def test_a_closed_ipv4_address_stays_closed_in_every_form(address: IPv4Address) -> None:
    assert not is_public(address)
    assert not any(map(is_public, embedded(address)))


@given(within(CLOSED_IPV6))
def test_closed_ipv6_networks(address: IPv6Address) -> None:
    assert not is_public(address)


@given(st.ip_addresses())
def test_what_is_public_is_public_for_python_too(address: IPv4Address | IPv6Address) -> None:
    """Python's own judgement is an oracle for one direction; see the module for where it errs in the other."""
    wrapped = isinstance(address, IPv6Address) and address not in GLOBAL_IPV6
    if is_public(address) and not wrapped:
        assert not (address.is_private or address.is_multicast or address.is_reserved or address.is_loopback)
        assert not (address.is_link_local or address.is_unspecified)


@given(st.ip_addresses(v=4))
def test_the_forms_that_stand_for_an_ipv4_address_are_judged_as_it(address: IPv4Address) -> None:
    mapped, nat64 = embedded(address)[1], embedded(address)[3]
    assert is_public(mapped) == is_public(nat64) == is_public(address)


@given(st.ip_addresses(v=6))
def test_ipv6_is_open_only_in_its_global_range(address: IPv6Address) -> None:
    if is_public(address):
        assert address in GLOBAL_IPV6 or is_public(IPv4Address(int(address) & 0xFFFFFFFF))


@pytest.mark.parametrize("network", CLOSED_IPV4, ids=str)
def test_a_networks_edges(network: IPv4Network) -> None:
    """Closed to the last address; what lies beyond is open or of another closed network."""
    assert not is_public(network[0]) and not is_public(network[-1])
    for outside in (int(network[0]) - 1, int(network[-1]) + 1):
        if 0 <= outside < 2**32:
            address = IPv4Address(outside)
            assert is_public(address) != any(address in other for other in CLOSED_IPV4)
