"""The server side: objects of a contract's shape, offered over gRPC with health and reflection.

The server listens before the services are built, so that what they start can call back; until a service is put
in place its calls answer `not_ready` and its health is NOT_SERVING.
"""

import asyncio
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.faults import Unavailable
from services.rpc import interceptors, local
from services.rpc.certificates import Certificates
from services.rpc.connect import channel_options, kind_of, method_name
from services.rpc.health import CALLS, Health
from services.rpc.settings import RpcSettings

Lookup = Callable[[str], Any]
Servicer = Any  # grpc.aio.ServicerContext; grpc ships no types
# The time in which clients have heard that they should send no more calls.
LEAVE_S = 0.25


def server_options(settings: RpcSettings) -> list[tuple[str, int]]:
    """What else a server is set to. A connection that has come of age ends with its last stream: nothing cuts it."""
    options = channel_options(settings)
    if settings.connection_age_s:
        options.append(("grpc.max_connection_age_ms", int(settings.connection_age_s * 1000)))
    return options


class RpcServer:
    """The process's one gRPC server. `contracts` names the services that will be put in place, `protocols` what some
    of them answer besides."""

    def __init__(
        self,
        settings: RpcSettings,
        contracts: Mapping[str, ServiceDescriptor],
        protocols: Iterable[tuple[str, ServiceDescriptor]] = (),
        certificates: Certificates | None = None,
    ) -> None:
        self._settings = settings
        self._certificates = None
        if not settings.listen.startswith(local.SCHEME):
            self._certificates = certificates or Certificates.of(settings)
        self._offered = (*contracts.items(), *protocols)
        self._objects: dict[str, object] = {}
        self._health = Health()
        self._server = grpc.aio.server(options=server_options(settings))
        self._local: local.LocalServer | None = None
        self.address = ""

    async def start(self) -> None:
        """Listens; every service is NOT_SERVING. Raises OSError when the address is taken."""
        for _, descriptor in self._offered:
            handlers = {method.name: self._handler(descriptor, method) for method in descriptor.methods}
            generic = grpc.method_handlers_generic_handler(descriptor.full_name, handlers)
            self._server.add_generic_rpc_handlers((generic,))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = [descriptor.full_name for _, descriptor in self._offered]
        reflection.enable_server_reflection(
            (*names, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME),
            self._server,
        )
        await self.serving(False)
        for name in names:
            self._health.set(name + CALLS, False)
        try:
            if self._certificates is None:
                port = self._server.add_insecure_port(self._settings.listen)
            else:
                port = self._server.add_secure_port(self._settings.listen, self._certificates.server_credentials())
        except RuntimeError as error:
            raise OSError(f"cannot listen on {self._settings.listen}: choose another MODELPLANE_RPC_LISTEN") from error
        await self._server.start()
        listen = self._settings.listen
        reached = listen if listen.startswith("unix:") else f"{listen.rpartition(':')[0]}:{port}"
        self.address = self._settings.advertise or reached
        if path := local.stream_path(listen):
            streams = [
                method
                for _, descriptor in self._offered
                for method in descriptor.methods
                if method.client_streaming and method.server_streaming
            ]
            self._local = local.LocalServer(path, streams, self._bound, self._settings)
            await self._local.start()

    def place(self, name: str, service: object) -> None:
        """Puts a built service in place; its calls are answered from now on."""
        for offered, descriptor in self._offered:
            if offered == name:
                self._objects[descriptor.full_name] = service
                self._health.set(descriptor.full_name + CALLS, True)

    async def serving(self, serving: bool) -> None:
        """What the health service says of the process and of each of its services."""
        for name in ("", *(descriptor.full_name for _, descriptor in self._offered)):
            self._health.set(name, serving)

    async def stop(self, grace_s: float) -> None:
        """Sends clients away, refuses new calls, and ends those in flight after `grace_s` seconds; 0: all at once."""
        for name in self._health.names():
            self._health.set(name, False)
        if grace_s and self._health.watchers:
            # What had just arrived when a server stops would be cut off unseen.
            await asyncio.sleep(LEAVE_S)
        self._health.end()
        await asyncio.gather(self._server.stop(grace_s), *([self._local.stop(grace_s)] if self._local else []))

    def _object(self, full_name: str) -> Any:
        service = self._objects.get(full_name)
        if service is None:
            raise Unavailable("not_ready", f"{full_name} is starting; try again shortly.", retry_after_ms=1000)
        return service

    def _bound(self, method: MethodDescriptor) -> Any:
        return getattr(self._object(method.containing_service.full_name), method_name(method))

    def _handler(self, descriptor: ServiceDescriptor, method: MethodDescriptor) -> Any:
        name = method_name(method)
        full_name = descriptor.full_name
        # The contract's shape decides which of grpc's four kinds of handler this is.
        make = getattr(grpc, f"{kind_of(method)}_rpc_method_handler")
        span_name = f"{full_name}/{method.name}"
        # A stream of requests carries many calls, each with a trace of its own.
        traced = not method.client_streaming

        async def unary(request: Any, servicer: Servicer) -> Any:
            try:
                with interceptors.incoming(servicer, self._settings, span_name):
                    return await getattr(self._object(full_name), name)(request)
            except (Exception, asyncio.CancelledError) as error:
                await interceptors.abort(servicer, error)

        # Not a generator: grpc would leave it to the garbage collector when its client goes away, in another context.
        async def stream(request: Any, servicer: Servicer) -> None:
            try:
                with interceptors.incoming(servicer, self._settings, span_name if traced else ""):
                    responses = getattr(self._object(full_name), name)(request)
                    try:
                        async for response in responses:
                            await servicer.write(response)
                    finally:
                        if inspect.isasyncgen(responses):
                            await responses.aclose()
            except (Exception, asyncio.CancelledError) as error:
                await interceptors.abort(servicer, error)

        return make(
            stream if method.server_streaming else unary,
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=GetMessageClass(method.output_type).SerializeToString,
        )
