"""Bidirectional streams, over gRPC and over a socket file: both directions, and every way in which one can end."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path

import pytest

from modelplane.chat_inference.v1.chat_inference_api import ChatInferenceService
from modelplane.chat_inference.v1.chat_inference_pb2 import GenerateRequest, SessionRequest
from services import context
from services.faults import Internal, RateLimited, Unauthenticated, Unavailable
from services.rpc.connect import connect
from services.rpc.settings import RpcSettings
from services.rpc.wire import HELLO, HIGH_WATER, MESSAGE, Wire
from tests.services.rpc.servers import Probes, probes


@pytest.fixture(params=("grpc", "file"))
def listen(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the server listens."""
    return "127.0.0.1:0" if request.param == "grpc" else f"unix:{os.path.relpath(tmp_path)}/s"


def start(request_id: str) -> SessionRequest:
    return SessionRequest(starts=[GenerateRequest(request_id=request_id)])


async def forever(first: str = "req_1") -> AsyncIterator[SessionRequest]:
    yield start(first)
    await asyncio.Event().wait()


async def endless() -> AsyncIterator[SessionRequest]:
    number = 0
    while True:
        yield start(f"req_{number}")
        number += 1


async def steady() -> AsyncIterator[SessionRequest]:
    async for request in endless():
        yield request
        await asyncio.sleep(0.01)


async def test_messages_go_both_ways_while_both_are_open(listen: str) -> None:
    async with probes(RpcSettings(listen=listen)) as p:
        outbox: asyncio.Queue[SessionRequest | None] = asyncio.Queue()

        async def requests() -> AsyncIterator[SessionRequest]:
            while (request := await outbox.get()) is not None:
                yield request

        with context.call("req_opener", 0.0):
            answers = aiter(p.remote_inference.session(requests()))
            for number in range(100):
                # Each answer comes while the other direction is still open.
                outbox.put_nowait(start(f"req_{number}"))
                delta = (await anext(answers)).deltas[0]
                # A stream outlives the deadline of its opener, but knows its request.
                assert (delta.request_id, delta.text) == (f"req_{number}", "req_opener")
            outbox.put_nowait(None)
            with pytest.raises(StopAsyncIteration):
                await anext(answers)
        assert len(p.inference.received) == 100


async def test_messages_of_all_sizes_arrive_whole(listen: str) -> None:
    async with probes(RpcSettings(listen=listen)) as p:
        ids = ["x" * size for size in (1, 100, 70_000, 3 * HIGH_WATER, 2, 500_000)]

        async def requests() -> AsyncIterator[SessionRequest]:
            for request_id in ids:
                yield start(request_id)

        answered = [response.deltas[0].request_id async for response in p.remote_inference.session(requests())]
        assert answered == ids


async def test_the_end_of_a_session_reaches_both_sides(listen: str) -> None:
    async with probes(RpcSettings(listen=listen)) as p:
        closed = asyncio.Event()

        async def requests() -> AsyncIterator[SessionRequest]:
            try:
                yield start("req_1")
                await asyncio.Event().wait()
            finally:
                closed.set()

        async with aclosing(p.remote_inference.session(requests())) as answers:  # type: ignore[type-var]
            await anext(answers)
        await asyncio.wait_for(closed.wait(), 30)
        await asyncio.wait_for(p.inference.ended.wait(), 30)


async def test_cancelling_the_reader_ends_the_session(listen: str) -> None:
    async with probes(RpcSettings(listen=listen)) as p:
        first = asyncio.Event()

        async def read() -> None:
            async for _ in p.remote_inference.session(forever()):
                first.set()

        reading = asyncio.create_task(read())
        await first.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await asyncio.wait_for(p.inference.ended.wait(), 30)


async def test_a_session_that_nobody_reads_holds_the_service_back(listen: str) -> None:
    async with probes(RpcSettings(listen=listen)) as p:
        p.inference.padding = "x" * 100_000
        async with aclosing(p.remote_inference.session(endless())) as answers:  # type: ignore[type-var]
            await anext(answers)
            sent = -1
            while sent != (sent := len(p.inference.received)):
                await asyncio.sleep(0.3)
            assert sent < 200
        await asyncio.wait_for(p.inference.ended.wait(), 30)


async def test_a_fault_ends_a_session_after_what_came_before(listen: str) -> None:
    async with probes(RpcSettings(listen=listen)) as p:
        p.inference.error = RateLimited("rate_limit_tokens", "slow down", param="model", retry_after_ms=5)
        p.inference.fails_after = 3
        seen = []
        with pytest.raises(RateLimited) as caught:
            async for response in p.remote_inference.session(steady()):
                seen.append(response.deltas[0].request_id)
        assert seen == ["req_0", "req_1", "req_2"]
        assert (caught.value.message, caught.value.param, caught.value.retry_after_ms) == ("slow down", "model", 5)


async def test_a_defect_of_the_service_is_hidden(listen: str, caplog: pytest.LogCaptureFixture) -> None:
    async with probes(RpcSettings(listen=listen)) as p:
        p.inference.error = ZeroDivisionError("secret")
        with pytest.raises(Internal) as caught:
            await anext(aiter(p.remote_inference.session(forever())))
        assert "secret" not in caught.value.message
        assert "ZeroDivisionError" in caplog.text


async def test_a_defect_of_the_caller_ends_the_session(listen: str) -> None:
    async def requests() -> AsyncIterator[SessionRequest]:
        yield start("req_1")
        raise ZeroDivisionError

    async with probes(RpcSettings(listen=listen)) as p:
        with pytest.raises((Unavailable, Internal)):
            async for _ in p.remote_inference.session(requests()):
                pass
        await asyncio.wait_for(p.inference.ended.wait(), 30)


async def test_a_session_needs_the_token(listen: str) -> None:
    async with (
        probes(RpcSettings(listen=listen, token="right")) as p,
        connect(ChatInferenceService, p.server.address, RpcSettings()) as stranger,
    ):
        with pytest.raises(Unauthenticated):
            await anext(aiter(stranger.session(forever())))
        await anext(aiter(p.remote_inference.session(forever())))


async def test_a_service_that_is_not_built_yet_is_not_ready(listen: str) -> None:
    async with probes(RpcSettings(listen=listen), placed=False) as p:
        with pytest.raises(Unavailable) as caught:
            await anext(aiter(p.remote_inference.session(forever())))
        # Over gRPC it is not sent at all.
        assert caught.value.reason == ("not_ready" if listen.startswith("unix:") else "service_unavailable")


async def test_a_server_that_stops_ends_its_sessions(listen: str) -> None:
    async with probes(RpcSettings(listen=listen)) as p:
        answers = aiter(p.remote_inference.session(forever()))
        await anext(answers)
        await p.server.stop(0)
        with pytest.raises(Unavailable) as caught:
            await anext(answers)
        assert caught.value.reason == "service_unavailable"
        await asyncio.wait_for(p.inference.ended.wait(), 30)


async def test_a_server_that_stops_lets_a_session_finish(listen: str) -> None:
    async with probes(RpcSettings(listen=listen)) as p:
        outbox: asyncio.Queue[SessionRequest | None] = asyncio.Queue()

        async def requests() -> AsyncIterator[SessionRequest]:
            while (request := await outbox.get()) is not None:
                yield request

        answers = aiter(p.remote_inference.session(requests()))
        outbox.put_nowait(start("req_1"))
        await anext(answers)
        stopping = asyncio.create_task(p.server.stop(10))
        await asyncio.sleep(0.1)
        outbox.put_nowait(start("req_2"))
        assert (await anext(answers)).deltas[0].request_id == "req_2"
        outbox.put_nowait(None)
        with pytest.raises(StopAsyncIteration):
            await anext(answers)
        await asyncio.wait_for(stopping, 30)


async def test_no_server_is_unavailable_at_once(tmp_path: Path) -> None:
    for address in ("127.0.0.1:1", f"unix:{tmp_path}/none"):
        async with connect(ChatInferenceService, address, RpcSettings()) as client:
            with pytest.raises(Unavailable):
                await asyncio.wait_for(anext(aiter(client.session(forever()))), 30)


async def test_an_idle_session_survives_its_keepalive_pings(listen: str) -> None:
    """Servers end connections whose clients ping more often than they admit."""
    async with probes(RpcSettings(listen=listen, keepalive_ms=100)) as p:
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
    async with probes(RpcSettings(listen=sys.argv[1], keepalive_ms=200)) as p:
        print(p.server.address, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


@contextmanager
def server_process(listen: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen([sys.executable, "-c", SERVER, listen], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_lost_server_ends_a_session_with_unavailable(listen: str, how: signal.Signals) -> None:
    """A frozen one is noticed by its missing answers to keepalive pings."""
    with server_process(listen) as (process, address):
        async with connect(ChatInferenceService, address, RpcSettings(keepalive_ms=200)) as client:
            answers = aiter(client.session(forever()))
            await anext(answers)
            process.send_signal(how)
            with pytest.raises(Unavailable):
                await asyncio.wait_for(anext(answers), 30)


# ------------------------------------------------------------------------------------------ the socket file


async def connected(p: Probes, tmp_path: Path) -> Wire:
    path = p.server.address.removeprefix("unix:") + ".streams"
    _, wire = await asyncio.get_running_loop().create_unix_connection(lambda: Wire(1000), path)
    return wire


@pytest.mark.parametrize("first", [(MESSAGE, b""), (HELLO, b"{"), (HELLO, b"x" * 2_000_000), (77, b"")])
async def test_a_stranger_on_the_file_harms_nobody(
    tmp_path: Path, first: tuple[int, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    listen = f"unix:{os.path.relpath(tmp_path)}/s"
    async with probes(RpcSettings(listen=listen, max_message_bytes=1_000_000)) as p:
        wire = await connected(p, tmp_path)
        await wire.send(*first)
        await asyncio.wait_for(wire.lost, 30)
        assert (await anext(aiter(p.remote_inference.session(forever())))).deltas[0].request_id == "req_1"


async def test_both_files_go_with_the_server(tmp_path: Path) -> None:
    async with probes(RpcSettings(listen=f"unix:{os.path.relpath(tmp_path)}/s")):
        assert {path.name for path in tmp_path.iterdir()} == {"s", "s.streams"}
    assert list(tmp_path.iterdir()) == []
