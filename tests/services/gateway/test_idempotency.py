"""Requests with an Idempotency-Key: run once, answered as often as they are sent."""

import asyncio
from typing import Any

import httpx
import pytest

from modelplane.auth.v1.auth_pb2 import KEY_KIND_PROJECT, Principal
from services.faults import Unavailable
from services.gateway.settings import GatewaySettings
from tests.fakes.replica import FakeReplica
from tests.services.gateway.conftest import MODEL, Edge, running_edge, until

URL = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hello there you"}]}
STREAM = {**BODY, "stream": True, "stream_options": {"include_usage": True}}


async def ask(
    http: httpx.AsyncClient, body: dict[str, Any] = BODY, key: str = "key-1", **headers: str
) -> httpx.Response:
    return await http.post(URL, json=body, headers={"idempotency-key": key, **headers})


@pytest.mark.parametrize("body", [BODY, STREAM], ids=["plain", "stream"])
async def test_a_repetition_gets_the_first_answer(edge: Edge, body: dict[str, Any]) -> None:
    replica = await edge.add_replica()
    async with edge.http() as http:
        first = await ask(http, body)
        assert first.status_code == 200 and "idempotent-replayed" not in first.headers
        for _ in range(2):
            again = await ask(http, body)
            assert (again.status_code, again.content) == (200, first.content)
            assert again.headers["idempotent-replayed"] == "true"
            assert again.headers["content-type"] == first.headers["content-type"]
            assert again.headers["x-request-id"] != first.headers["x-request-id"]
        other = await ask(http, body, "key-2")
        assert other.content != first.content
    await edge.gateway.drain()
    assert len(replica.requests) == len(edge.billing.usages) == len(edge.ratelimit.reserved) == 2


async def test_a_stored_completion_is_stored_once(edge: Edge) -> None:
    await edge.add_replica()
    async with edge.sdk() as sdk:
        ids = {
            (
                await sdk.chat.completions.create(
                    model=MODEL, messages=BODY["messages"], store=True, extra_headers={"Idempotency-Key": "k"}
                )
            ).id
            for _ in range(2)
        }
    await edge.gateway.drain()
    assert len(ids) == 1 and edge.completions.stored.keys() == ids


async def test_without_the_header_nothing_is_claimed(edge: Edge) -> None:
    await edge.add_replica()
    async with edge.http() as http:
        first = await http.post(URL, json=BODY)
        assert (await http.post(URL, json=BODY)).content != first.content
        assert (await ask(http, key="")).status_code == 200
    assert edge.completions.keys == {}


async def test_a_key_of_another_request_is_refused(edge: Edge) -> None:
    await edge.add_replica()
    async with edge.http() as http:
        await ask(http)
        other = await ask(http, {**BODY, "n": 2})
    assert other.status_code == 400 and other.json()["error"]["code"] == "idempotency_key_reused"
    assert other.headers["x-should-retry"] == "false"


async def test_a_key_that_is_too_long_is_refused(edge: Edge) -> None:
    await edge.add_replica()
    async with edge.http() as http:
        assert (await ask(http, key="k" * 255)).status_code == 200
        refused = await ask(http, key="k" * 256)
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "string_above_max_length"
    assert refused.json()["error"]["param"] == "Idempotency-Key"


async def test_projects_have_keys_of_their_own(edge: Edge) -> None:
    await edge.add_replica()
    edge.auth.principals["sk-proj-other"] = Principal(
        organization_id="org-1", project_id="proj-2", kind=KEY_KIND_PROJECT
    )
    async with edge.http() as http:
        mine, others = await ask(http), await ask(http, authorization="Bearer sk-proj-other")
    assert others.status_code == 200 and others.content != mine.content


async def test_while_the_first_runs_the_next_is_told_to_wait(edge: Edge) -> None:
    replica = await edge.add_replica(FakeReplica(token_s=0.05))
    async with edge.http() as http:
        first = asyncio.create_task(ask(http))
        await until(lambda: bool(replica.requests))
        second = await ask(http)
        assert second.status_code == 409 and second.json()["error"]["code"] == "idempotency_key_in_use"
        assert second.headers["retry-after"] == "1" and "x-should-retry" not in second.headers
        answer = await first
        assert (await ask(http)).content == answer.content


@pytest.mark.parametrize("body", [BODY, STREAM], ids=["plain", "stream"])
@pytest.mark.parametrize("fails_after", [0, 2])
async def test_a_failure_frees_the_key(edge: Edge, body: dict[str, Any], fails_after: int) -> None:
    replica = await edge.add_replica()
    replica.fails_after = fails_after
    async with edge.http() as http:
        assert "engine_failed" in (await ask(http, body)).text
        assert edge.completions.keys == {}
        replica.fails_after = None
        assert "engine_failed" not in (await ask(http, body)).text


async def test_a_refusal_frees_the_key(edge: Edge) -> None:
    await edge.add_replica()
    edge.ratelimit.refusal = Unavailable("overloaded", "Busy.")
    async with edge.http() as http:
        assert (await ask(http)).status_code == 503
        assert (await ask(http, {"model": MODEL})).status_code == 400
        edge.ratelimit.refusal = None
        assert (await ask(http)).status_code == 200


@pytest.mark.parametrize("body", [BODY, STREAM], ids=["plain", "stream"])
async def test_a_client_that_hangs_up_frees_the_key(edge: Edge, body: dict[str, Any]) -> None:
    replica = await edge.add_replica(FakeReplica(["word"] * 100, token_s=0.02))
    async with edge.http() as http:
        with pytest.raises(httpx.ReadTimeout):
            async with http.stream(
                "POST", URL, json=body, headers={"idempotency-key": "k"}, timeout=httpx.Timeout(5, read=0.15)
            ) as response:
                async for _ in response.aiter_bytes():
                    raise httpx.ReadTimeout("had enough")
    await until(lambda: len(replica.requests) == 1 and edge.completions.keys == {})
    replica.token_s = 0
    async with edge.http() as http:
        assert (await ask(http, body, "k")).status_code == 200


@pytest.mark.parametrize("body", [BODY, STREAM], ids=["plain", "stream"])
async def test_an_answer_that_is_too_long_frees_the_key(body: dict[str, Any]) -> None:
    async with running_edge(GatewaySettings(max_replay_bytes=100)) as edge:
        await edge.add_replica()
        async with edge.http() as http:
            first = await ask(http, body)
            assert edge.completions.keys == {}
            assert first.status_code == 200 and (await ask(http, body)).content != first.content


async def test_an_answer_that_cannot_be_kept_is_given_all_the_same(edge: Edge) -> None:
    await edge.add_replica()
    edge.completions.failure, edge.completions.failures = Unavailable("database_unavailable", "Away."), 2
    async with edge.http() as http:
        assert (await ask(http)).status_code == 200
        # Until its lease ends.
        assert (await ask(http)).status_code == 409
