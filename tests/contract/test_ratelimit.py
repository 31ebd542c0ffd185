"""RateLimitService, over both wirings."""

import pytest

from modelplane.limits.v1 import limits_pb2
from modelplane.limits.v1.limits_pb2 import Override
from modelplane.ratelimit.v1.ratelimit_api import RateLimitService
from modelplane.ratelimit.v1.ratelimit_pb2 import (
    DescribeLimitsRequest,
    ReserveRequest,
    ReserveResponse,
    SettleRequest,
    TopUpRequest,
)
from services.faults import RateLimited
from services.ratelimit.buckets import MemoryBuckets
from services.ratelimit.expectations import Expectations
from services.ratelimit.service import RateLimiter, steady_clock
from services.ratelimit.settings import LimitsTable
from tests.contract.conftest import Wire
from tests.services.ratelimit.limiters import make_book


@pytest.fixture
async def ratelimit(wire: Wire) -> RateLimitService:
    clock, book = steady_clock(), make_book(LimitsTable(model="small", organization_rpm=2, organization_tpm=1000))
    return await wire(RateLimitService, RateLimiter(MemoryBuckets(clock), book, Expectations(100), clock, 10**12))


async def reserve(ratelimit: RateLimitService, request_id: str, input_tokens: int = 10) -> ReserveResponse:
    return await ratelimit.reserve(
        ReserveRequest(
            request_id=request_id,
            organization_id="org-1",
            project_id="proj_1",
            model="small",
            input_tokens=input_tokens,
            max_output_tokens=500,
            key_id="key_1",
            usage_tier=2,
        )
    )


async def test_a_reservation_is_taken_once_and_settled_once(ratelimit: RateLimitService) -> None:
    reservation = (await reserve(ratelimit, "a")).reservation
    assert (reservation.request_id, reservation.tokens) == ("a", 110)
    assert (reservation.requests_state.limit, reservation.requests_state.remaining) == (2, 1)
    assert 0 < reservation.requests_state.reset_ms <= 30_000
    assert (await reserve(ratelimit, "a")).reservation.requests_state.remaining == 1
    await ratelimit.settle(SettleRequest(request_id="a", tokens=0))
    await ratelimit.settle(SettleRequest(request_id="a", tokens=900))
    await ratelimit.settle(SettleRequest(request_id="never seen", tokens=900))
    assert (await reserve(ratelimit, "b")).reservation.requests_state.remaining == 1


async def test_a_refusal_carries_the_wait_and_the_headers(ratelimit: RateLimitService) -> None:
    await reserve(ratelimit, "a")
    await reserve(ratelimit, "b")
    with pytest.raises(RateLimited) as caught:
        await reserve(ratelimit, "c")
    fault = caught.value
    assert fault.reason == "rate_limit_requests"
    assert "Limit 2, Used 2, Requested 1. Please try again in " in fault.message
    assert 0 < fault.retry_after_ms <= 30_000
    assert fault.headers["x-ratelimit-limit-tokens"] == "1000"
    assert len(fault.headers) == 6


async def test_what_never_fits_has_no_wait(ratelimit: RateLimitService) -> None:
    with pytest.raises(RateLimited) as caught:
        await reserve(ratelimit, "a", input_tokens=1001)
    assert (caught.value.reason, caught.value.retry_after_ms) == ("request_too_large", 0)


async def test_a_running_request_takes_more_as_it_grows(ratelimit: RateLimitService) -> None:
    await reserve(ratelimit, "a")
    assert (await ratelimit.top_up(TopUpRequest(request_id="a", tokens=110))).tokens == 110
    assert (await ratelimit.top_up(TopUpRequest(request_id="a", tokens=111))).tokens == 210
    assert (await ratelimit.top_up(TopUpRequest(request_id="never seen", tokens=111))).tokens == 0
    assert 0 < 1000 - (await reserve(ratelimit, "b")).reservation.tokens_state.remaining <= 320
    await ratelimit.settle(SettleRequest(request_id="a", tokens=0))


async def test_the_limits_in_force_are_described(ratelimit: RateLimitService) -> None:
    override = Override(
        scope=limits_pb2.SCOPE_PROJECT, model="small", dimension=limits_pb2.DIMENSION_TOKENS_PER_MINUTE, limit=7
    )
    described = await ratelimit.describe_limits(DescribeLimitsRequest(usage_tier=2, overrides=[override]))
    assert [(model.model, model.group) for model in described.models] == [
        (name, name) for name in ("dall-e", "large", "small")
    ]
    small = [(limit.scope, limit.dimension, limit.limit) for limit in described.models[-1].limits]
    assert small == [
        (limits_pb2.SCOPE_ORGANIZATION, limits_pb2.DIMENSION_REQUESTS_PER_MINUTE, 2),
        (limits_pb2.SCOPE_ORGANIZATION, limits_pb2.DIMENSION_TOKENS_PER_MINUTE, 1000),
        (limits_pb2.SCOPE_ORGANIZATION, limits_pb2.DIMENSION_BATCH_TOKENS_PER_DAY, 20_000_000),
        (limits_pb2.SCOPE_PROJECT, limits_pb2.DIMENSION_REQUESTS_PER_MINUTE, 2),
        (limits_pb2.SCOPE_PROJECT, limits_pb2.DIMENSION_TOKENS_PER_MINUTE, 7),
        (limits_pb2.SCOPE_PROJECT, limits_pb2.DIMENSION_BATCH_TOKENS_PER_DAY, 20_000_000),
    ]
