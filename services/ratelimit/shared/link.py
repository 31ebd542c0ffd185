"""The way to Valkey: open when it can be, and known to be shut when it cannot.

Whoever asks gets an answer or Unreachable, at once while the way is shut and after the timeout at the latest. One
that was lost is opened again in the background, with longer and longer pauses, and only counts as open when the
function itself has answered: a Valkey that is full, loading or a replica would refuse every decision.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from prometheus_client import Gauge

from services import telemetry
from services.ratelimit.shared.connection import SCHEMES, Connection, ServerError, Unreachable, connect, tls
from services.ratelimit.shared.function import Function, Reply, Request
from services.ratelimit.shared.settings import ValkeySettings
from services.settings import SettingsError

log = telemetry.logger(__name__)

SHARED = Gauge(
    "modelplane_ratelimit_shared", "1 while limits are shared through Valkey, 0 while it is out of reach.", ()
)
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 2.0
# A way that was open for a shorter time is not mended: the next pause is longer all the same.
_STABLE_S: Final = 5.0


class Link:
    """The connection of this gateway. `run` keeps it."""

    def __init__(self, settings: ValkeySettings, clock: Callable[[], int]) -> None:
        if settings.url is None or urlsplit(settings.url).scheme not in SCHEMES:
            raise SettingsError(f"MODELPLANE_VALKEY_URL={settings.url!r} must begin with one of {', '.join(SCHEMES)}")
        self._url = settings.url
        self._tls = partial(tls, settings.ca_file, settings.tls_folder)
        self._timeout_ns = settings.timeout_ms * 1_000_000
        self._clock = clock
        self._function = Function()
        self._connection: Connection | None = None
        self.holder = 0
        """Whose leases are given on the connection: another for each, so that what is left of an old one expires."""

        self._pause_s = _FIRST_PAUSE_S
        self._shared: bool | None = None
        self.tried = asyncio.Event()
        """Set when the first attempt to connect has ended."""

    @property
    def is_open(self) -> bool:
        return self._connection is not None

    async def decide(self, request: Request, late: Callable[[Reply], None] | None = None) -> Reply:
        """As `Function.decide`, but raises only Unreachable."""
        connection = self._connection
        if connection is None:
            raise Unreachable("Valkey is out of reach")
        try:
            return await self._function.decide(connection, request, late)
        except ServerError as error:
            connection.close(str(error))
            raise Unreachable(str(error)) from error

    def watch(self) -> None:
        """Gives up a connection that has owed an answer for too long. To be called often."""
        connection = self._connection
        if connection is None:
            return
        since_ns = connection.waiting_since_ns()
        if since_ns is not None and self._clock() - since_ns > self._timeout_ns:
            connection.close("no answer in time")

    async def run(self) -> None:
        """Connects, and connects again whenever the connection is lost, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(self._timeout_ns / 1e9), self._opened() as connection:
                    opened_ns = self._clock()
            except (OSError, Unreachable, ServerError, TimeoutError) as error:
                self._turn(False, str(error) or type(error).__name__)
            else:
                await self._use(connection)
                if self._clock() - opened_ns > _STABLE_S * 1e9:
                    self._pause_s = _FIRST_PAUSE_S
            # Gateways that lost it together should not all come back together.
            await asyncio.sleep(self._pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - not a secret
            self._pause_s = min(_LONGEST_PAUSE_S, self._pause_s * 2)

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[Connection]:
        """A connection on which the function has answered. It stays open when the block ends well."""
        connection = await connect(self._url, self._clock, self._tls)
        try:
            await self._function.load(connection)
            await self._function.decide(connection, Request())
            yield connection
        except BaseException:
            connection.close("it could not be used")
            raise

    async def _use(self, connection: Connection) -> None:
        self.holder = random.getrandbits(48) + 1
        self._connection = connection
        self._turn(True, "")
        try:
            reason = await asyncio.shield(connection.lost)
        except asyncio.CancelledError:
            connection.close("the gateway stops")
            raise
        finally:
            self._connection = None
        self._turn(False, reason)

    def _turn(self, shared: bool, reason: str) -> None:
        """One line in the log for each change."""
        self.tried.set()
        SHARED.set(shared)
        if self._shared is not shared:
            self._shared = shared
            if shared:
                log.info("rate limits are shared through Valkey")
            else:
                log.warning("Valkey is out of reach: this gateway grants its share of the limits", reason=reason)
