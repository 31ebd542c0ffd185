"""Unary calls: what travels with them, what ends them, and what the caller sees of it."""

import asyncio

import pytest

from modelplane.tokenizer.v1.tokenizer_api import TokenizerService
from modelplane.tokenizer.v1.tokenizer_pb2 import Message, RenderRequest, RenderResponse
from services import context, telemetry
from services.faults import DeadlineExceeded, Internal, NotFound, Unauthenticated, Unavailable
from services.rpc.connect import connect
from services.rpc.settings import RpcSettings
from tests.services.rpc.servers import probes

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
REQUEST = RenderRequest(model="m", messages=[Message(role="user")])


async def test_the_answer_comes_back() -> None:
    async with probes() as p:
        answer = await p.remote_tokenizer.render(REQUEST)
        assert (answer.prompt.model, list(answer.prompt.token_ids)) == ("m", [0])


async def test_request_id_deadline_and_trace_travel() -> None:
    async with probes() as p:
        with context.call("req_1", 5.0), telemetry.attach(TRACEPARENT):
            await p.remote_tokenizer.render(REQUEST)
        assert p.tokenizer.request_id == "req_1"
        assert p.tokenizer.remaining_s is not None and 3.0 < p.tokenizer.remaining_s < 5.1
        assert p.tokenizer.traceparent == TRACEPARENT


async def test_a_call_outside_any_request_gets_the_default_deadline() -> None:
    async with probes(RpcSettings(timeout_s=7.0)) as p:
        await p.remote_tokenizer.render(REQUEST)
        assert (p.tokenizer.request_id, p.tokenizer.traceparent) == ("", None)
        assert p.tokenizer.remaining_s is not None and 5.0 < p.tokenizer.remaining_s < 7.1


async def test_nothing_of_a_call_is_left_for_the_next() -> None:
    async with probes() as p:
        with context.call("req_1", 5.0), telemetry.attach(TRACEPARENT):
            await p.remote_tokenizer.render(REQUEST)
        await p.remote_tokenizer.render(REQUEST)
        assert (p.tokenizer.request_id, p.tokenizer.traceparent) == ("", None)


@pytest.mark.parametrize("timeout_s", [0.0, 0.1])
async def test_an_expired_deadline_is_a_timeout(timeout_s: float) -> None:
    async with probes() as p:
        p.tokenizer.released.clear()
        with context.call("req_1", timeout_s), pytest.raises(DeadlineExceeded) as caught:
            await p.remote_tokenizer.render(REQUEST)
        assert (caught.value.reason, caught.value.rule.status) == ("timeout", 504)
        if timeout_s:
            await asyncio.wait_for(p.tokenizer.cancelled.wait(), 30)


async def test_a_timeout_inside_the_service_is_the_same_timeout() -> None:
    async with probes() as p:
        p.tokenizer.error = TimeoutError()
        with pytest.raises(DeadlineExceeded) as caught:
            await p.remote_tokenizer.render(REQUEST)
        assert caught.value.reason == "timeout"


async def test_a_cancelled_caller_cancels_the_service() -> None:
    async with probes() as p:
        p.tokenizer.released.clear()
        calling = asyncio.create_task(p.remote_tokenizer.render(REQUEST))
        await p.tokenizer.started.wait()
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        await asyncio.wait_for(p.tokenizer.cancelled.wait(), 30)


async def test_a_defect_is_logged_and_hidden(caplog: pytest.LogCaptureFixture) -> None:
    async with probes() as p:
        p.tokenizer.error = ZeroDivisionError("secret detail")
        with pytest.raises(Internal) as caught:
            await p.remote_tokenizer.render(REQUEST)
        assert caught.value.reason == "internal"
        assert "secret detail" not in caught.value.message
        assert "secret detail" in caplog.text


async def test_long_client_words_in_a_fault_arrive() -> None:
    """A fault may quote what a client sent, and trailing metadata has a bound of its own."""
    async with probes() as p:
        raised = NotFound("model_not_found", "é" * 100_000, param="x" * 100_000, headers={"x-a": "b"})
        p.tokenizer.error = raised
        with pytest.raises(NotFound) as caught:
            await p.remote_tokenizer.render(REQUEST)
        assert (caught.value.message, caught.value.param) == (raised.message, raised.param)
        assert caught.value.headers == {"x-a": "b"}


@pytest.mark.parametrize("token", ["", "wrong", "right but longer"])
async def test_a_wrong_token_is_refused(token: str) -> None:
    async with probes(RpcSettings(token="right")) as p:
        other = RpcSettings(token=token)
        async with connect(TokenizerService, p.server.address, other) as stranger:
            with pytest.raises(Unauthenticated) as caught:
                await stranger.render(REQUEST)
        assert caught.value.reason == "invalid_service_token"
        assert not p.tokenizer.started.is_set()


async def test_the_right_token_is_accepted() -> None:
    async with probes(RpcSettings(token="right")) as p:
        await p.remote_tokenizer.render(REQUEST)


async def test_a_message_larger_than_grpcs_default_bound() -> None:
    async with probes() as p:
        text = "x" * (6 * 1024 * 1024)
        request = RenderRequest(model=text, messages=[Message(content=text)])
        assert (await p.remote_tokenizer.render(request)).prompt.model == text


async def test_a_message_over_our_bound_fails() -> None:
    async with probes(RpcSettings(max_message_bytes=1000)) as p:
        with pytest.raises(Internal):
            await p.remote_tokenizer.render(RenderRequest(model="x" * 2000))


async def test_a_call_waits_for_a_server_that_comes_back() -> None:
    async with probes() as first:
        await first.remote_tokenizer.render(REQUEST)
        await first.server.stop(0)
        calling = asyncio.create_task(first.remote_tokenizer.render(REQUEST))
        await asyncio.sleep(0)
        async with probes(RpcSettings(listen=first.server.address)) as second:
            await asyncio.wait_for(calling, 30)
            assert second.tokenizer.started.is_set()


async def test_a_server_that_stops_ends_its_calls_with_unavailable() -> None:
    async with probes() as p:
        p.tokenizer.released.clear()
        calling = asyncio.create_task(p.remote_tokenizer.render(REQUEST))
        await p.tokenizer.started.wait()
        await p.server.stop(0)
        with pytest.raises(Unavailable) as caught:
            await calling
        assert caught.value.reason == "service_unavailable"


async def test_a_client_that_is_closed_ends_its_calls_with_unavailable() -> None:
    async with probes() as p:
        p.tokenizer.released.clear()
        async with connect(TokenizerService, p.server.address, p.settings) as client:
            calling = asyncio.create_task(client.render(REQUEST))
            await p.tokenizer.started.wait()
        with pytest.raises(Unavailable):
            await calling


async def test_a_closed_client_is_unavailable() -> None:
    async with probes() as p:
        async with connect(TokenizerService, p.server.address, p.settings) as client:
            await client.render(REQUEST)
        with pytest.raises(Unavailable):
            await client.render(REQUEST)


async def test_a_service_that_was_cancelled_inside_still_answers() -> None:
    """grpc sends nothing for asyncio's CancelledError, so the caller would wait for its deadline."""
    async with probes() as p:
        stopped = asyncio.get_running_loop().create_future()
        stopped.cancel()

        async def render(request: RenderRequest, /) -> RenderResponse:
            await stopped
            return RenderResponse()

        p.tokenizer.render = render  # type: ignore[method-assign]
        with context.call("req_1", 5.0), pytest.raises(Unavailable) as caught:
            await p.remote_tokenizer.render(REQUEST)
        assert caught.value.reason == "service_unavailable"
