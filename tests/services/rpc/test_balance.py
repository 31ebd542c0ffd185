"""Several processes behind one name: calls take turns, newcomers get their share, and a departure costs nothing."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import msgspec
import pytest

from modelplane.chat_inference.v1.chat_inference_api import ChatInferenceService
from modelplane.chat_inference.v1.chat_inference_pb2 import GenerateRequest, SessionRequest
from modelplane.router.v1 import router_pb2
from modelplane.router.v1.router_api import RouterService
from modelplane.tokenizer.v1.tokenizer_api import TokenizerService
from modelplane.tokenizer.v1.tokenizer_pb2 import RenderRequest
from services import context
from services.faults import Fault, Unavailable
from services.rpc.connect import connect, descriptor_of
from services.rpc.serve import RpcServer
from services.rpc.settings import RpcSettings
from tests.fakes.names import NameServer, name_server
from tests.services.rpc.servers import Probes

AGING = RpcSettings(connection_age_s=0.5)


class Fleet:
    """Servers on one port of several addresses, and the name that stands for those that should be called."""

    def __init__(self, names: NameServer, settings: RpcSettings) -> None:
        self._names = names
        self._settings = settings
        with socket.socket() as found:
            found.bind(("127.0.0.2", 0))
            self.port = found.getsockname()[1]
        self.running: dict[str, Probes] = {}
        self.calls: dict[str, int] = {}

    @property
    def target(self) -> str:
        return f"dns://{self._names.authority}/tokenizer.internal:{self.port}"

    async def start(self, host: str, *, named: bool = True, placed: bool = True) -> Probes:
        probes = Probes(msgspec.structs.replace(self._settings, listen=f"{host}:{self.port}"))
        await probes.server.start()
        if placed:
            self.place(host, probes)
        self.running[host] = probes
        if named:
            self._names.addresses = tuple(self.running)
        return probes

    def place(self, host: str, probes: Probes) -> None:
        render = probes.tokenizer.render

        async def counted(request: RenderRequest, /) -> object:
            self.calls[host] = self.calls.get(host, 0) + 1
            return await render(request)

        probes.tokenizer.render = counted  # type: ignore[method-assign, assignment]
        probes.place()

    async def stop(self, host: str, grace_s: float = 1.0) -> None:
        probes = self.running.pop(host)
        self._names.addresses = tuple(self.running)
        await probes.server.stop(grace_s)


@asynccontextmanager
async def fleet(*hosts: str, settings: RpcSettings = AGING) -> AsyncIterator[Fleet]:
    async with name_server() as names:
        running = Fleet(names, settings)
        try:
            for host in hosts:
                await running.start(host)
            yield running
        finally:
            for host in list(running.running):
                await running.stop(host, 0)


@asynccontextmanager
async def load(target: str, settings: RpcSettings = AGING, clients: int = 8) -> AsyncIterator[list[Fault]]:
    """Calls one after the other from every client; what failed."""
    failed: list[Fault] = []

    async def call(tokenizer: TokenizerService) -> None:
        while True:
            try:
                await tokenizer.render(RenderRequest())
            except Fault as fault:
                failed.append(fault)
            await asyncio.sleep(0.001)

    async with connect(TokenizerService, target, settings) as tokenizer:
        calling = [asyncio.create_task(call(tokenizer)) for _ in range(clients)]
        try:
            yield failed
        finally:
            for one in calling:
                one.cancel()
            await asyncio.gather(*calling, return_exceptions=True)


async def served(running: Fleet, host: str, least: int = 20) -> None:
    """Waits until a server has had so many more calls."""
    before = running.calls.get(host, 0)
    async with asyncio.timeout(30):
        while running.calls.get(host, 0) < before + least:
            await asyncio.sleep(0.02)


async def test_calls_take_turns() -> None:
    hosts = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
    async with fleet(*hosts, settings=RpcSettings()) as running:
        async with load(running.target, RpcSettings()) as failed:
            for host in hosts:
                await served(running, host)
            running.calls.clear()
            await asyncio.sleep(0.5)
        assert failed == []
        assert min(running.calls.values()) > 0.8 * max(running.calls.values())


async def test_a_newcomer_gets_its_share() -> None:
    async with fleet("127.0.0.2") as running, load(running.target) as failed:
        await served(running, "127.0.0.2")
        await running.start("127.0.0.3")
        await served(running, "127.0.0.3")
    assert failed == []


async def test_without_an_age_connections_last() -> None:
    lasting = RpcSettings()
    async with fleet("127.0.0.2", settings=lasting) as running, load(running.target, lasting) as failed:
        await served(running, "127.0.0.2")
        await running.start("127.0.0.3")
        await asyncio.sleep(1.5)
        assert "127.0.0.3" not in running.calls
    assert failed == []


async def test_a_departure_costs_no_call() -> None:
    async with fleet("127.0.0.2", "127.0.0.3") as running, load(running.target) as failed:
        for _ in range(3):
            for host in ("127.0.0.2", "127.0.0.3"):
                await served(running, host)
                await running.stop(host)
                await served(running, next(iter(running.running)))
                await running.start(host)
    assert failed == []


async def test_a_restart_of_the_only_server_costs_no_call() -> None:
    async with fleet("127.0.0.2") as running, load(running.target) as failed:
        for _ in range(3):
            await served(running, "127.0.0.2")
            await running.stop("127.0.0.2")
            await asyncio.sleep(0.2)
            await running.start("127.0.0.2")
        await served(running, "127.0.0.2")
    assert failed == []


async def test_a_server_that_is_still_starting_costs_no_call() -> None:
    async with fleet("127.0.0.2") as running, load(running.target) as failed:
        starting = await running.start("127.0.0.3", placed=False)
        await asyncio.sleep(1.5)
        running.place("127.0.0.3", starting)
        await served(running, "127.0.0.3")
    assert failed == []


async def test_what_a_dying_server_had_begun_is_not_made_again() -> None:
    """It may have been carried out: only its caller knows whether once more does harm."""
    async with fleet("127.0.0.2", "127.0.0.3") as running:
        for probes in running.running.values():
            probes.tokenizer.released.clear()
        async with connect(TokenizerService, running.target, AGING) as tokenizer:
            with context.call("req_1", 5.0):
                calling = asyncio.create_task(tokenizer.render(RenderRequest()))
            async with asyncio.timeout(30):
                while not running.calls:
                    await asyncio.sleep(0.01)
            (host,) = running.calls
            await running.stop(host, 0)
            with pytest.raises(Unavailable):
                await calling
        assert running.calls == {host: 1}


async def test_what_may_be_made_again_is() -> None:
    """Placing a request again does no harm, as its contract says."""

    class Router:
        def __init__(self) -> None:
            self.begun = asyncio.Event()
            self.released = asyncio.Event()

        async def place(self, request: router_pb2.PlaceRequest, /) -> router_pb2.PlaceResponse:
            self.begun.set()
            await self.released.wait()
            return router_pb2.PlaceResponse(placement={"request_id": request.request_id})

    async def started(listen: str) -> tuple[RpcServer, Router]:
        server, router = RpcServer(RpcSettings(listen=listen), {"router": descriptor_of(RouterService)}), Router()
        await server.start()
        server.place("router", router)
        return server, router

    first, stuck = await started("127.0.0.1:0")
    async with connect(RouterService, first.address, RpcSettings()) as client:
        placing = asyncio.create_task(client.place(router_pb2.PlaceRequest(request_id="req_1")))
        await stuck.begun.wait()
        await first.stop(0)
        second, router = await started(first.address)
        router.released.set()
        assert (await asyncio.wait_for(placing, 30)).placement.request_id == "req_1"
        await second.stop(0)


async def test_a_session_outlives_its_connections_age() -> None:
    async with fleet("127.0.0.2", "127.0.0.3") as running:

        async def requests() -> AsyncIterator[SessionRequest]:
            for number in range(30):
                yield SessionRequest(starts=[GenerateRequest(request_id=f"req_{number}")])
                await asyncio.sleep(0.1)

        async with connect(ChatInferenceService, running.target, AGING) as inference, load(running.target) as failed:
            answered = []
            async with aclosing(inference.session(requests())) as frames:  # type: ignore[type-var]
                async for frame in frames:
                    answered += [delta.request_id for delta in frame.deltas]
        assert failed == []
    assert answered == [f"req_{number}" for number in range(30)]
