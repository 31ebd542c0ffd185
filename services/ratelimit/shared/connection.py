"""One connection to Valkey, shared by everything that asks it at the same time.

Calls are sent in the order in which they are made, those of one turn of the event loop together, and answered in
that order. A general client's pool, locks and retries would cost several times the decision itself, and its
retries would be wrong here: a call that may have been carried out must not be made again.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import unquote, urlsplit

import libvalkey

SCHEMES: Final = ("valkey", "valkeys", "redis", "rediss", "unix")
_PORT: Final = 6379
Word = str | int | bytes
Reply = Any
"""bytes, int, None, or a list of them."""


class ServerError(Exception):
    """Valkey answered with an error."""


class Unreachable(Exception):
    """Valkey cannot be asked, or did not answer in time. What was asked may have been done."""


class Connection(asyncio.Protocol):
    """An open connection. `calls` and what they wait for end with Unreachable when it is lost."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._reader = libvalkey.Reader(replyError=ServerError, protocolError=ServerError)
        self._waiting: deque[tuple[asyncio.Future[Reply], Callable[[Reply], None] | None, int]] = deque()
        self._unsent: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self.lost: asyncio.Future[str] = self._loop.create_future()
        """Done when the connection has ended, with the reason."""

    def call(self, *words: Word, late: Callable[[Reply], None] | None = None) -> asyncio.Future[Reply]:
        """Asks; the future has the reply, a ServerError, or Unreachable.

        `late` gets the reply when the future was cancelled meanwhile.
        """
        future = self._loop.create_future()
        if self._transport is None:
            future.set_exception(Unreachable("the connection is closed"))
            return future
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent.append(libvalkey.pack_command(words))
        self._waiting.append((future, late, self._clock()))
        return future

    def waiting_since_ns(self) -> int | None:
        """When the oldest call that is not answered was made."""
        return self._waiting[0][2] if self._waiting else None

    def close(self, reason: str) -> None:
        """Ends the connection at once, and every call on it."""
        if self._transport is not None:
            self._transport.abort()
            self._end(reason)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Replies come in the order of the calls."""
        self._reader.feed(data)
        while (reply := self._next()) is not False:
            future, late, _ = self._waiting.popleft()
            if future.cancelled():
                if isinstance(reply, ServerError):
                    self.close(str(reply))
                elif late is not None:
                    late(reply)
            elif isinstance(reply, ServerError):
                future.set_exception(reply)
            else:
                future.set_result(reply)

    def connection_lost(self, error: Exception | None) -> None:
        self._end(str(error) if error else "Valkey closed the connection")

    def _next(self) -> Reply:
        """The next whole reply, False when there is none yet (Valkey says True and False only when asked to)."""
        try:
            return self._reader.gets()
        except ServerError as error:
            self.close(f"what came is not Valkey's protocol: {error}")
            return False

    def _send(self) -> None:
        if self._transport is not None:
            self._transport.write(b"".join(self._unsent))
        self._unsent.clear()

    def _end(self, reason: str) -> None:
        self._transport = None
        waiting, self._waiting = self._waiting, deque()
        for future, _, _ in waiting:
            if not future.done():
                future.set_exception(Unreachable(reason))
        if not self.lost.done():
            self.lost.set_result(reason)


def tls(ca_file: Path | None = None, folder: Path | None = None) -> ssl.SSLContext:
    """For servers whose certificate fits their name. Raises OSError when the files cannot be used."""
    context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    if folder is not None:
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    return context


async def connect(url: str, clock: Callable[[], int], secure: Callable[[], ssl.SSLContext] = tls) -> Connection:
    """Opens a connection and logs in. Raises OSError, Unreachable or ServerError; takes as long as it takes.

    `secure` is asked for each connection of a url with TLS, so that renewed files are taken up.
    """
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    connection = Connection(clock)
    if parts.scheme == "unix":
        await loop.create_unix_connection(lambda: connection, parts.path)
    else:
        context = await asyncio.to_thread(secure) if parts.scheme in ("valkeys", "rediss") else None
        host, port = parts.hostname or "localhost", parts.port or _PORT
        await loop.create_connection(lambda: connection, host, port, ssl=context)
    try:
        if parts.password:
            user = (unquote(parts.username),) if parts.username else ()
            await connection.call("AUTH", *user, unquote(parts.password))
        if parts.scheme != "unix" and (database := parts.path.strip("/")):
            await connection.call("SELECT", database)
    except BaseException:
        connection.close("the login failed")
        raise
    return connection
