"""A name server that answers for one name with whatever addresses it holds at the moment."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from struct import pack, unpack_from
from typing import cast

_A = 1


class NameServer(asyncio.DatagramProtocol):
    """Answers questions for IPv4 addresses by UDP; every other kind with nothing."""

    def __init__(self) -> None:
        self.addresses: tuple[str, ...] = ()
        self.asked = 0
        self._transport: asyncio.DatagramTransport | None = None

    @property
    def authority(self) -> str:
        """`host:port`, for `dns://host:port/name:port`."""
        assert self._transport is not None
        host, port = self._transport.get_extra_info("sockname")[:2]
        return f"{host}:{port}"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # No subclass of it everywhere.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        end = 12
        while data[end]:
            end += data[end] + 1
        question = data[12 : end + 5]
        (kind,) = unpack_from(">H", data, end + 1)
        addresses = self.addresses if kind == _A else ()
        self.asked += kind == _A
        # Recursion is desired and available; one question; a pointer to its name in every answer; no time to live.
        head = data[:2] + pack(">HHHHH", 0x8180, 1, len(addresses), 0, 0)
        answers = b"".join(
            pack(">HHHIH", 0xC00C, _A, 1, 0, 4) + ipaddress.IPv4Address(address).packed for address in addresses
        )
        assert self._transport is not None
        self._transport.sendto(head + question + answers, addr)


@asynccontextmanager
async def name_server() -> AsyncIterator[NameServer]:
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(NameServer, ("127.0.0.1", 0))
    try:
        yield server
    finally:
        transport.close()
