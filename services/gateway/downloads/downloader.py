"""Downloads what a client's URL names, as a stranger on the internet would: this is where SSRF ends.

Kept true: every request, also after a redirect, goes to a location that `locations` admits, over a connection that
`connections` pinned; nothing of the environment (proxies, netrc, cookies) is used; a body is never held beyond its
bound, and no body is decompressed; the whole takes no longer than its limit; a client learns the same from whatever
it may not reach.
"""

import asyncio
import ssl
from collections.abc import Collection, Mapping
from contextlib import aclosing
from typing import Final

import httpcore2
from prometheus_client import Counter

from services import telemetry
from services.faults import InvalidRequest
from services.gateway.downloads import content
from services.gateway.downloads.content import Fetched
from services.gateway.downloads.settings import DownloadSettings
from services.internet import locations
from services.internet.connections import (
    ClosedHostError,
    Connector,
    Resolve,
    SystemResolver,
    request_url,
)
from services.internet.locations import Location, LocationError
from services.settings import PREFIX, SettingsError

REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))
# One address's ConnectTimeout is among them: it must read like any other address that cannot be reached.
BROKEN: Final = (OSError, httpcore2.NetworkError, httpcore2.TimeoutException, httpcore2.ProtocolError)
# A body in tiny pieces costs much more time than its bytes: beyond the first pieces, they must be this long on average.
FREE_PIECES: Final = 1000
PIECE_BYTES: Final = 256

DOWNLOADS = Counter(
    "modelplane_downloads",
    "Downloads of URLs that clients sent, by outcome: done, invalid, closed (not on the internet), failed, timeout.",
    ("outcome",),
)

log = telemetry.logger(__name__)


class _FailedError(Exception):
    """The server's answer is of no use; the message is for the log."""


class Downloader:
    """Downloads for all requests of a process. `resolve`, `tls` and `network` stand in for the system's in tests."""

    def __init__(
        self,
        settings: DownloadSettings,
        *,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
        network: httpcore2.AsyncNetworkBackend | None = None,
    ) -> None:
        self._rules = _rules(settings)
        self._max_redirects = settings.max_redirects
        self._slots = asyncio.Semaphore(settings.max_concurrent)
        self._resolver = SystemResolver(settings.max_concurrent)
        self._connector = Connector(
            resolve or self._resolver.resolve,
            tls or ssl.create_default_context(),
            network or httpcore2.AnyIOBackend(),
            self._rules.private_hosts,
        )

    def close(self) -> None:
        self._resolver.close()

    async def fetch(self, url: str, *, max_bytes: int, timeout_s: float, content_types: Collection[str]) -> Fetched:
        """What the URL names, if it is of one of `content_types` and has 1 to `max_bytes` bytes.

        Waits for a free slot, then takes at most `timeout_s`. Raises InvalidRequest, whose `param` the caller sets.
        """
        async with self._slots:
            host = ""
            try:
                location = locations.read(url, self._rules)
                host = location.host
                async with asyncio.timeout(timeout_s):
                    fetched = await self._follow(location, max_bytes, content_types)
            except LocationError as error:
                raise self._fault("invalid", content.invalid_url(url, str(error)), host, error) from error
            except ClosedHostError as error:
                raise self._fault("closed", content.failed(url), host, error) from error
            except TimeoutError as error:
                raise self._fault("timeout", content.timed_out(url), host, error) from error
            except (*BROKEN, _FailedError) as error:
                raise self._fault("failed", content.failed(url), host, error) from error
            except InvalidRequest as fault:
                raise self._fault("invalid", fault, host, fault) from None
        DOWNLOADS.labels("done").inc()
        return fetched

    def _fault(self, outcome: str, fault: InvalidRequest, host: str, why: Exception) -> InvalidRequest:
        DOWNLOADS.labels(outcome).inc()
        log.info("download failed", outcome=outcome, host=host, why=why)
        return fault

    async def _follow(self, location: Location, max_bytes: int, content_types: Collection[str]) -> Fetched:
        for _ in range(self._max_redirects + 1):
            found = await self._get(location, max_bytes, content_types)
            if isinstance(found, Fetched):
                return found
            try:
                location = locations.read(found, self._rules, came_from=location)
            except LocationError as error:
                raise _FailedError(f"a redirect cannot be followed: {error}") from error
        raise _FailedError("too many redirects")

    async def _get(self, location: Location, max_bytes: int, content_types: Collection[str]) -> Fetched | str:
        """The content, or where a redirect leads."""
        headers: Mapping[bytes | str, bytes | str] = {
            "Host": location.authority,
            "User-Agent": "Modelplane",
            "Accept": ", ".join(content_types),
            "Accept-Encoding": "identity",
            "Connection": "close",
        }
        async with (
            self._connector.connect(location) as connection,
            connection.stream("GET", request_url(location), headers=headers) as response,
        ):
            answered = {name.lower().decode(): value.decode(errors="replace") for name, value in response.headers}
            if response.status in REDIRECTS and "location" in answered:
                return answered["location"]
            if response.status != 200:
                raise _FailedError(f"the server answered {response.status}")
            if answered.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
                raise _FailedError("the body is compressed, though only a plain one was asked for")
            content_type = content.media_type(answered.get("content-type", ""))
            if content_type not in content_types:
                raise content.unsupported(content_type, content_types)
            if int(answered.get("content-length", "0")) > max_bytes:
                raise content.too_large(max_bytes)
            return Fetched(await _body(response, max_bytes), content_type)


async def _body(response: httpcore2.Response, max_bytes: int) -> bytes:
    body = bytearray()
    pieces = 0
    async with aclosing(response.aiter_stream()) as stream:
        async for piece in stream:
            body += piece
            pieces += 1
            if len(body) > max_bytes:
                raise content.too_large(max_bytes)
            if pieces > FREE_PIECES and len(body) < pieces * PIECE_BYTES:
                raise _FailedError("the body comes in too many pieces")
    if not body:
        raise content.empty()
    return bytes(body)


def _rules(settings: DownloadSettings) -> locations.Rules:
    prefix = f"{PREFIX}{DownloadSettings.group.upper()}"
    try:
        ports = frozenset(int(port) for port in settings.ports.split(",") if port.strip())
    except ValueError as error:
        raise SettingsError(f"{prefix}_PORTS={settings.ports!r} does not fit: expected numbers") from error
    try:
        private_hosts = locations.hosts_of(settings.allow_private_hosts)
    except LocationError as error:
        raise SettingsError(
            f"{prefix}_ALLOW_PRIVATE_HOSTS={settings.allow_private_hosts!r} does not fit: {error}"
        ) from error
    return locations.Rules(settings.allow_http, ports, private_hosts)
