"""Writes answers with little work: a head is put together in one step, and leaves with its body at once.

Uvicorn searches every name and value of a head for what may not be in it, and writes head and body apart: each write
is a system call that wakes the client, for half an answer. On short answers the two are a tenth of the gateway's work.

Uvicorn also keeps heads of any length in memory. Here a connection whose head, or what follows a body, does not end is
closed: that comes before anybody is asked for a key.
"""

import asyncio
from typing import Any, Final

from uvicorn._types import ASGI3Application, ASGISendEvent, HTTPResponseStartEvent
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

MOST_HEAD_BYTES: Final = 128 * 1024
BODILESS: Final = (204, 304)


class GatheringTransport:
    """A transport whose `write` waits for `flush` or the end of the turn; everything else is the real transport's."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._waiting: list[bytes] = []
        self._end: asyncio.Handle | None = None

    def write(self, data: bytes) -> None:
        if self._end is None:
            self._end = self._loop.call_soon(self.flush)
        self._waiting.append(data)

    def flush(self) -> None:
        """Hands over what was written."""
        if self._end is not None:
            self._end.cancel()
            self._end = None
            waiting, self._waiting = self._waiting, []
            self._transport.write(waiting[0] if len(waiting) == 1 else b"".join(waiting))

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Cycle(RequestResponseCycle):
    """Uvicorn's request and answer, with a head of our own making: names in lower case, no line break in any value."""

    async def send(self, message: ASGISendEvent) -> None:
        if message["type"] != "http.response.start" or self.response_started:
            await super().send(message)
            return
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if not self.disconnected:
            self.response_started = True
            self.waiting_for_100_continue = False
            self.transport.write(self._head(message))

    def _head(self, message: HTTPResponseStartEvent) -> bytes:
        """Raises ValueError for a header that would be another's, or the body's."""
        status = message["status"]
        lines = [STATUS_LINE[status]]
        for name, value in self.default_headers:
            lines.append(b"%b: %b\r\n" % (name, value))
        for name, value in message["headers"]:
            if name == b"content-length":
                self.expected_content_length = int(value)
                self.chunked_encoding = False
            elif name == b"connection" and value == b"close":
                self.keep_alive = False
                continue
            lines.append(b"%b: %b\r\n" % (name, value))
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        if self.chunked_encoding is None and self.scope["method"] != "HEAD" and status not in BODILESS:
            self.chunked_encoding = True
            lines.append(b"transfer-encoding: chunked\r\n")
        head = b"".join(lines)
        if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines) or b"\0" in head:
            raise ValueError("a header with a line break in it")
        return head + b"\r\n"


class GatheringProtocol(HttpToolsProtocol):
    """Uvicorn's HTTP protocol on a gathering transport."""

    # Received since a head or a part of a body was complete.
    _incomplete_bytes = 0
    _gathering: GatheringTransport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._gathering = GatheringTransport(transport, self.loop)
        super().connection_made(self._gathering)  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        self._incomplete_bytes += len(data)
        super().data_received(data)
        if self._incomplete_bytes > MOST_HEAD_BYTES:
            if self.cycle is None or self.cycle.response_complete:
                self.send_400_response("The head of the request is too long.")
            self.transport.close()

    def on_headers_complete(self) -> None:
        self._incomplete_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._incomplete_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._incomplete_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._gathering.flush()
        super().on_response_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        # Uvicorn makes its own, and has no way to be told of another class.
        cycle.__class__ = Cycle
        super()._start_asgi_task(cycle, app)
