"""The limiter as a platform starts and stops it."""

from pathlib import Path

import pytest

from modelplane.ratelimit.v1.ratelimit_api import RateLimitService
from modelplane.ratelimit.v1.ratelimit_pb2 import ReserveRequest
from services.compose import Platform
from services.faults import RateLimited
from services.settings import Environment


def platform(home: Path) -> Platform:
    return Platform(["ratelimit"], Environment({"MODELPLANE_HOME": str(home), "MODELPLANE_RATELIMIT_PROJECT_RPM": "1"}))


async def test_a_limit_outlives_a_restart(tmp_path: Path) -> None:
    request = ReserveRequest(request_id="a", organization_id="org-1", project_id="proj_1", model="small")
    async with platform(tmp_path) as first:
        await first.local(RateLimitService).reserve(request)
    async with platform(tmp_path) as second:
        with pytest.raises(RateLimited):
            await second.local(RateLimitService).reserve(request)
