"""The gateway with the real chat_inference service and its scripted engine, over real gRPC."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from modelplane.chat_inference.v1.chat_inference_api import ChatInferenceService
from modelplane.router.v1.router_pb2 import RegisterRequest, Replica
from services import telemetry
from services.catalog import ModelSpec, ScriptSpec
from services.chat_inference.engines.scripted import ScriptedEngine
from services.chat_inference.service import ChatInference
from services.chat_inference.settings import Settings
from services.rpc.connect import connect, descriptor_of
from services.rpc.serve import RpcServer
from services.rpc.settings import RpcSettings
from services.settings import Environment
from tests.services.gateway.conftest import MODEL, Edge, running_edge, until

BODY: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "one two three"}]}
URL = "/v1/chat/completions"


class RemoteEdge(Edge):
    """Reaches replicas by their addresses."""

    @asynccontextmanager
    async def connect(self, contract: type[Any], address: str) -> AsyncIterator[Any]:
        async with connect(contract, address, RpcSettings()) as client:
            yield client


@asynccontextmanager
async def scripted_replica(edge: Edge, script: ScriptSpec, name: str) -> AsyncIterator[RpcServer]:
    spec = ModelSpec(name=MODEL, engine="scripted", script=script)
    engine = ScriptedEngine(script)
    await engine.start(lambda step: None)
    service = ChatInference(engine, spec, edge.billing, Settings())
    server = RpcServer(RpcSettings(), {"chat_inference": descriptor_of(ChatInferenceService)})
    await server.start()
    server.place("chat_inference", service)
    try:
        replica = Replica(id=name, model=MODEL, address=server.address, slots=64)
        await edge.router.register(RegisterRequest(replica=replica))
        yield server
    finally:
        await server.stop(0)
        await service.close()
        await engine.close()


@pytest.fixture
async def remote() -> AsyncIterator[Edge]:
    async with running_edge(kind=RemoteEdge) as edge:
        yield edge


async def test_plain_and_stream(remote: Edge) -> None:
    async with scripted_replica(remote, ScriptSpec(tokens=50), "a"), remote.sdk() as sdk:
        answer = await sdk.chat.completions.create(**BODY)
        assert answer.choices[0].message.content == "".join(f" tok{index}" for index in range(1, 51))
        assert answer.usage and answer.usage.completion_tokens == 50
        stream = await sdk.chat.completions.create(**BODY, n=2, stream=True, max_tokens=7)
        texts = ["", ""]
        async for chunk in stream:
            texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
        assert texts == ["".join(f" tok{index}" for index in range(1, 8))] * 2
        await until(lambda: sorted(remote.ratelimit.settled.values()) == [17, 53])


async def test_hang_up(remote: Edge) -> None:
    async with scripted_replica(remote, ScriptSpec(tokens=500, token_ms=10), "a"):
        async with remote.http() as http, http.stream("POST", URL, json={**BODY, "stream": True}) as response:
            lines = response.aiter_lines()
            for _ in range(8):
                await anext(lines)
        await until(lambda: len(remote.billing.usages) == 1)
        (usage,) = remote.billing.usages.values()
        assert 3 <= usage.output_tokens < 100
        assert await remote.running() == 0


async def test_replica_lost_before_the_first_token(remote: Edge) -> None:
    async with scripted_replica(remote, ScriptSpec(tokens=20, first_token_ms=5000), "a") as lost, remote.http() as http:
        asking = asyncio.create_task(http.post(URL, json={**BODY, "stream": True}))
        await until(lambda: len(remote.ratelimit.reserved) == 1)
        await asyncio.sleep(0.1)
        await lost.stop(0)
        async with scripted_replica(remote, ScriptSpec(tokens=20), "b"):
            response = await asking
    assert response.status_code == 200 and response.text.count(" tok") == 20
    assert [usage.output_tokens for usage in remote.billing.usages.values()] == [20]


async def test_replica_lost_after_the_first_token(remote: Edge) -> None:
    async with scripted_replica(remote, ScriptSpec(tokens=500, token_ms=10), "a") as lost, remote.http() as http:
        asking = asyncio.create_task(http.post(URL, json={**BODY, "stream": True}))
        await asyncio.sleep(0.2)
        await lost.stop(0)
        response = await asking
    error = json.loads(response.text.split("\n\n")[-2][6:])
    assert response.status_code == 200 and error["error"]["code"] == "replica_lost"
    (usage,) = remote.billing.usages.values()
    assert usage.output_tokens == response.text.count(" tok") > 0


async def test_one_trace_goes_through_to_the_engine(remote: Edge, tmp_path: Any) -> None:
    exporter = InMemorySpanExporter()
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    with telemetry.configured(Environment({}), ["gateway"], home=tmp_path, exporter=exporter):
        async with scripted_replica(remote, ScriptSpec(tokens=5), "a"), remote.http() as http:
            headers = {"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
            await http.post(URL, json={**BODY, "temperature": 0.5}, headers=headers)
    spans = [span for span in exporter.get_finished_spans() if f"{span.context.trace_id:032x}" == trace_id]
    edge_span, *others = sorted(spans, key=lambda span: span.start_time or 0)
    steps = {span.name for span in others if span.parent and span.parent.span_id == edge_span.context.span_id}
    # The edge and the engine name their spans alike, as the GenAI conventions have it.
    assert steps >= {"authenticate", "render and count", "reserve", "place", f"chat {MODEL}"}
    assert edge_span.name == f"chat {MODEL}"
    attributes = dict(edge_span.attributes or {})
    assert attributes[telemetry.GenAi.OUTPUT_TOKENS] == 5
    assert attributes[telemetry.GenAi.INPUT_TOKENS] == 3
    assert not any("one two three" in str(value) for value in attributes.values())
