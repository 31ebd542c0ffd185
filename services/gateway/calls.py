"""One HTTP call: its identity, its body within bounds, and the answer with the headers that every answer has."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, MutableMapping
from typing import Any, Protocol, TypeVar

from modelplane.auth.v1.auth_pb2 import Principal
from services.faults import Cancelled, Fault, InvalidRequest
from services.gateway.runs import Run
from services.http_faults import Headers, error_body, error_headers
from services.rate_headers import rate_lines

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

T = TypeVar("T")

JSON = (b"content-type", b"application/json")
EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")
VERSION = (b"openai-version", b"2020-10-01")
# What is read and thrown away of a body that was refused, so that the client gets to read the refusal.
LINGER_BYTES = 64 * 1024 * 1024
LINGER_S = 5.0
# Bodies up to this size are parsed in less than 2 ms, whatever they ask.
INLINE_BYTES = 64 * 1024
# A short answer is there before it pays to watch whether its client is.
WATCH_AFTER_S = 0.05


class Abortable(Protocol):
    """What a call waits for: a run, or several."""

    def abort(self, reason: Fault, /) -> None: ...


class Call:
    """A request and the way back. Endpoints fill in what they learn; the application logs it at the end."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: bytes = scope.get("query_string", b"")
        self.headers = _headers(scope["headers"])
        # The address of whoever opened the connection, "" when it is not one of the internet's.
        self.peer: str = (scope.get("client") or ("",))[0]
        # Begins with the time, so that what is kept by request id is kept together.
        self.request_id = f"req_{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"
        self.started_at = time.perf_counter()
        # Parts of the path that the route left open.
        self.parameters: dict[str, str] = {}
        self.operation = ""
        self.principal: Principal | None = None
        self.run: Run | None = None
        # The status that was sent, 0 before.
        self.status = 0
        # What ended the call, when that was not its answer.
        self.fault: Fault | None = None
        self._receive = receive
        self._send = send

    def header(self, name: bytes) -> str:
        """A request header, "" when absent. `name` in lower case."""
        return self.headers.get(name, b"").decode("latin-1").strip()

    def credentials(self) -> tuple[str, str, str]:
        """Key, organisation and project as the client gave them, each "" when absent."""
        scheme, _, key = self.header(b"authorization").partition(" ")
        key = key.strip() if scheme.lower() == "bearer" else ""
        return key, self.header(b"openai-organization"), self.header(b"openai-project")

    @property
    def caller(self) -> Principal:
        """Who calls; only for endpoints whose route names a scope."""
        assert self.principal is not None
        return self.principal

    @property
    def elapsed_s(self) -> float:
        return time.perf_counter() - self.started_at

    async def body(self, limit: int) -> bytes:
        """The whole body. Raises InvalidRequest when it is longer than `limit` bytes, without reading it all."""
        length = self.header(b"content-length")
        if length.isdigit() and int(length) > limit:
            raise _too_large(limit)
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise client_gone()
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > limit:
                raise _too_large(limit)
            if not message.get("more_body", False):
                return b"".join((*chunks, chunk)) if chunks else chunk
            chunks.append(chunk)

    def tap(self, between: Callable[[Send], Send]) -> None:
        """Puts something between this call and its client, to see or to change what is sent."""
        self._send = between(self._send)

    def aborting(self, run: Abortable) -> "Aborting":
        """Within a `with` block of it the run is aborted as soon as the client hangs up."""
        return Aborting(self._disconnected, run)

    async def respond(
        self, status: int, body: bytes, headers: Headers | None = None, content_type: tuple[bytes, bytes] = JSON
    ) -> None:
        """The whole answer."""
        length = (b"content-length", b"%d" % len(body))
        await self._start(status, [content_type, length, *(headers or ())])
        await self._send({"type": "http.response.body", "body": body})

    async def refuse(self, fault: Fault) -> None:
        """The answer to a call that failed before anything was sent."""
        self.fault = fault
        body, headers = error_body(fault), error_headers(fault)
        if fault.reason != "body_too_large":
            await self.respond(fault.rule.status, body, headers)
            return
        length = (b"content-length", b"%d" % len(body))
        await self._start(fault.rule.status, [JSON, length, *headers, (b"connection", b"close")])
        await self._send({"type": "http.response.body", "body": body, "more_body": True})
        await self._linger()
        await self._send({"type": "http.response.body", "body": b""})

    async def start_events(self) -> None:
        """Begins an answer of server-sent events."""
        await self._start(200, [EVENTS, (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")])

    async def write(self, events: bytes, *, last: bool = False) -> None:
        """Sends events; waits while the client's connection is full."""
        await self._send({"type": "http.response.body", "body": events, "more_body": not last})

    async def _start(self, status: int, headers: Headers) -> None:
        self.status = status
        headers += (
            (b"x-request-id", self.request_id.encode()),
            VERSION,
            (b"openai-processing-ms", b"%d" % (self.elapsed_s * 1000)),
        )
        if self.principal is not None:
            headers.append((b"openai-organization", self.principal.organization_id.encode()))
        if self.run is not None and self.run.reservation is not None:
            states = self.run.reservation
            headers += rate_lines(states.requests_state, states.tokens_state)
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _disconnected(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _linger(self) -> None:
        left = LINGER_BYTES
        try:
            async with asyncio.timeout(LINGER_S):
                while left > 0:
                    message = await self._receive()
                    left -= len(message.get("body", b""))
                    if not message.get("more_body", False):
                        return
        except TimeoutError:
            return


class Aborting:
    """`with call.aborting(run):` — see there. A class, because every call enters it and a generator costs twice as
    much."""

    __slots__ = ("_disconnected", "_run", "_timer", "_watcher")

    def __init__(self, disconnected: Callable[[], Coroutine[Any, Any, None]], run: Abortable) -> None:
        self._disconnected = disconnected
        self._run = run
        self._watcher: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(WATCH_AFTER_S, self._watch)

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()

    def _watch(self) -> None:
        self._watcher = asyncio.ensure_future(self._disconnected())
        self._watcher.add_done_callback(self._gone)

    def _gone(self, watcher: asyncio.Task[None]) -> None:
        if not watcher.cancelled():
            self._run.abort(client_gone())


def _headers(lines: Collection[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """By name. Several lines of one header are one, in their order."""
    headers = dict(lines)
    if len(headers) < len(lines):
        headers = {}
        for name, value in lines:
            headers[name] = headers[name] + b", " + value if name in headers else value
    return headers


def client_gone() -> Fault:
    return Cancelled("cancelled", "The client closed the connection.")


def _too_large(limit: int) -> Fault:
    return InvalidRequest("body_too_large", f"The request body is larger than the maximum of {limit} bytes.")


async def parsed(parse: Callable[[bytes], T], body: bytes) -> T:
    """What `parse` makes of a body. A long one, parsed on the event loop, would hold up everybody else."""
    return parse(body) if len(body) <= INLINE_BYTES else await asyncio.to_thread(parse, body)
