"""Where a request may come from: addresses, and the CIDR blocks of projects and proxies.

The gateway asks for its own clients, and auth for those of other proxies; neither may import the other. Pure.
"""

import ipaddress
from collections.abc import Iterable, Sequence

from services.faults import Unauthenticated

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def network(block: str) -> Network:
    """Raises ValueError for what is no CIDR block and no address."""
    return ipaddress.ip_network(block)


def within(address: str, networks: Iterable[Network]) -> bool:
    """False for what is no address. IPv4 addresses may be written as IPv6."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped:
        parsed = parsed.ipv4_mapped
    return any(parsed in block for block in networks)


def check_address(address: str, allowed: Sequence[Network]) -> None:
    """Raises Unauthenticated for an address ("" when it is unknown) that is in none of the blocks."""
    if not within(address, allowed):
        raise Unauthenticated(
            "ip_not_authorized",
            f"Your IP address ({address or 'unknown'}) is not among those that this project allows.",
        )
