"""Resolves a host once and connects to nothing but what was found and checked.

Kept true: between the check of an address and the connection to it no name is resolved again, so a resolver that
changes its answer (DNS rebinding) changes nothing; if one address of a host is closed, the host is, so that an answer
cannot hide one among others. TLS still proves the host's name, not the address.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Final

import httpcore2

from services.internet.addresses import IPAddress, is_public
from services.internet.locations import Location

# To one of a host's addresses, so that one that does not answer leaves time for another.
CONNECT_S: Final = 3.0

Resolve = Callable[[str], Awaitable[Sequence[IPAddress]]]


class ClosedHostError(Exception):
    """The host lies on an address that is not on the public internet."""


class SystemResolver:
    """The machine's resolver, in threads of its own: a name server that never answers holds up its owner only."""

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="resolver")

    async def resolve(self, host: str) -> Sequence[IPAddress]:
        """The host's addresses, best first. Raises OSError when there is none."""
        found = await asyncio.get_running_loop().run_in_executor(self._threads, _lookup, host)
        return tuple(dict.fromkeys(found))

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _lookup(host: str) -> list[IPAddress]:
    return [ip_address(str(entry[4][0])) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]


class _Pinned(httpcore2.AsyncNetworkBackend):
    """Connects to the first of these addresses that answers, whatever name it is asked for."""

    def __init__(self, addresses: Sequence[IPAddress], network: httpcore2.AsyncNetworkBackend) -> None:
        self._addresses = addresses
        self._network = network
        self._stream: httpcore2.AsyncNetworkStream | None = None

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        last: Exception = httpcore2.ConnectError("the host has no address")
        for address in self._addresses:
            try:
                self._stream = await self._network.connect_tcp(
                    str(address), port, CONNECT_S, local_address, socket_options
                )
                return self._stream
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                last = error
        raise last

    async def aclose(self) -> None:
        """httpcore leaves the stream open when a TLS handshake on it is cancelled."""
        if self._stream is not None:
            await self._stream.aclose()


class Connector:
    """Makes connections for one request each. `private_hosts` are spared the check of their addresses."""

    def __init__(
        self,
        resolve: Resolve,
        tls: ssl.SSLContext,
        network: httpcore2.AsyncNetworkBackend,
        private_hosts: frozenset[str],
    ) -> None:
        self._resolve = resolve
        self._tls = tls
        self._network = network
        self._private_hosts = private_hosts

    @asynccontextmanager
    async def connect(self, location: Location) -> AsyncIterator[httpcore2.AsyncHTTPConnection]:
        """A connection that is made when it is first used. Raises ClosedHostError and OSError."""
        literal = location.address
        addresses = [literal] if literal is not None else await self._resolve(location.host)
        if location.host not in self._private_hosts:
            closed = [address for address in addresses if not is_public(address)]
            if closed:
                raise ClosedHostError(f"{closed[0]} is not public")
        pinned = _Pinned(addresses, self._network)
        origin = request_url(location).origin
        try:
            async with httpcore2.AsyncHTTPConnection(origin, self._tls, network_backend=pinned) as connection:
                yield connection
        finally:
            await pinned.aclose()


def request_url(location: Location) -> httpcore2.URL:
    """The location in httpcore's form."""
    return httpcore2.URL(scheme=location.scheme, host=location.host, port=location.port, target=location.url.raw_path)
