"""The client side: a remote service as an object of its contract's shape.

Callers cannot tell it from the service itself: methods take and return the contract's messages and raise faults.
"""

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.faults import Unavailable
from services.rpc import interceptors, local
from services.rpc.settings import RpcSettings

ContractT = TypeVar("ContractT")
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


class RemoteClient:
    """Has a method per method of the descriptor; see `connect`."""

    def __init__(
        self, channel: grpc.aio.Channel, address: str, descriptor: ServiceDescriptor, settings: RpcSettings
    ) -> None:
        self._channel = channel
        self._stream_path = local.stream_path(address)
        self._service = descriptor.full_name.split(".")[1]
        self._settings = settings
        for method in descriptor.methods:
            setattr(self, method_name(method), self._caller(descriptor, method))

    async def ping(self) -> None:
        """Raises Unavailable unless the other process says that it is SERVING."""
        stub = health_pb2_grpc.HealthStub(self._channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=self._settings.timeout_s)
        except grpc.aio.AioRpcError as error:
            raise interceptors.fault_of(error, self._service) from None
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            raise Unavailable("not_ready", f"The {self._service} service is not ready yet.", retry_after_ms=1000)

    def _caller(self, descriptor: ServiceDescriptor, method: MethodDescriptor) -> Any:
        kind = ("stream" if method.client_streaming else "unary") + ("_stream" if method.server_streaming else "_unary")
        multicallable = getattr(self._channel, kind)(
            f"/{descriptor.full_name}/{method.name}",
            request_serializer=GetMessageClass(method.input_type).SerializeToString,
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        settings, service = self._settings, self._service
        if self._stream_path and method.client_streaming and method.server_streaming:
            path = self._stream_path
            return lambda requests: local.call(path, method, requests, settings)

        async def unary(request: Any) -> Any:
            try:
                return await multicallable(
                    request,
                    timeout=interceptors.timeout(settings),
                    metadata=interceptors.outgoing(settings),
                    wait_for_ready=True,
                )
            except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.CancelledError) as error:
                raise interceptors.fault_of(error, service) from None

        async def stream(request: Any) -> AsyncIterator[Any]:
            call = None
            try:
                # A stream outlives the request that opened it, so it takes no deadline from it.
                call = multicallable(request, metadata=interceptors.outgoing(settings))
                while (response := await call.read()) is not grpc.aio.EOF:
                    yield response
            except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.CancelledError) as error:
                raise interceptors.fault_of(error, service) from None
            finally:
                if call is not None:
                    call.cancel()

        return stream if method.server_streaming else unary


@asynccontextmanager
async def connect(contract: type[ContractT], address: str, settings: RpcSettings) -> AsyncIterator[ContractT]:
    """A client of the service at `address` (`host:port`); the connection is made at the first call."""
    channel = grpc.aio.insecure_channel(address, options=channel_options(settings))
    try:
        yield cast(ContractT, RemoteClient(channel, address, descriptor_of(contract), settings))
    finally:
        await channel.close()
