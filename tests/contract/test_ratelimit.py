"""RateLimitService, over both wirings."""

import pytest

from modelplane.ratelimit.v1.ratelimit_api import RateLimitService
from modelplane.ratelimit.v1.ratelimit_pb2 import ReserveRequest, ReserveResponse, SettleRequest
from services.faults import RateLimited
from services.ratelimit.limits import Expectations, Limits, ModelRates, Rates
from services.ratelimit.service import RateLimiter, steady_clock
from tests.contract.conftest import Wire


@pytest.fixture
async def ratelimit(wire: Wire) -> RateLimitService:
    rates = ModelRates(organization=Rates.per_minute(2, 1000), project=Rates.per_minute(2, 1000))
    limits = Limits(lambda model: rates, Expectations(100), 900_000_000_000)
    return await wire(RateLimitService, RateLimiter(limits, steady_clock()))


async def reserve(ratelimit: RateLimitService, request_id: str, input_tokens: int = 10) -> ReserveResponse:
    return await ratelimit.reserve(
        ReserveRequest(
            request_id=request_id,
            organization_id="org-1",
            project_id="proj_1",
            model="small",
            input_tokens=input_tokens,
            max_output_tokens=500,
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
