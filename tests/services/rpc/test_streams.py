"""Streams: both directions, and every way in which one can end."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager

import pytest

from modelplane.chat_inference.v1.chat_inference_api import ChatInferenceService
from modelplane.chat_inference.v1.chat_inference_pb2 import GenerateRequest, Sampling, SessionRequest
from services import context
from services.faults import Internal, RateLimited, Unauthenticated, Unavailable
from services.rpc.connect import connect
from services.rpc.settings import RpcSettings
from tests.services.rpc.servers import probes

FOREVER = GenerateRequest()


def start(request_id: str) -> SessionRequest:
    return SessionRequest(starts=[GenerateRequest(request_id=request_id)])


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
        await asyncio.wait_for(p.inference.ended.wait(), 5)
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
        await asyncio.wait_for(p.inference.ended.wait(), 5)
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
        await asyncio.wait_for(p.inference.ended.wait(), 5)
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


async def test_a_bidirectional_stream_goes_both_ways() -> None:
    async with probes() as p:
        outbox: asyncio.Queue[SessionRequest | None] = asyncio.Queue()

        async def requests() -> AsyncIterator[SessionRequest]:
            while (request := await outbox.get()) is not None:
                yield request

        answers = aiter(p.remote_inference.session(requests()))
        for number in range(100):
            # Each answer comes while the other direction is still open.
            outbox.put_nowait(start(f"req_{number}"))
            assert (await anext(answers)).deltas[0].request_id == f"req_{number}"
        outbox.put_nowait(None)
        with pytest.raises(StopAsyncIteration):
            await anext(answers)
        assert len(p.inference.received) == 100


async def test_the_end_of_a_session_reaches_its_request_iterator() -> None:
    async with probes() as p:
        closed = asyncio.Event()

        async def requests() -> AsyncIterator[SessionRequest]:
            try:
                yield start("req_1")
                await asyncio.Event().wait()
            finally:
                closed.set()

        async with aclosing(p.remote_inference.session(requests())) as answers:  # type: ignore[type-var]
            await anext(answers)
        await asyncio.wait_for(closed.wait(), 5)
        await asyncio.wait_for(p.inference.ended.wait(), 5)


async def test_a_server_that_stops_ends_its_streams() -> None:
    async with probes() as p:
        answers = aiter(p.remote_inference.generate(FOREVER))
        await anext(answers)
        await p.server.stop(0)
        with pytest.raises(Unavailable) as caught:
            async for _ in answers:
                pass
        assert caught.value.reason == "service_unavailable"
        await asyncio.wait_for(p.inference.ended.wait(), 5)


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
            await asyncio.wait_for(anext(aiter(client.generate(FOREVER))), 5)


async def test_an_idle_stream_survives_its_keepalive_pings() -> None:
    """Servers end connections whose clients ping more often than they admit."""
    async with probes(RpcSettings(keepalive_ms=100)) as p:
        outbox: asyncio.Queue[SessionRequest] = asyncio.Queue()

        async def requests() -> AsyncIterator[SessionRequest]:
            while True:
                yield await outbox.get()

        answers = aiter(p.remote_inference.session(requests()))
        for request_id in ("req_1", "req_2"):
            outbox.put_nowait(start(request_id))
            assert (await anext(answers)).deltas[0].request_id == request_id
            await asyncio.sleep(1.0)


SERVER = """
import asyncio, sys
from services.rpc.settings import RpcSettings
from tests.services.rpc.servers import probes

async def main():
    async with probes(RpcSettings(keepalive_ms=200)) as p:
        print(p.server.address, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


@contextmanager
def server_process() -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_lost_server_ends_a_stream_with_unavailable(how: signal.Signals) -> None:
    """A frozen one is noticed by its missing answers to keepalive pings."""
    with server_process() as (process, address):
        async with connect(ChatInferenceService, address, RpcSettings(keepalive_ms=200)) as client:
            answers = aiter(client.session(forever()))
            await anext(answers)
            process.send_signal(how)
            with pytest.raises(Unavailable):
                await asyncio.wait_for(anext(answers), 20)


async def forever() -> AsyncIterator[SessionRequest]:
    yield start("req_1")
    await asyncio.Event().wait()
