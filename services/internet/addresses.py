"""Which IP addresses are on the public internet, so that a client's URL cannot reach anything else.

Pure. Kept true: an address is public only if every way of reading it is; IPv6 is admitted by its one global range,
so that ranges of the future are closed until they are listed; an IPv6 address that stands for an IPv4 one is judged
as that one. The lists are IANA's special-purpose registries, in full: `ipaddress.is_global` differs between Python's
patch releases and calls multicast and 6to4 addresses global.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

IPAddress = IPv4Address | IPv6Address

CLOSED_IPV4: Final[Sequence[IPv4Network]] = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network; Linux takes 0.0.0.0 for itself
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # carriers' NAT; Alibaba's metadata
            "127.0.0.0/8",  # loopback
            "168.63.129.16/32",  # Azure's host, a public address that leads to the virtual machine's own
            "169.254.0.0/16",  # link-local; the metadata of most clouds
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # protocol assignments; Oracle's metadata
            "192.0.2.0/24",  # documentation
            "192.88.99.0/24",  # relays to 6to4
            "192.168.0.0/16",  # private
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and broadcast
        ),
    )
)

GLOBAL_IPV6: Final = IPv6Network("2000::/3")

CLOSED_IPV6: Final[Sequence[IPv6Network]] = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocol assignments, among them Teredo, which wraps IPv4
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4, which wraps IPv4; given up in 2015
            "3fff::/20",  # documentation
        ),
    )
)

# Their last 32 bits are an IPv4 address: the mapped form, and NAT64, by which networks without IPv4 reach it.
WRAPPED_IPV4: Final[Sequence[IPv6Network]] = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))


def is_public(address: IPAddress) -> bool:
    """Whether a connection to the address leaves for the public internet."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in CLOSED_IPV4)
    if address.scope_id is not None:
        return False
    if any(address in network for network in WRAPPED_IPV4):
        return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    return address in GLOBAL_IPV6 and not any(address in network for network in CLOSED_IPV6)
