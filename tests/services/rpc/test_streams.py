"""Streams of responses, and every way in which one can end."""

import asyncio
from contextlib import aclosing

import pytest

from modelplane.chat_inference.v1.chat_inference_api import ChatInferenceService
from modelplane.chat_inference.v1.chat_inference_pb2 import GenerateRequest, Sampling
from services import context
from services.faults import Internal, RateLimited, Unauthenticated, Unavailable
from services.rpc.connect import connect
from services.rpc.settings import RpcSettings
from tests.services.rpc.servers import probes

FOREVER = GenerateRequest()


async def test_a_server_stream_in_order() -> None:
    async with probes() as p:
        request = GenerateRequest(sampling=Sampling(max_output_tokens=500))
        with context.call("req_1", 30.0):
            deltas = [response.delta async for response in p.remote_inference.generate(request)]
        assert [delta.index for delta in deltas] == list(range(500))
        assert {delta.text for delta in deltas} == {"req_1"}


async def test_a_stream_outlives_the_deadline_of_its_opener() -> None:
    async with probes() as p:
        with context.call("req_1", 0.0):
            async with aclosing(p.remote_inference.generate(FOREVER)) as responses:  # type: ignore[type-var]
                assert (await anext(responses)).delta.index == 0


async def test_closing_a_stream_ends_it_at_the_service() -> None:
    async with probes() as p:
        with context.call("req_1"):
            async for response in p.remote_inference.generate(FOREVER):
                if response.delta.index == 3:
                    break
        await asyncio.wait_for(p.inference.ended.wait(), 30)
        assert p.inference.request_id_at_end == "req_1"


async def test_cancelling_the_reader_ends_the_stream_at_the_service() -> None:
    async with probes() as p:
        first = asyncio.Event()

        async def read() -> None:
            async for _ in p.remote_inference.generate(FOREVER):
                first.set()

        with context.call("req_1"):
            reading = asyncio.create_task(read())
        await first.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await asyncio.wait_for(p.inference.ended.wait(), 30)
        assert p.inference.request_id_at_end == "req_1"


async def test_a_stream_that_nobody_reads_ends_at_the_service_when_it_is_closed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The service hangs in a send then, which flow control holds back."""
    async with probes() as p:
        p.inference.padding = "x" * 1_000_000
        with context.call("req_1"):
            async with aclosing(p.remote_inference.generate(FOREVER)) as responses:  # type: ignore[type-var]
                await anext(responses)
                await asyncio.sleep(0.1)
        await asyncio.wait_for(p.inference.ended.wait(), 30)
        assert p.inference.request_id_at_end == "req_1"
    assert not caplog.records


async def test_a_fault_ends_a_stream_after_what_came_before() -> None:
    async with probes() as p:
        p.inference.error = RateLimited("rate_limit_tokens", "slow down", retry_after_ms=5)
        p.inference.fails_after = 3
        seen = []
        with pytest.raises(RateLimited) as caught:
            async for response in p.remote_inference.generate(FOREVER):
                seen.append(response.delta.index)
        assert seen == [0, 1, 2]
        assert caught.value.retry_after_ms == 5


async def test_a_defect_ends_a_stream(caplog: pytest.LogCaptureFixture) -> None:
    async with probes() as p:
        p.inference.error = ZeroDivisionError()
        with pytest.raises(Internal):
            await anext(aiter(p.remote_inference.generate(FOREVER)))
        assert "ZeroDivisionError" in caplog.text


async def test_a_stream_needs_the_token_too() -> None:
    async with (
        probes(RpcSettings(token="right")) as p,
        connect(ChatInferenceService, p.server.address, RpcSettings()) as stranger,
    ):
        with pytest.raises(Unauthenticated):
            await anext(aiter(stranger.generate(FOREVER)))


async def test_a_server_that_stops_ends_its_streams() -> None:
    async with probes() as p:
        answers = aiter(p.remote_inference.generate(FOREVER))
        await anext(answers)
        await p.server.stop(0)
        with pytest.raises(Unavailable) as caught:
            async for _ in answers:
                pass
        assert caught.value.reason == "service_unavailable"
        await asyncio.wait_for(p.inference.ended.wait(), 30)


async def test_a_closed_client_ends_its_streams() -> None:
    async with probes() as p:
        async with connect(ChatInferenceService, p.server.address, p.settings) as client:
            answers = aiter(client.generate(FOREVER))
            await anext(answers)
        with pytest.raises(Unavailable):
            async for _ in answers:
                pass


async def test_no_server_is_unavailable_at_once() -> None:
    async with connect(ChatInferenceService, "127.0.0.1:1", RpcSettings()) as client:
        with pytest.raises(Unavailable):
            await asyncio.wait_for(anext(aiter(client.generate(FOREVER))), 30)
