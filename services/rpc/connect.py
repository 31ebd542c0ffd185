"""The client side: a remote service as an object of its contract's shape.

Callers cannot tell it from the service itself: methods take and return the contract's messages and raise faults.
"""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar, cast

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.faults import Unavailable
from services.rpc import interceptors, local
from services.rpc.certificates import PEER_NAME, Certificates
from services.rpc.health import CALLS
from services.rpc.settings import RpcSettings

ContractT = TypeVar("ContractT")
# A call whose connection is lost may have been carried out. It is made again only where the contract says that this
# does no harm, by `idempotency_level`; calls that were never sent, gRPC makes again by itself.
ATTEMPTS = 3
PAUSE_S = 0.05
# A fault's message and parameter at their longest, four bytes a character and in base64, fit twice.
METADATA_BYTES = 128 * 1024


def method_name(method: MethodDescriptor) -> str:
    """The Python name of a contract's method: `ListPools` is `list_pools`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", method.name).lower()


def descriptor_of(contract: type[Any]) -> ServiceDescriptor:
    """The descriptor of a generated Protocol; it stands beside it."""
    return cast(ServiceDescriptor, sys.modules[contract.__module__].DESCRIPTORS[contract.__name__])


def channel_options(settings: RpcSettings) -> list[tuple[str, int]]:
    """What both ends of a connection are set to."""
    return [
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.keepalive_time_ms", settings.keepalive_ms),
        ("grpc.keepalive_timeout_ms", settings.keepalive_ms // 2),
        # Without it a frozen peer is noticed after a minute, whatever the line above says.
        ("grpc.http2.ping_timeout_ms", settings.keepalive_ms // 2),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", settings.keepalive_ms // 2),
        ("grpc.http2.max_pings_without_data", 0),
        # Faults travel in metadata, and their messages may quote what a client sent.
        ("grpc.max_metadata_size", METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", METADATA_BYTES),
        # Two processes must never share one listening port by accident.
        ("grpc.so_reuseport", 0),
        # A lost peer is looked for again at once: replicas and services come back within seconds.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2000),
    ]


def client_options(settings: RpcSettings, service: str) -> list[tuple[str, int | str]]:
    """What else a client of a service is set to: it balances over everything that its address stands for."""
    balance = {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": service + CALLS}}
    return [
        *channel_options(settings),
        ("grpc.service_config", json.dumps(balance)),
        ("grpc.service_config_disable_resolution", 1),
        # A name is looked up again when a connection ends; by default at most twice a minute.
        ("grpc.dns_min_time_between_resolutions_ms", 1000),
        ("grpc.enable_http_proxy", 0),
    ]


class Line:
    """A channel, and how many calls are in flight on it."""

    def __init__(self, channel: grpc.aio.Channel, credentials: Any) -> None:
        self.channel = channel
        self.credentials = credentials
        self.calls = 0
        self._multicallables: dict[str, Any] = {}

    def multicallable(self, method: MethodDescriptor) -> Any:
        """What starts a call of the method on this channel."""
        found = self._multicallables.get(method.full_name)
        if found is None:
            found = self._multicallables[method.full_name] = getattr(self.channel, kind_of(method))(
                f"/{method.containing_service.full_name}/{method.name}",
                request_serializer=GetMessageClass(method.input_type).SerializeToString,
                response_deserializer=GetMessageClass(method.output_type).FromString,
            )
        return found


class Lines:
    """The way to an address. When certificates are renewed, new calls take a new channel, and what is in flight ends
    on the old one."""

    def __init__(self, address: str, service: str, settings: RpcSettings, certificates: Certificates | None) -> None:
        self._address = address
        self._options = client_options(settings, service)
        self._certificates = None if address.startswith(local.SCHEME) else certificates
        self._line = self._dial()
        self._retired: set[Line] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    @contextmanager
    def taken(self) -> Iterator[Line]:
        """The line for one call, which stays open until the end of the block."""
        line = self._current()
        line.calls += 1
        try:
            yield line
        finally:
            line.calls -= 1
            if line is not self._line and not line.calls:
                self._hang_up(line)

    async def close(self) -> None:
        """Ends every call."""
        self._closed = True
        for line in (self._line, *self._retired):
            await line.channel.close()
        await asyncio.gather(*self._closing)

    def _current(self) -> Line:
        line = self._line
        if self._certificates is None or self._closed or self._certificates.channel_credentials() is line.credentials:
            return line
        self._line = self._dial()
        self._retired.add(line)
        if not line.calls:
            self._hang_up(line)
        return self._line

    def _dial(self) -> Line:
        if self._certificates is None:
            return Line(grpc.aio.insecure_channel(self._address, options=self._options), None)
        credentials = self._certificates.channel_credentials()
        options = [*self._options, ("grpc.ssl_target_name_override", PEER_NAME)]
        return Line(grpc.aio.secure_channel(self._address, credentials, options=options), credentials)

    def _hang_up(self, line: Line) -> None:
        if line in self._retired and not self._closed:
            self._retired.discard(line)
            closing = asyncio.ensure_future(line.channel.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)


def kind_of(method: MethodDescriptor) -> str:
    """Which of grpc's four kinds of call a method is, such as `unary_stream`."""
    return ("stream" if method.client_streaming else "unary") + ("_stream" if method.server_streaming else "_unary")


class RemoteClient:
    """Has a method per method of the descriptor; see `connect`."""

    def __init__(self, lines: Lines, address: str, descriptor: ServiceDescriptor, settings: RpcSettings) -> None:
        self._lines = lines
        self._stream_path = local.stream_path(address)
        self._service = descriptor.full_name.split(".")[1]
        self._settings = settings
        for method in descriptor.methods:
            setattr(self, method_name(method), self._caller(method))

    async def ping(self) -> None:
        """Raises Unavailable unless the other process says that it is SERVING."""
        with self._lines.taken() as line:
            stub = health_pb2_grpc.HealthStub(line.channel)
            try:
                answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=self._settings.timeout_s)
            except grpc.aio.AioRpcError as error:
                raise interceptors.fault_of(error, self._service) from None
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            raise Unavailable("not_ready", f"The {self._service} service is not ready yet.", retry_after_ms=1000)

    def _caller(self, method: MethodDescriptor) -> Any:
        lines, settings, service = self._lines, self._settings, self._service
        if self._stream_path and method.client_streaming and method.server_streaming:
            path = self._stream_path
            return lambda requests: local.call(path, method, requests, settings)

        attempts = ATTEMPTS if method.GetOptions().idempotency_level else 1

        async def unary(request: Any) -> Any:
            for left in reversed(range(attempts)):
                try:
                    with lines.taken() as line:
                        return await line.multicallable(method)(
                            request,
                            timeout=interceptors.timeout(settings),
                            metadata=interceptors.outgoing(settings),
                            wait_for_ready=True,
                        )
                except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.CancelledError) as error:
                    if not (left and interceptors.broken_off(error)):
                        raise interceptors.fault_of(error, service) from None
                    await asyncio.sleep(PAUSE_S)
            raise AssertionError("the last attempt returns or raises")

        async def stream(request: Any) -> AsyncIterator[Any]:
            with lines.taken() as line:
                call = None
                try:
                    # A stream outlives the request that opened it, so it takes no deadline from it.
                    call = line.multicallable(method)(request, metadata=interceptors.outgoing(settings))
                    while (response := await call.read()) is not grpc.aio.EOF:
                        yield response
                except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.CancelledError) as error:
                    raise interceptors.fault_of(error, service) from None
                finally:
                    if call is not None:
                        call.cancel()

        return stream if method.server_streaming else unary


@asynccontextmanager
async def connect(
    contract: type[ContractT], address: str, settings: RpcSettings, certificates: Certificates | None = None
) -> AsyncIterator[ContractT]:
    """A client of the service at `address`; the connection is made at the first call.

    `host:port`, `dns:///name:port` or `unix:/path`. Behind a name may be many: calls take turns, and streams stay
    where they began. `certificates` are those of the process; without them the settings' folder is read.
    """
    descriptor = descriptor_of(contract)
    lines = Lines(address, descriptor.full_name, settings, certificates or Certificates.of(settings))
    try:
        yield cast(ContractT, RemoteClient(lines, address, descriptor, settings))
    finally:
        await lines.close()
