"""The limiter as a platform starts and stops it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.valkey import ValkeyServer
from modelplane.limits.v1.limits_pb2 import SCOPE_PROJECT
from modelplane.ratelimit.v1.ratelimit_api import RateLimitService
from modelplane.ratelimit.v1.ratelimit_pb2 import DescribeLimitsRequest, ReserveRequest
from services.compose import Platform
from services.faults import RateLimited
from services.ratelimit.limits import RPM
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


async def test_limits_follow_the_catalogue(tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    (models / "limits.toml").write_text('[[limits]]\nmodel = "small"\nproject_rpm = 7\n')
    variables = {"HOME": str(tmp_path), "CONFIG": str(models), "CONFIG_POLL_S": "0.02"}
    environment = Environment({f"MODELPLANE_{name}": value for name, value in variables.items()})

    async with Platform(["ratelimit"], environment) as running:
        limiter = running.local(RateLimitService)

        async def limits() -> dict[str, int]:
            described = await limiter.describe_limits(DescribeLimitsRequest(usage_tier=1))
            return {
                model.model: limit.limit
                for model in described.models
                for limit in model.limits
                if (limit.scope, limit.dimension) == (SCOPE_PROJECT, RPM)
            }

        async def until(expected: dict[str, int]) -> None:
            async with asyncio.timeout(30):
                while await limits() != expected:
                    await asyncio.sleep(0.01)

        assert await limits() == {}
        (models / "small.toml").write_text('[[models]]\nname = "small"\nengine = "scripted"\n')
        await until({"small": 7})
        (models / "limits.toml").write_text('[[limits]]\nmodel = "small"\nproject_rpm = 8\n')
        await until({"small": 8})
        # Limits that cannot be used are not: the ones before hold.
        (models / "limits.toml").write_text('[[limits]]\nmodel = "small"\nproject_rpm = -1\n')
        (models / "other.toml").write_text('[[models]]\nname = "other"\nengine = "scripted"\n')
        await until({"other": 500, "small": 8})


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
