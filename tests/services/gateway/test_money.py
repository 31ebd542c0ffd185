"""Nothing is served that was not held before, and nothing that is not recorded after."""

import asyncio
from typing import Any

import httpx
import pytest

from modelplane.usage.v1.usage_pb2 import OUTCOME_COMPLETED
from services.faults import RateLimited, Unavailable
from services.gateway.settings import GatewaySettings
from tests.fakes.replica import FakeReplica
from tests.services.gateway.conftest import MODEL, Edge, running_edge, until

BODY: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "one two three"}], "max_tokens": 500}
STREAM = {**BODY, "stream": True}
URL = "/v1/chat/completions"
QUOTA = RateLimited("insufficient_quota", "You exceeded your current quota.")


async def ask(edge: Edge, body: dict[str, Any]) -> httpx.Response:
    async with edge.http() as http:
        return await http.post(URL, json=body)


async def test_what_a_request_may_cost_is_held_before_it_is_placed(edge: Edge) -> None:
    edge.ratelimit.output_estimate = 40
    replica = await edge.add_replica()
    response = await ask(edge, {**BODY, "service_tier": "flex", "n": 2})
    held = edge.billing.held[response.headers["x-request-id"]]
    assert (held.attribution.organization_id, held.attribution.project_id) == ("org-1", "proj-1")
    assert (held.model, held.service_tier, held.input_tokens) == (MODEL, "flex", 3)
    assert (held.expected_output_tokens, held.max_output_tokens) == (40, 1000)
    assert replica.requests[0].whole


async def test_a_request_that_cannot_be_paid_for_reaches_no_replica(edge: Edge) -> None:
    edge.billing.refusal = QUOTA
    replica = await edge.add_replica()
    response = await ask(edge, BODY)
    assert (response.status_code, response.json()["error"]["code"]) == (429, "insufficient_quota")
    assert "retry-after" not in response.headers
    await until(lambda: bool(edge.ratelimit.settled))
    assert list(edge.ratelimit.settled.values()) == [0]
    assert not replica.requests
    assert not edge.billing.usages


@pytest.mark.parametrize("body", [STREAM, BODY], ids=["stream", "whole"])
async def test_an_answer_ends_where_the_money_does(edge: Edge, body: dict[str, Any]) -> None:
    edge.billing.steps = [30]
    await edge.add_replica(FakeReplica([" word"] * 500, token_s=0.001))
    response = await ask(edge, body)
    assert response.status_code == 200
    assert '"finish_reason":"length"' in response.text.replace(" ", "")
    await until(lambda: bool(edge.billing.usages))
    [usage] = edge.billing.usages.values()
    assert (usage.outcome, usage.input_tokens) == (OUTCOME_COMPLETED, 3)
    assert 22 < usage.output_tokens <= 30
    assert response.text.count("word") == usage.output_tokens
    assert not edge.billing.released


async def test_all_choices_end_there(edge: Edge) -> None:
    edge.billing.steps = [60]
    await edge.add_replica(FakeReplica([" word"] * 500, token_s=0.001))
    choices = (await ask(edge, {**BODY, "n": 3})).json()["choices"]
    assert [choice["finish_reason"] for choice in choices] == ["length"] * 3


@pytest.mark.parametrize("body", [STREAM, BODY], ids=["stream", "whole"])
async def test_an_answer_that_outgrows_what_is_held_gets_more(edge: Edge, body: dict[str, Any]) -> None:
    edge.billing.steps = [30, 60, 500]
    await edge.add_replica(FakeReplica([" word"] * 100, token_s=0.001))
    response = await ask(edge, body)
    assert response.text.count("word") == 100
    assert '"finish_reason":"stop"' in response.text.replace(" ", "")
    assert len(edge.billing.extended) == 2
    assert 22 < edge.billing.extended[0].output_tokens < 30


async def test_a_stream_is_told_of_from_its_first_piece_on() -> None:
    async with running_edge(GatewaySettings(checkpoint_interval_s=0.05)) as edge:
        await edge.add_replica(FakeReplica([" word"] * 500, token_s=0.01))
        async with edge.http() as http, http.stream("POST", URL, json=STREAM) as response:
            await until(lambda: len(edge.billing.checkpoints) >= 3)
            first, *later = edge.billing.checkpoints
            assert first.request_id == response.headers["x-request-id"]
            assert (first.input_tokens, first.output_tokens) == (3, 1)
            assert first.attribution.project_id == "proj-1"
            assert 1 < later[0].output_tokens < later[1].output_tokens
        await until(lambda: bool(edge.billing.usages))
        told = len(edge.billing.checkpoints)
        await asyncio.sleep(0.2)
        assert len(edge.billing.checkpoints) == told


async def test_an_answer_in_one_piece_is_given_out_when_it_is_recorded(edge: Edge) -> None:
    edge.billing.failure, edge.billing.failures = Unavailable("spool_unwritable", "No."), 2
    await edge.add_replica()
    response = await ask(edge, BODY)
    assert response.status_code == 200
    assert response.headers["x-request-id"] in edge.billing.usages
    assert not edge.billing.checkpoints


async def test_the_end_of_a_stream_is_given_out_when_it_is_recorded() -> None:
    """What a client is told that it used is what is billed, whatever dies."""
    async with running_edge(GatewaySettings(settle_timeout_s=0.2)) as edge:
        edge.billing.failure, edge.billing.failures = Unavailable("spool_unwritable", "No."), 1000
        await edge.add_replica()
        response = await ask(edge, {**STREAM, "stream_options": {"include_usage": True}})
        assert "Hello" in response.text
        assert "spool_unwritable" in response.text
        assert "prompt_tokens" not in response.text and "[DONE]" not in response.text


async def test_an_answer_that_cannot_be_recorded_is_not_given_out() -> None:
    async with running_edge(GatewaySettings(settle_timeout_s=0.2)) as edge:
        edge.billing.failure, edge.billing.failures = Unavailable("spool_unwritable", "No."), 1000
        await edge.add_replica()
        response = await ask(edge, BODY)
        assert (response.status_code, response.json()["error"]["code"]) == (503, "spool_unwritable")


async def test_who_goes_before_the_first_token_gets_the_money_back(edge: Edge) -> None:
    await edge.add_replica(FakeReplica([" word"] * 5, token_s=5))
    async with edge.http() as http:
        with pytest.raises(httpx.ReadTimeout):
            await http.post(URL, json=BODY, timeout=httpx.Timeout(30, read=0.5))
    await until(lambda: bool(edge.billing.released))
    assert edge.billing.released == list(edge.billing.held)
    assert not edge.billing.usages
