"""Posts to receivers: to owners' webhooks as a stranger on the internet would, to the operator's own URLs directly.

Kept true: what an owner names is reached only by a checked public address (see `services.internet`), no redirect is
followed and no more of an answer is read than its status; whatever goes wrong is a DeliveryError, which says nothing
that the receiver sent.
"""

import asyncio
import ssl
from collections.abc import Mapping
from typing import Final

import httpcore2
import httpx2

from services.internet import locations
from services.internet.connections import ClosedHostError, Connector, Resolve, SystemResolver, request_url
from services.internet.locations import LocationError, Rules

# Any: an owner's server may listen where it likes, as long as it speaks TLS.
PORTS: Final = range(1, 65536)
BROKEN: Final = (OSError, httpcore2.NetworkError, httpcore2.TimeoutException, httpcore2.ProtocolError)
JSON: Final = "application/json"


class DeliveryError(Exception):
    """The receiver did not take it; the message is for the log."""


class Poster:
    """Posts for one process. `resolve`, `tls` and `network` stand in for the system's in tests."""

    def __init__(
        self,
        timeout_s: float,
        private_hosts: frozenset[str],
        *,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
        network: httpcore2.AsyncNetworkBackend | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._rules = Rules(allow_http=False, ports=PORTS, private_hosts=private_hosts)
        self._resolver = SystemResolver(4)
        self._connector = Connector(
            resolve or self._resolver.resolve,
            tls or ssl.create_default_context(),
            network or httpcore2.AnyIOBackend(),
            private_hosts,
        )
        self._own = httpx2.AsyncClient(trust_env=False, timeout=timeout_s)

    async def close(self) -> None:
        self._resolver.close()
        await self._own.aclose()

    async def post_outside(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        """To a URL that an owner gave. Raises DeliveryError."""
        try:
            location = locations.read(url, self._rules)
            sent: dict[bytes | str, bytes | str] = {
                "Host": location.authority,
                "User-Agent": "Modelplane",
                "Content-Type": JSON,
                "Content-Length": str(len(body)),
                "Connection": "close",
            }
            sent.update(headers.items())
            async with (
                asyncio.timeout(self._timeout_s),
                self._connector.connect(location) as connection,
                connection.stream("POST", request_url(location), headers=sent, content=body) as response,
            ):
                _check(response.status)
        except (LocationError, ClosedHostError, TimeoutError, *BROKEN) as error:
            raise DeliveryError(f"{type(error).__name__}: {error}") from error

    async def post_own(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        """To a URL of the operator. Raises DeliveryError."""
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._own.stream("POST", url, content=body, headers=dict(headers)) as response,
            ):
                _check(response.status_code)
        except (TimeoutError, httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise DeliveryError(f"{type(error).__name__}: {error}") from error


def _check(status: int) -> None:
    if not 200 <= status < 300:
        raise DeliveryError(f"the receiver answered {status}")
