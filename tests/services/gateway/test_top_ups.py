"""A stream that outgrows its estimate takes more from the limits while it runs, and not only when it ends."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from modelplane.limits.v1 import limits_pb2
from modelplane.router.v1 import router_pb2
from services.faults import Unavailable
from services.router.service import Router
from services.router.settings import Settings as RouterSettings
from tests.fakes.control import KEY
from tests.fakes.replica import FakeReplica
from tests.services.gateway.conftest import MODEL, Edge, running_edge, until

BODY: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "one two three"}]}
STREAM = {**BODY, "stream": True}
URL = "/v1/chat/completions"
INPUT_TOKENS = 3


@asynccontextmanager
async def streaming(edge: Edge) -> AsyncIterator[httpx.Response]:
    async with edge.http() as http, http.stream("POST", URL, json=STREAM) as response:
        yield response


async def settled(edge: Edge) -> int:
    """The tokens of the one request."""
    await until(lambda: bool(edge.ratelimit.settled))
    [tokens] = edge.ratelimit.settled.values()
    return tokens


async def test_a_stream_that_outgrows_its_estimate_tops_up_before_it_ends(edge: Edge) -> None:
    edge.ratelimit.output_estimate = 10
    await edge.add_replica(FakeReplica([" word"] * 500, token_s=0.01))
    async with streaming(edge) as response:
        await until(lambda: len(edge.ratelimit.top_ups) == 2)
        request_id = response.headers["x-request-id"]
        assert edge.ratelimit.taken[request_id] >= INPUT_TOKENS + 31
        assert not edge.ratelimit.settled
    first, second = edge.ratelimit.top_ups
    assert (first.request_id, first.tokens) == (request_id, INPUT_TOKENS + 11)
    assert second.tokens == first.tokens + 11
    tokens = await settled(edge)
    assert tokens == INPUT_TOKENS + edge.billing.usages[request_id].output_tokens


@pytest.mark.parametrize("body", [STREAM, BODY])
async def test_a_request_within_its_estimate_does_not(edge: Edge, body: dict[str, Any]) -> None:
    edge.ratelimit.output_estimate = 5
    await edge.add_replica()
    async with edge.http() as http:
        await http.post(URL, json=body)
    assert await settled(edge) == INPUT_TOKENS + 5
    assert not edge.ratelimit.top_ups


async def test_an_answer_in_one_piece_is_only_settled(edge: Edge) -> None:
    edge.ratelimit.output_estimate = 1
    await edge.add_replica()
    async with edge.http() as http:
        await http.post(URL, json=BODY)
    assert await settled(edge) == INPUT_TOKENS + 5
    assert not edge.ratelimit.top_ups


async def test_one_top_up_at_a_time_and_none_holds_up_the_end(edge: Edge) -> None:
    edge.ratelimit.output_estimate = 1
    edge.ratelimit.top_up_gate.clear()
    await edge.add_replica(FakeReplica([" word"] * 50, token_s=0.001))
    async with streaming(edge) as response:
        await response.aread()
    assert await settled(edge) == INPUT_TOKENS + 50
    assert [request.tokens for request in edge.ratelimit.top_ups] == [INPUT_TOKENS + 2]


async def test_a_top_up_that_fails_changes_nothing(edge: Edge) -> None:
    edge.ratelimit.output_estimate = 1
    edge.ratelimit.top_up_failure = Unavailable("service_unavailable", "Not now.")
    await edge.add_replica(FakeReplica([" word"] * 50, token_s=0.001))
    async with streaming(edge) as response:
        assert b"[DONE]" in await response.aread()
    assert await settled(edge) == INPUT_TOKENS + 50
    assert len(edge.ratelimit.top_ups) == 1


async def test_an_answer_that_takes_nothing_more_is_the_last(edge: Edge) -> None:
    edge.ratelimit.output_estimate = 0
    await edge.add_replica(FakeReplica([" word"] * 50, token_s=0.001))
    async with streaming(edge) as response:
        await response.aread()
    assert await settled(edge) == INPUT_TOKENS + 50
    assert len(edge.ratelimit.top_ups) == 1


class SeenRouter(Router):
    """Keeps what it was asked for."""

    def __init__(self) -> None:
        super().__init__(RouterSettings(queue_timeout_ms=2000))
        self.asked: list[router_pb2.PlaceRequest] = []

    async def place(self, request: router_pb2.PlaceRequest, /) -> router_pb2.PlaceResponse:
        self.asked.append(request)
        return await super().place(request)


@dataclasses.dataclass
class SeenEdge(Edge):
    router: SeenRouter = dataclasses.field(default_factory=SeenRouter)


async def test_limiter_and_router_learn_who_asks_and_what_is_theirs() -> None:
    override = limits_pb2.Override(model="other", limit=5)
    async with running_edge(kind=SeenEdge) as edge:
        assert isinstance(edge, SeenEdge)
        principal = edge.auth.principals[KEY]
        principal.usage_tier, principal.weight = 3, 7
        principal.limits.append(override)
        await edge.add_replica()
        async with edge.http() as http:
            await http.post(URL, json=BODY)
        [reserved] = edge.ratelimit.reserved.values()
        assert (reserved.project_id, reserved.key_id, reserved.usage_tier) == ("proj-1", "key-1", 3)
        assert list(reserved.overrides) == [override]
        [placed] = edge.router.asked
        assert (placed.project_id, placed.key_id, placed.weight) == ("proj-1", "key-1", 7)


async def test_the_task_of_a_top_up_ends_with_its_run(edge: Edge) -> None:
    edge.ratelimit.output_estimate = 1
    edge.ratelimit.top_up_gate.clear()
    before = asyncio.all_tasks()
    await edge.add_replica(FakeReplica([" word"] * 500, token_s=0.01))
    async with streaming(edge):
        await until(lambda: bool(edge.ratelimit.top_ups))
    await settled(edge)
    assert not [task for task in asyncio.all_tasks() - before if "_top_up" in repr(task)]
