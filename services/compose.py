"""Starts services in order, gives each what it needs, and stops them in reverse.

A need is the object itself when it runs in this process, else a remote client of the same shape, so nobody can
tell one wiring from the other. Starting: health is NOT_SERVING, the services are built in the order of their
needs, then SERVING. Stopping: NOT_SERVING, a delay for load balancers to notice, `drain` of every service within
the grace period, then everything is closed in the reverse order of its opening.
"""

import asyncio
import gc
import signal
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from importlib import import_module
from typing import Any, TypeVar, cast

from google.protobuf.descriptor import ServiceDescriptor
from prometheus_client import Gauge

from services import telemetry
from services.catalog import Catalog
from services.following import following
from services.graph import SERVICES, start_order
from services.loop_lag import watched
from services.monitoring import monitored
from services.rpc.certificates import Certificates
from services.rpc.connect import connect, descriptor_of
from services.rpc.probes import ProbePort
from services.rpc.serve import RpcServer
from services.rpc.settings import RpcSettings
from services.settings import Environment, GroupT, PlatformSettings, SettingsError
from services.storage import Database, open_database

ContractT = TypeVar("ContractT")
Ping = Callable[[], Awaitable[None]]
Build = Callable[["Context"], AbstractAsyncContextManager[Any]]

log = telemetry.logger(__name__)

# How long calls in flight may take once everything is drained.
STOP_S = 1.0

TASKS = Gauge("modelplane_tasks", "Tasks of the process's event loop: a number that only grows is a leak.")


class Context:
    """What one service may ask for while it is built. It belongs to that service alone."""

    def __init__(self, platform: "Platform", service: str) -> None:
        self._platform = platform
        self.service = service

    def settings(self, kind: type[GroupT]) -> GroupT:
        return self._platform.environment.group(kind)

    def need(self, contract: type[ContractT]) -> ContractT:
        """The needed service of this contract. Raises LookupError for one that the table does not list."""
        for name in SERVICES[self.service].needs:
            if load_contract(name) is contract:
                return cast(ContractT, self._platform.objects[name])
        raise LookupError(f"{self.service} does not list a service of {contract.__name__} in its needs")

    def connect(self, contract: type[ContractT], address: str) -> AbstractAsyncContextManager[ContractT]:
        """A client for an address that is only known at run time, such as a replica's."""
        return self._platform.connect(contract, address)

    def server_tls(self) -> ssl.SSLContext:
        """For a port of a service's own that asks for certificates as the gRPC port does. Raises SettingsError without
        MODELPLANE_RPC_TLS_FOLDER."""
        if self._platform.certificates is None:
            raise SettingsError(f"TLS of {self.service} needs its certificates: set MODELPLANE_RPC_TLS_FOLDER")
        return self._platform.certificates.server_context()

    def database(self) -> Database:
        if self._platform.database is None or not SERVICES[self.service].database:
            raise LookupError(f"{self.service} does not list a database in its row")
        return self._platform.database

    @property
    def platform(self) -> PlatformSettings:
        return self._platform.settings

    @property
    def environment(self) -> Environment:
        """For handing this process's settings to a child."""
        return self._platform.environment

    @property
    def catalog(self) -> Catalog:
        return self._platform.catalog

    @property
    def rpc_address(self) -> str:
        """Where this process's gRPC server is reached, `host:port`. Whoever asks will be called back."""
        self._platform.called_back = True
        return self._platform.server.address

    def address_of(self, service: str) -> str:
        """Where another process reaches a service: here when it runs here, else where it is configured."""
        return self.rpc_address if service in self._platform.targets else self._platform.remote_address(service)

    def pings(self) -> Mapping[str, Ping]:
        """The checks whose success together means ready; complete once everything has started."""
        return self._platform.pings

    def report(self, step: str) -> None:
        """Tells people what a long build is doing now, for example `loading weights`."""
        self._platform.report(step)

    @property
    def serving(self) -> bool:
        """True between the end of the start and the beginning of the stop."""
        return self._platform.serving


class Platform:
    """The services of this process, from start to stop. Enter it, `wait`, leave it."""

    def __init__(
        self, targets: Iterable[str], environment: Environment, report: Callable[[str], None] | None = None
    ) -> None:
        self.report = report or (lambda step: None)
        self.targets = start_order(targets)
        self.environment = environment
        self.settings = environment.group(PlatformSettings)
        self.rpc_settings = environment.group(RpcSettings)
        self.catalog = Catalog.load(self.settings)
        self.objects: dict[str, object] = {}
        self.pings: dict[str, Ping] = {}
        self.database: Database | None = None
        self.serving = False
        contracts = {name: descriptor_of(load_contract(name)) for name in self.targets if SERVICES[name].contract}
        protocols = [(name, load_protocol(path)) for name in self.targets for path in SERVICES[name].protocols]
        self.certificates = Certificates.of(self.rpc_settings)
        self.server = RpcServer(self.rpc_settings, contracts, protocols, self.certificates)
        self.called_back = False
        self._stack = AsyncExitStack()
        self._hurried = asyncio.Event()

    def local(self, contract: type[ContractT]) -> ContractT:
        """The service of this contract that runs in this process. Raises LookupError when none does."""
        for name in self.targets:
            if SERVICES[name].contract and load_contract(name) is contract:
                return cast(ContractT, self.objects[name])
        raise LookupError(f"no service of {contract.__name__} runs in this process")

    def connect(self, contract: type[ContractT], address: str) -> AbstractAsyncContextManager[ContractT]:
        return connect(contract, address, self.rpc_settings, self.certificates)

    def remote_address(self, service: str) -> str:
        if address := self.environment.address_of(service):
            return address
        raise SettingsError(
            f"{service} does not run in this process: set MODELPLANE_{service.upper()}_ADDRESS to its host:port"
        )

    async def __aenter__(self) -> "Platform":
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._drain()
            if not self.called_back:
                # Calls in flight end while the services still are; new ones are taken to another process. Where
                # children call back until they have ended, the server has to be the last to go.
                await self.server.stop(STOP_S)
        finally:
            await self._stack.aclose()

    async def _start(self) -> None:
        await self._open_ports()
        if any(SERVICES[name].database for name in self.targets):
            self.report("starting the database")
            self.database = await self._stack.enter_async_context(open_database(self.settings))
        for name in self.targets:
            for need in SERVICES[name].needs:
                if need not in self.objects:
                    client = self.connect(load_contract(need), self.remote_address(need))
                    self._hold(need, await self._stack.enter_async_context(client))
            self.report(f"starting {name}")
            build = cast(Build, load(SERVICES[name].build))
            self._hold(name, await self._stack.enter_async_context(build(Context(self, name))))
            if SERVICES[name].contract or SERVICES[name].protocols:
                self.server.place(name, self.objects[name])
        for name, meant in self.environment.misspelt().items():
            log.warning("a variable is no setting", variable=name, meant=meant)
        await self._stack.enter_async_context(following(self.catalog, self.settings))
        await self._stack.enter_async_context(watched())
        # What was loaded until now stays; the collector need not look at it again for every few thousand requests.
        gc.collect()
        gc.freeze()
        loop = asyncio.get_running_loop()
        TASKS.set_function(lambda: len(asyncio.all_tasks(loop)))
        self.serving = True
        await self.server.serving(True)
        log.info("serving", services=",".join(self.targets), rpc_address=self.server.address)

    async def _open_ports(self) -> None:
        """Those for others to look in come first and go last."""
        if listen := self.environment.group(telemetry.Settings).listen:
            await self._stack.enter_async_context(monitored(listen))
        if listen := self.rpc_settings.health_listen:
            probes = ProbePort(listen, lambda: self.serving, lambda: self.pings)
            self._stack.push_async_callback(probes.stop)
            await probes.start()
        await self.server.start()
        self._stack.push_async_callback(lambda: self.server.stop(STOP_S))

    def _hold(self, name: str, service: object) -> None:
        self.objects[name] = service
        if ping := getattr(service, "ping", None):
            self.pings[name] = ping

    def hurry(self) -> None:
        """Cuts the grace period short: what is in flight is ended instead of finished."""
        self._hurried.set()

    async def _drain(self) -> None:
        """Lets what is in flight finish, the edge first: what it still needs must be there until it is done."""
        self.report("finishing what is in flight")
        self.serving = False
        await self.server.serving(False)
        finished = asyncio.ensure_future(self._drain_services())
        hurried = asyncio.ensure_future(self._hurried.wait())
        await asyncio.wait((finished, hurried), timeout=self.settings.grace_s, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if not finished.done():
            log.warning("the grace period ended with work in flight", grace_s=self.settings.grace_s)
            finished.cancel()
        await asyncio.gather(finished, hurried, return_exceptions=True)

    async def _drain_services(self) -> None:
        await asyncio.sleep(self.settings.drain_delay_s)
        for name in reversed(self.targets):
            if drain := getattr(self.objects.get(name), "drain", None):
                try:
                    await drain()
                except Exception as error:  # the others still have work to finish
                    log.error("a service did not drain", service=name, exc_info=error)


def load(path: str) -> Any:
    """The object that a row of the table names, as `module:name`."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def load_protocol(path: str) -> ServiceDescriptor:
    """The descriptor of a gRPC service of others, as `module:Service` with the module of its messages."""
    module, _, name = path.partition(":")
    return cast(ServiceDescriptor, import_module(module).DESCRIPTOR.services_by_name[name])


def load_contract(service: str) -> type[Any]:
    contract = SERVICES[service].contract
    if contract is None:
        raise LookupError(f"{service} has no contract; nothing can need it")
    return cast(type[Any], load(contract))


async def run(
    targets: Iterable[str],
    environment: Environment,
    started: Callable[[Platform], Awaitable[None]] | None = None,
    report: Callable[[str], None] | None = None,
) -> None:
    """Serves until SIGINT or SIGTERM, then stops in order. A second SIGINT cuts the grace period short.

    `started` runs once everything is up, `report` is told each step of the start and of the stop. A signal while
    starting ends the start. Raises what the start raises.
    """
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    platform = Platform(targets, environment, report)

    def interrupt() -> None:
        if stopping.is_set():
            platform.hurry()
        stopping.set()

    loop.add_signal_handler(signal.SIGINT, interrupt)
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    stop = asyncio.ensure_future(stopping.wait())
    try:
        serving = asyncio.ensure_future(_serve(platform, stopping, started))
        await asyncio.wait((serving, stop), return_when=asyncio.FIRST_COMPLETED)
        if not platform.serving:
            serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        if not serving.cancelled():
            serving.result()
    finally:
        stop.cancel()
        loop.remove_signal_handler(signal.SIGINT)
        loop.remove_signal_handler(signal.SIGTERM)


async def _serve(
    platform: Platform, stopping: asyncio.Event, started: Callable[[Platform], Awaitable[None]] | None
) -> None:
    async with platform:
        announced = asyncio.ensure_future(started(platform)) if started else None
        stop = asyncio.ensure_future(stopping.wait())
        try:
            await asyncio.wait((announced, stop) if announced else (stop,), return_when=asyncio.FIRST_COMPLETED)
            if announced and announced.done():
                announced.result()
            await stop
        finally:
            stop.cancel()
            if announced:
                announced.cancel()
                await asyncio.gather(announced, return_exceptions=True)
