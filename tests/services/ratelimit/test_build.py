"""The limiter as a platform starts and stops it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.valkey import ValkeyServer
from modelplane.ratelimit.v1.ratelimit_api import RateLimitService
from modelplane.ratelimit.v1.ratelimit_pb2 import DescribeLimitsRequest, ReserveRequest
from services.compose import Platform
from services.faults import RateLimited
from services.settings import Environment


def platform(home: Path, valkey_url: str = "") -> Platform:
    variables = {"HOME": str(home), "RATELIMIT_PROJECT_RPM": "1", "VALKEY_URL": valkey_url}
    return Platform(["ratelimit"], Environment({f"MODELPLANE_{name}": value for name, value in variables.items()}))


async def test_a_limit_outlives_a_restart_and_an_unused_reservation_does_not(tmp_path: Path) -> None:
    request = ReserveRequest(
        request_id="a", organization_id="org-1", project_id="proj_1", model="small", max_output_tokens=1000, key_id="k"
    )
    async with platform(tmp_path) as first:
        reservation = (await first.local(RateLimitService).reserve(request)).reservation
        assert reservation.tokens == 256
    async with platform(tmp_path) as second:
        with pytest.raises(RateLimited, match="requests per min") as caught:
            await second.local(RateLimitService).reserve(request)
        assert caught.value.headers["x-ratelimit-remaining-tokens"] == "40000"
        described = await second.local(RateLimitService).describe_limits(DescribeLimitsRequest(usage_tier=3))
        assert [model.model for model in described.models] == ["smollm2-135m-instruct"]


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    server = ValkeyServer(tmp_path)
    try:
        server.start()
        yield server
    finally:
        server.kill()


async def test_two_gateways_share_a_limit_that_lives_in_valkey(tmp_path: Path, valkey: ValkeyServer) -> None:
    def request(request_id: str) -> ReserveRequest:
        return ReserveRequest(request_id=request_id, organization_id="org-1", project_id="proj_1", model="small")

    async with platform(tmp_path / "a", valkey.url) as one, platform(tmp_path / "b", valkey.url) as other:
        await one.local(RateLimitService).reserve(request("a"))
        again = (await one.local(RateLimitService).reserve(request("a"))).reservation
        assert again.requests_state.remaining == 0
        with pytest.raises(RateLimited, match="in project proj_1 on requests per min"):
            await other.local(RateLimitService).reserve(request("b"))
