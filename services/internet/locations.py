"""Reads a URL that a stranger gave, and says why it cannot be asked for.

Pure. Kept true: one reading of a URL serves every step after it, so that no two parsers can disagree about its host;
a host is an IP address in its one usual form or a DNS name, so that what looks like a number (`0x7f.1`, `017700000001`,
`2130706433`) never reaches a resolver that would read an address into it; a URL with credentials is refused.
"""

import re
from collections.abc import Container, Mapping
from ipaddress import ip_address
from typing import Final

import httpx2
import msgspec

from services.internet.addresses import IPAddress

MAX_CHARACTERS: Final = 8192
DEFAULT_PORTS: Final[Mapping[str, int]] = {"http": 80, "https": 443}

# Underscores are no part of host names but of many names in DNS.
_NAME: Final = re.compile(r"(?!.{254})([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
# Resolvers take a name whose last label is a number for an address (and so do browsers).
_NUMBER: Final = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)")


class LocationError(Exception):
    """The URL cannot be asked for; the message says what is wrong with it and quotes nothing."""


class Rules(msgspec.Struct, frozen=True):
    """What URLs may name. `private_hosts` holds hosts as `Location.host` has them."""

    allow_http: bool
    ports: Container[int]
    private_hosts: frozenset[str]


class Location(msgspec.Struct, frozen=True):
    """A URL taken apart. `host` is a DNS name in lower case and ASCII, or an IP address without brackets."""

    url: httpx2.URL
    scheme: str
    host: str
    port: int

    @property
    def address(self) -> IPAddress | None:
        """The host, when it is an address."""
        return _address(self.host)

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def read(text: str, rules: Rules, came_from: Location | None = None) -> Location:
    """The location that a URL, or a redirect's Location from `came_from`, names. Raises LocationError."""
    if len(text) > MAX_CHARACTERS:
        raise LocationError(f"it is longer than {MAX_CHARACTERS} characters")
    try:
        url = httpx2.URL(text) if came_from is None else came_from.url.join(text)
        host = url.raw_host.decode("ascii")
    except (httpx2.InvalidURL, ValueError) as error:
        raise LocationError("it is not a URL") from error
    schemes = ("https", "http") if rules.allow_http else ("https",)
    if url.scheme not in schemes:
        raise LocationError(f"it must start with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    if url.userinfo:
        raise LocationError("it has a user name or a password")
    port = DEFAULT_PORTS[url.scheme] if url.port is None else url.port
    if port not in rules.ports:
        raise LocationError(f"its port {port} is not allowed")
    return Location(url, url.scheme, _host(host), port)


def host_of(text: str) -> str:
    """A host that a setting names, as `Location.host` has it. Raises LocationError."""
    address = _address(text.strip("[]"))
    if address is not None:
        return str(address)
    try:
        return _host(httpx2.URL(f"https://{text}/").raw_host.decode("ascii"))
    except (httpx2.InvalidURL, ValueError) as error:
        raise LocationError("it is not a host") from error


def hosts_of(text: str) -> frozenset[str]:
    """Hosts that a setting names, by commas. Raises LocationError."""
    return frozenset(host_of(host.strip()) for host in text.split(",") if host.strip())


def _host(host: str) -> str:
    host = host.removesuffix(".")
    address = _address(host)
    if address is not None:
        return str(address)
    if not _NAME.fullmatch(host) or _NUMBER.fullmatch(host):
        raise LocationError("its host is neither a domain name nor an IP address")
    return host


def _address(host: str) -> IPAddress | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
