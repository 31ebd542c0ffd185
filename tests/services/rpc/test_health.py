"""What orchestrators and debuggers see: health from birth, readiness, reflection, the listening address."""

import asyncio
import socket
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from modelplane.tokenizer.v1.tokenizer_pb2 import RenderRequest
from services import context
from services.faults import DeadlineExceeded, Unavailable
from services.rpc.serve import RpcServer
from services.rpc.settings import RpcSettings
from tests.services.rpc.servers import probes

TOKENIZER = "modelplane.tokenizer.v1.TokenizerService"
INFERENCE = "modelplane.chat_inference.v1.ChatInferenceService"


async def health(address: str, service: str) -> str:
    async with grpc.aio.insecure_channel(address) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))
        name: str = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        return name


async def test_health_is_not_serving_from_birth() -> None:
    async with probes(RpcSettings(token="t")) as p:
        for service in ("", TOKENIZER, INFERENCE):
            assert await health(p.server.address, service) == "NOT_SERVING"
        await p.server.serving(True)
        for service in ("", TOKENIZER, INFERENCE):
            assert await health(p.server.address, service) == "SERVING"
        await p.server.serving(False)
        assert await health(p.server.address, "") == "NOT_SERVING"


async def test_a_remote_ping_is_the_servers_health() -> None:
    async with probes() as p:
        client: Any = p.remote_tokenizer
        with pytest.raises(Unavailable) as caught:
            await client.ping()
        assert (caught.value.reason, caught.value.retry_after_ms) == ("not_ready", 1000)
        await p.server.serving(True)
        await client.ping()
        await p.server.stop(0)
        with pytest.raises(Unavailable):
            await client.ping()


async def test_a_call_waits_until_the_service_is_placed() -> None:
    async with probes(placed=False) as p:
        with context.call("req_1", 0.3), pytest.raises(DeadlineExceeded):
            await p.remote_tokenizer.render(RenderRequest())
        calling = asyncio.create_task(p.remote_tokenizer.render(RenderRequest()))
        await asyncio.sleep(0.1)
        assert not calling.done()
        p.place()
        await asyncio.wait_for(calling, 30)


async def test_whoever_does_not_look_at_health_is_told_not_ready() -> None:
    async with probes(placed=False) as p, grpc.aio.insecure_channel(p.server.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(f"/{TOKENIZER}/Render")(b"")
        assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNAVAILABLE, "not_ready")


async def test_reflection_lists_the_services() -> None:
    async with probes() as p, grpc.aio.insecure_channel(p.server.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        question = reflection_pb2.ServerReflectionRequest(list_services="")
        answer = await stub.ServerReflectionInfo(iter([question])).read()
        names = {service.name for service in answer.list_services_response.service}
        assert {TOKENIZER, INFERENCE, "grpc.health.v1.Health"} <= names
        symbol = reflection_pb2.ServerReflectionRequest(file_containing_symbol=TOKENIZER)
        described = await stub.ServerReflectionInfo(iter([symbol])).read()
        assert described.file_descriptor_response.file_descriptor_proto


async def test_a_taken_address_is_an_os_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        server = RpcServer(RpcSettings(listen=address), {})
        with pytest.raises(OSError, match=f"cannot listen on {address}"):
            await server.start()
        await server.stop(0)


async def test_two_servers_never_share_a_port() -> None:
    async with probes() as first:
        server = RpcServer(RpcSettings(listen=first.server.address), {})
        with pytest.raises(OSError, match="MODELPLANE_RPC_LISTEN"):
            await server.start()
        await server.stop(0)


async def test_an_advertised_address() -> None:
    async with probes(RpcSettings(advertise="tokenizer.example:1")) as p:
        assert p.server.address == "tokenizer.example:1"
