"""The port for probes: without a certificate, quick whatever happens, and no burden on what a process depends on."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.faults import Unavailable
from services.rpc import probes as module
from services.rpc.probes import ProbePort


class Process:
    """What is probed: one dependency, which can be sick, slow or broken."""

    def __init__(self) -> None:
        self.serving = True
        self.error: Exception | None = None
        self.pause_s = 0.0
        self.pings = 0

    async def ping(self) -> None:
        self.pings += 1
        await asyncio.sleep(self.pause_s)
        if self.error is not None:
            raise self.error


class Prober:
    def __init__(self, address: str, process: Process, channel: grpc.aio.Channel) -> None:
        self.address = address
        self.process = process
        self._stub = health_pb2_grpc.HealthStub(channel)

    async def ask(self, service: str) -> str:
        answer = await self._stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
        name: str = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        return name


@asynccontextmanager
async def prober() -> AsyncIterator[Prober]:
    process = Process()
    port = ProbePort("127.0.0.1:0", lambda: process.serving, lambda: {"database": process.ping})
    await port.start()
    try:
        async with grpc.aio.insecure_channel(port.address) as channel:
            yield Prober(port.address, process, channel)
    finally:
        await port.stop()


async def test_alive_serving_and_ready_are_three_things(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ASK_EVERY_S", 0.0)
    async with prober() as probed:

        async def said() -> tuple[str, ...]:
            return tuple([await probed.ask(service) for service in ("", "liveness", "serving", "readiness")])

        assert await said() == ("SERVING",) * 4
        probed.process.error = Unavailable("database_unavailable", "It is away.")
        assert await said() == ("SERVING", "SERVING", "SERVING", "NOT_SERVING")
        probed.process.error = ZeroDivisionError()
        assert (await said())[3] == "NOT_SERVING"
        probed.process.error = None
        assert await said() == ("SERVING",) * 4
        probed.process.serving = False
        assert await said() == ("SERVING", "SERVING", "NOT_SERVING", "NOT_SERVING")


async def test_dependencies_are_asked_at_most_once_a_second() -> None:
    async with prober() as probed:
        assert {await probed.ask("readiness") for _ in range(20)} == {"SERVING"}
        await asyncio.gather(*(probed.ask("readiness") for _ in range(20)))
        assert probed.process.pings == 1


async def test_a_slow_dependency_delays_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ASK_EVERY_S", 0.0)
    monkeypatch.setattr(module, "ANSWER_S", 0.1)
    monkeypatch.setattr(module, "PING_S", 4.0)
    async with prober() as probed:
        assert await probed.ask("readiness") == "SERVING"
        probed.process.pause_s = 60
        started_s = time.monotonic()
        assert await probed.ask("readiness") == "SERVING"
        assert time.monotonic() - started_s < 3
        assert await probed.ask("liveness") == "SERVING"
        async with asyncio.timeout(30):
            while await probed.ask("readiness") != "NOT_SERVING":
                await asyncio.sleep(0.05)


async def test_only_health_is_offered() -> None:
    async with prober() as probed:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await probed.ask("modelplane.auth.v1.AuthService")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        async with grpc.aio.insecure_channel(probed.address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary("/modelplane.auth.v1.AuthService/Authenticate")(b"")
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_taken_port_says_what_to_set() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = ProbePort(f"127.0.0.1:{taken.getsockname()[1]}", lambda: True, dict)
        with pytest.raises(OSError, match="MODELPLANE_RPC_HEALTH_LISTEN"):
            await port.start()
        await port.stop()
