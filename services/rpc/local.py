"""Bidirectional streams over a socket file, for contracts whose server and client are on one machine.

The same messages, faults, token and request id as over gRPC; see `wire` for why. A server that listens on a
socket file offers its bidirectional methods on a second file beside it, and clients of such an address use that.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import msgspec
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from modelplane.fault.v1 import fault_pb2
from services import telemetry
from services.faults import Fault, Unavailable
from services.rpc import interceptors
from services.rpc.settings import RpcSettings
from services.rpc.wire import END, FAULT, HELLO, MESSAGE, Wire

log = telemetry.logger(__name__)

SCHEME = "unix:"
# How long a client may take to read the end of a call.
_FINISH_S = 5.0
Metadata = tuple[tuple[str, str], ...]


class Hello(msgspec.Struct, frozen=True):
    """What a client says first: the method, and what travels beside its messages."""

    method: str
    metadata: Metadata


def stream_path(address: str) -> str | None:
    """The file for streams beside the socket file of an address; None for an address of another kind."""
    return f"{address.removeprefix(SCHEME)}.streams" if address.startswith(SCHEME) else None


def full_name(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


async def call(
    path: str, method: MethodDescriptor, requests: AsyncIterator[Any], settings: RpcSettings
) -> AsyncIterator[Any]:
    """Calls a bidirectional method; ends with it. Raises its fault, and Unavailable when the connection is lost."""
    service = method.containing_service.full_name.split(".")[1]
    loop = asyncio.get_running_loop()
    try:
        _, wire = await loop.create_unix_connection(lambda: Wire(settings.max_message_bytes), path)
    except OSError:
        raise interceptors.unreachable(service) from None
    sending = None
    try:
        wire.ping(settings.keepalive_ms / 1000)
        hello = Hello(full_name(method), interceptors.outgoing(settings))
        await wire.send(HELLO, msgspec.json.encode(hello))
        sending = asyncio.create_task(_send(wire, requests))
        decode = GetMessageClass(method.output_type).FromString
        while (frame := await wire.take()) is not None:
            if frame.kind == MESSAGE:
                yield decode(frame.payload)
            elif frame.kind == END:
                return
            elif frame.kind == FAULT:
                raise Fault.from_proto(fault_pb2.Fault.FromString(frame.payload))
        raise interceptors.closed(service)
    finally:
        wire.close()
        if sending is not None:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


async def _send(wire: Wire, requests: AsyncIterator[Any]) -> None:
    """Sends what the caller asks. If the caller's iterator fails, so does the call."""
    try:
        async for request in requests:
            if not await wire.send(MESSAGE, request.SerializeToString()):
                return
        await wire.send(END)
    except Exception as error:
        log.error("the requests of a stream failed", exc_info=error)
        wire.close()
    finally:
        close = getattr(requests, "aclose", None)
        if close is not None:
            await close()


class LocalServer:
    """Serves bidirectional methods on a socket file. `methods` is by full name; `find` gives a method's function."""

    def __init__(
        self,
        path: str,
        methods: Sequence[MethodDescriptor],
        find: Callable[[MethodDescriptor], Callable[[AsyncIterator[Any]], AsyncIterator[Any]]],
        settings: RpcSettings,
    ) -> None:
        self._path = path
        self._methods: Mapping[str, MethodDescriptor] = {full_name(method): method for method in methods}
        self._find = find
        self._settings = settings
        self._server: asyncio.Server | None = None
        self._calls: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listens. Raises OSError."""
        self._server = await asyncio.get_running_loop().create_unix_server(self._accept, self._path)

    async def stop(self, grace_s: float) -> None:
        """Takes no new calls, and ends those in flight after `grace_s` seconds."""
        if self._server is None:
            return
        self._server.close()
        self._remove()
        if self._calls and grace_s:
            await asyncio.wait(self._calls, timeout=grace_s)
        for running in self._calls:
            running.cancel()
        if self._calls:
            await asyncio.wait(self._calls)

    def _remove(self) -> None:
        with suppress(FileNotFoundError):
            Path(self._path).unlink()

    def _accept(self) -> Wire:
        wire = Wire(self._settings.max_message_bytes)
        running = asyncio.create_task(self._serve(wire))
        self._calls.add(running)
        running.add_done_callback(self._calls.discard)
        wire.lost.add_done_callback(lambda _: running.cancel())
        return wire

    async def _serve(self, wire: Wire) -> None:
        """One call, from its hello to its end."""
        fault: Fault | None = None
        try:
            await self._answer(wire)
        except (Exception, asyncio.CancelledError) as error:
            if wire.lost.done():
                return
            fault = interceptors.fault_behind(error, stopped=True)
        if fault is None:
            await wire.send(END)
        else:
            await wire.send(FAULT, fault.to_proto().SerializeToString())
        await wire.finish(_FINISH_S)

    async def _answer(self, wire: Wire) -> None:
        frame = await wire.take()
        if frame is None or frame.kind != HELLO:
            wire.close()
            return
        hello = msgspec.json.decode(frame.payload, type=Hello)
        with interceptors.accepted(dict(hello.metadata), None, self._settings, ""):
            method = self._methods.get(hello.method)
            if method is None:
                raise Unavailable("not_ready", f"{hello.method} is not served here.")
            responses = self._find(method)(_requests(wire, method))
            async with aclosing(responses):  # type: ignore[type-var]
                async for response in responses:
                    await wire.send(MESSAGE, response.SerializeToString())


async def _requests(wire: Wire, method: MethodDescriptor) -> AsyncIterator[Any]:
    decode = GetMessageClass(method.input_type).FromString
    while (frame := await wire.take()) is not None and frame.kind == MESSAGE:
        yield decode(frame.payload)
