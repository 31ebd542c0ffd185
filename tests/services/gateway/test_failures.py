"""What goes wrong before and while the model runs: the client gets a clean error, the slot and the tokens come back."""

import asyncio
import json
import time
from typing import Any

import httpx
import pytest

from modelplane.usage.v1.usage_pb2 import OUTCOME_ABORTED, OUTCOME_COMPLETED, OUTCOME_FAILED
from services.faults import DeadlineExceeded, Internal, RateLimited, Unavailable
from services.gateway.settings import GatewaySettings
from tests.fakes.replica import FakeReplica
from tests.services.gateway.conftest import MODEL, Edge, running_edge, until
from tests.services.gateway.schemas import assert_matches

BODY: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "one two three"}]}
STREAM = {**BODY, "stream": True}
URL = "/v1/chat/completions"


def events(response: httpx.Response) -> list[Any]:
    return [json.loads(event[6:]) for event in response.text.split("\n\n") if event and event != "data: [DONE]"]


async def settled(edge: Edge, request_id: str) -> int:
    await until(lambda: request_id in edge.ratelimit.settled)
    await until(lambda: edge_is_free(edge))
    return edge.ratelimit.settled[request_id]


async def edge_is_free(edge: Edge) -> bool:
    return await edge.running() == 0


async def test_hang_up_mid_stream_aborts_at_the_engine_and_is_metered(edge: Edge) -> None:
    replica = await edge.add_replica(FakeReplica([" word"] * 500, token_s=0.01))
    async with edge.http() as http, http.stream("POST", URL, json=STREAM) as response:
        request_id = response.headers["x-request-id"]
        lines = response.aiter_lines()
        for _ in range(8):
            await anext(lines)
    gone_at = time.monotonic()
    await until(lambda: request_id in replica.aborted_at)
    assert replica.aborted_at[request_id] - gone_at < 1.0
    await until(lambda: request_id in edge.billing.usages)
    usage = edge.billing.usages[request_id]
    assert usage.outcome == OUTCOME_ABORTED
    assert 3 <= usage.output_tokens < 100
    assert await settled(edge, request_id) == 3 + usage.output_tokens


async def test_hang_up_of_a_plain_request_aborts_too(edge: Edge) -> None:
    replica = await edge.add_replica(FakeReplica([" word"] * 500, token_s=0.01))
    async with edge.http() as http:
        with pytest.raises(httpx.ReadTimeout):
            await http.post(URL, json=BODY, timeout=httpx.Timeout(30, read=0.5))
    await until(lambda: len(edge.billing.usages) == 1)
    (usage,) = edge.billing.usages.values()
    assert usage.outcome == OUTCOME_ABORTED
    assert usage.request_id in replica.aborted_at


async def test_an_engine_that_is_deaf_to_aborts_is_not_waited_for() -> None:
    async with running_edge(GatewaySettings(abort_grace_s=0.1)) as edge:
        replica = await edge.add_replica(FakeReplica([" word"] * 500, token_s=0.01))
        replica.deaf_to_aborts = True
        async with edge.http() as http, http.stream("POST", URL, json=STREAM) as response:
            await anext(response.aiter_lines())
        await until(lambda: len(edge.billing.usages) == 1)
        (usage,) = edge.billing.usages.values()
        assert (usage.outcome, usage.input_tokens) == (OUTCOME_ABORTED, 3)
        assert 1 <= usage.output_tokens < 100


async def test_hang_up_in_the_queue_leaves_nothing_behind(edge: Edge) -> None:
    async with edge.http() as http:
        with pytest.raises(httpx.ReadTimeout):
            await http.post(URL, json=BODY, timeout=httpx.Timeout(30, read=0.5))
    await until(lambda: list(edge.ratelimit.settled.values()) == [0])
    replica = await edge.add_replica()
    assert await edge.running() == 0
    assert replica.requests == [] and edge.billing.usages == {}


async def test_replica_lost_before_the_first_token_is_retried_on_another(edge: Edge) -> None:
    first = await edge.add_replica(slots=1)
    first.dies_after = 0
    second = FakeReplica()
    asyncio.get_running_loop().call_later(0.1, lambda: asyncio.ensure_future(edge.add_replica(second)))
    for body in (BODY, STREAM):
        async with edge.http() as http:
            response = await http.post(URL, json=body)
        assert response.status_code == 200
        assert await settled(edge, response.headers["x-request-id"]) == 8
    assert len(second.requests) == 2
    assert all(usage.output_tokens == 5 for usage in edge.billing.usages.values())


async def test_plain_request_is_retried_also_when_the_engine_had_begun(edge: Edge) -> None:
    (await edge.add_replica()).dies_after = 3
    asyncio.get_running_loop().call_later(0.1, lambda: asyncio.ensure_future(edge.add_replica()))
    async with edge.http() as http:
        response = await http.post(URL, json=BODY)
    assert response.json()["choices"][0]["message"]["content"] == 'Hello, wörld\n"!"'
    assert await settled(edge, response.headers["x-request-id"]) == 8


async def test_no_replacement_is_a_clean_error(edge: Edge) -> None:
    (await edge.add_replica()).dies_after = 0
    async with edge.http() as http:
        response = await http.post(URL, json=STREAM)
    assert response.status_code == 503
    assert_matches("ErrorResponse", response.json())
    assert response.json()["error"]["code"] == "no_replica"
    assert response.headers["retry-after"] == "1" and response.headers["retry-after-ms"] == "1000"
    assert response.headers["x-ratelimit-limit-requests"] == "60"
    assert await settled(edge, response.headers["x-request-id"]) == 0
    assert edge.billing.usages == {}


async def test_a_replica_whose_grammar_is_late_is_not_taken_for_lost(edge: Edge) -> None:
    late = await edge.add_replica(slots=1)
    late.fails_after = 0
    late.failure = DeadlineExceeded("grammar_not_ready", "Not in time.", retry_after_ms=1000)
    other = await edge.add_replica(slots=1)
    other.fails_after, other.failure = late.fails_after, late.failure
    async with edge.http() as http:
        response = await http.post(URL, json=BODY)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "overloaded")
    assert response.headers["retry-after"] == "1"
    # What keeps one busy is not given to the next.
    assert len(late.requests) + len(other.requests) == 1
    assert edge.billing.usages == {}


async def test_replica_lost_after_the_first_token_ends_the_stream_with_an_error(edge: Edge) -> None:
    replica = await edge.add_replica(FakeReplica([" word"] * 10, token_s=0.02))
    replica.dies_after = 3
    async with edge.http() as http:
        response = await http.post(URL, json=STREAM)
    assert response.status_code == 200
    *chunks, error = events(response)
    assert_matches("ErrorResponse", error)
    assert error["error"]["code"] == "replica_lost"
    assert "[DONE]" not in response.text
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == " word" * 3
    request_id = response.headers["x-request-id"]
    assert await settled(edge, request_id) == 6
    usage = edge.billing.usages[request_id]
    assert (usage.outcome, usage.input_tokens, usage.output_tokens) == (OUTCOME_FAILED, 3, 3)
    assert (usage.model, usage.operation, usage.attribution.project_id) == (MODEL, "chat.completions", "proj-1")


async def test_a_lost_session_fails_all_its_requests_at_once_and_the_next_opens_a_new_one(edge: Edge) -> None:
    replica = await edge.add_replica(FakeReplica([" word"] * 500, token_s=0.01))
    async with edge.http() as http:
        streams = [asyncio.create_task(http.post(URL, json=STREAM)) for _ in range(5)]
        await until(lambda: len(replica.requests) == 5)
        await asyncio.sleep(0.05)
        replica.die()
        for response in await asyncio.gather(*streams):
            assert events(response)[-1]["error"]["code"] == "replica_lost"
        replica.words, replica.token_s = ["back"], 0
        assert (await http.post(URL, json=BODY)).json()["choices"][0]["message"]["content"] == "back"
    assert replica.sessions == 2


async def test_engine_failure_before_the_first_token_bills_nothing(edge: Edge) -> None:
    replica = await edge.add_replica()
    replica.fails_after, replica.failure = 0, Internal("engine_failed", "Out of memory.")
    async with edge.http() as http:
        for body in (BODY, STREAM):
            response = await http.post(URL, json=body)
            assert (response.status_code, response.json()["error"]["code"]) == (500, "engine_failed")
            assert await settled(edge, response.headers["x-request-id"]) == 0
    assert edge.billing.usages == {}


async def test_engine_failure_in_the_middle_bills_what_was_given(edge: Edge) -> None:
    replica = await edge.add_replica(FakeReplica([" word"] * 10, token_s=0.01))
    replica.fails_after, replica.failure = 4, Internal("engine_failed", "Out of memory.")
    async with edge.http() as http:
        streamed = await http.post(URL, json=STREAM)
        assert events(streamed)[-1]["error"]["type"] == "server_error"
        plain = await http.post(URL, json=BODY)
    assert await settled(edge, streamed.headers["x-request-id"]) == 7
    # The client of the plain request got nothing at all.
    assert plain.status_code == 500
    assert await settled(edge, plain.headers["x-request-id"]) == 0


async def test_a_replica_that_refuses_is_passed_over(edge: Edge) -> None:
    stopping = await edge.add_replica()
    stopping.fails_after, stopping.failure = 0, Unavailable("shutting_down", "This replica is ending.")
    asyncio.get_running_loop().call_later(0.05, lambda: asyncio.ensure_future(edge.add_replica()))
    async with edge.http() as http:
        assert (await http.post(URL, json=STREAM)).status_code == 200


async def test_a_replica_that_stops_in_the_middle(edge: Edge) -> None:
    stopping = await edge.add_replica(FakeReplica([" word"] * 500, token_s=0.01))
    async with edge.http() as http:
        for body in (STREAM, BODY):
            asking = asyncio.create_task(http.post(URL, json=body))
            await until(lambda: len(stopping.requests) == 1)
            await asyncio.sleep(0.05)
            stopping.stop()
            if body is STREAM:
                assert events(await asking)[-1]["error"]["code"] == "replica_lost"
                stopping.requests.clear()
            else:
                await edge.add_replica()
                assert (await asking).json()["choices"][0]["message"]["content"] == 'Hello, wörld\n"!"'
    assert [usage.outcome for usage in edge.billing.usages.values()] == [OUTCOME_ABORTED, OUTCOME_COMPLETED]


async def test_rate_limit(edge: Edge) -> None:
    edge.ratelimit.refusal = RateLimited(
        "rate_limit_tokens", "Slow down.", retry_after_ms=1200, headers={"x-ratelimit-remaining-tokens": "0"}
    )
    async with edge.http() as http:
        response = await http.post(URL, json=STREAM)
        assert response.status_code == 429
        assert response.json()["error"] == {
            "message": "Slow down.",
            "type": "tokens",
            "param": None,
            "code": "rate_limit_exceeded",
        }
        assert (response.headers["retry-after"], response.headers["retry-after-ms"]) == ("2", "1200")
        assert response.headers["x-ratelimit-remaining-tokens"] == "0"
        assert "x-should-retry" not in response.headers
        for reason in ("insufficient_quota", "request_too_large"):
            edge.ratelimit.refusal = RateLimited(reason, "Never.")
            response = await http.post(URL, json=BODY)
            assert response.status_code == 429
            assert response.headers["x-should-retry"] == "false"
            assert "retry-after" not in response.headers
    assert edge.ratelimit.settled == {}


async def test_a_slow_reader_is_cut_off_and_holds_up_nobody() -> None:
    async with running_edge(GatewaySettings(max_waiting_deltas=50)) as edge:
        replica = await edge.add_replica(FakeReplica(["x" * 20_000] * 2000))
        host, port = edge.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
        body = json.dumps({**STREAM, "max_tokens": 900}).encode()
        head = f"POST {URL} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-proj-good\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        await until(lambda: len(replica.aborted_at) == 1)
        replica.words = ["quick"]
        async with edge.http() as http:
            assert (await http.post(URL, json=BODY)).status_code == 200
        slow = replica.requests[0].request_id
        await until(lambda: slow in edge.billing.usages)
        assert edge.billing.usages[slow].output_tokens > 50
        sent = b""
        while b"slow_client" not in sent[-2000:]:
            piece = await reader.read(1 << 20)
            assert piece, "the stream ended without saying why"
            sent = sent[-2000:] + piece
        writer.close()
        await writer.wait_closed()


async def test_request_timeout() -> None:
    async with running_edge(GatewaySettings(request_timeout_s=0.5)) as edge:
        replica = await edge.add_replica(FakeReplica([" word"] * 500, token_s=0.01))
        async with edge.http() as http:
            plain = await http.post(URL, json=BODY)
            streamed = await http.post(URL, json=STREAM)
        assert (plain.status_code, plain.json()["error"]["code"]) == (504, "timeout")
        assert events(streamed)[-1]["error"]["code"] == "timeout"
        # The client of the plain request got nothing.
        assert await settled(edge, plain.headers["x-request-id"]) == 0
        assert await settled(edge, streamed.headers["x-request-id"]) > 3
        assert len(replica.aborted_at) == 2


async def test_usage_survives_an_outage_of_billing(edge: Edge) -> None:
    await edge.add_replica()
    edge.billing.failure, edge.billing.failures = Unavailable("service_unavailable", "Gone."), 3
    async with edge.http() as http:
        response = await http.post(URL, json=BODY)
    await until(lambda: response.headers["x-request-id"] in edge.billing.usages)


async def test_a_client_that_never_reads_does_not_hold_up_the_end() -> None:
    async with running_edge(GatewaySettings(max_waiting_deltas=50)) as edge:
        replica = await edge.add_replica(FakeReplica(["x" * 20_000] * 2000))
        host, port = edge.url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port), limit=1024)
        body = json.dumps({**STREAM, "max_tokens": 900}).encode()
        head = f"POST {URL} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-proj-good\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        await until(lambda: len(replica.aborted_at) == 1)
        async with asyncio.timeout(10):
            await edge.gateway.close()
        writer.close()


async def test_drain_finishes_what_is_in_flight() -> None:
    async with running_edge() as edge:
        replica = await edge.add_replica(FakeReplica([" word"] * 30, token_s=0.01))
        async with edge.http() as http:
            asking = asyncio.create_task(http.post(URL, json=STREAM))
            await until(lambda: len(replica.requests) == 1)
            leaving = edge.gateway.drain()
            response, _ = await asyncio.gather(asking, leaving)
            assert response.text.count(" word") == 30 and response.text.endswith("data: [DONE]\n\n")
            assert len(edge.billing.usages) == 1
            with pytest.raises(httpx.ConnectError):
                await http.get("/healthz")
        with pytest.raises(Unavailable):
            await edge.gateway.ping()


async def test_close_without_drain_ends_and_bills_what_runs() -> None:
    async with running_edge() as edge:
        replica = await edge.add_replica(FakeReplica([" word"] * 500, token_s=0.01))
        async with edge.http() as http:
            asking = asyncio.create_task(http.post(URL, json=STREAM))
            await until(lambda: len(replica.requests) == 1)
            await asyncio.sleep(0.05)
            await edge.gateway.close()
            assert events(await asking)[-1]["error"]["code"] == "shutting_down"
    (usage,) = edge.billing.usages.values()
    assert usage.outcome == OUTCOME_ABORTED
