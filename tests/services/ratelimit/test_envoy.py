"""Envoy's rate limit protocol: descriptors in virtual time, and a real Envoy that counts by them."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from envoy.extensions.common.ratelimit.v3.ratelimit_pb2 import RateLimitDescriptor
from envoy.service.ratelimit.v3.rls_pb2 import RateLimitRequest, RateLimitResponse

from services.ratelimit.service import RateLimiter, steady_clock
from tests.fakes.envoys import asked, cluster, offered, proxied
from tests.services.ratelimit.limiters import LEASE_NS, Clock, Limiter, make_book, table

PROTOCOL = "envoy.service.ratelimit.v3.rls_pb2:RateLimitService"
OK, OVER_LIMIT = RateLimitResponse.OK, RateLimitResponse.OVER_LIMIT
TABLE = table(
    "small",
    organization_rpm=3,
    organization_rpd=1000,
    organization_tpm=100,
    organization_tpd="unlimited",
    project_rpm=2,
)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limiter(clock: Clock) -> Limiter:
    return Limiter(clock, TABLE)


def described(*hits: int, **entries: str) -> Any:
    """With its own number of hits, or that of its call."""
    descriptor = RateLimitDescriptor(
        entries=[RateLimitDescriptor.Entry(key=key, value=value) for key, value in entries.items()]
    )
    for own in hits:
        descriptor.hits_addend.value = own
    return descriptor


def calling(*descriptors: Any, hits: int = 0, domain: str = "modelplane") -> Any:
    return RateLimitRequest(domain=domain, descriptors=descriptors, hits_addend=hits)


def headers(response: Any) -> dict[str, str]:
    return {header.key: header.value for header in response.response_headers_to_add}


SMALL = {"organization": "org-1", "model": "small"}


async def test_requests_are_counted_where_the_gateway_counts_them(limiter: Limiter, clock: Clock) -> None:
    one = calling(described(**SMALL))
    for left in (2, 1, 0):
        response = await limiter.should_rate_limit(one)
        assert response.overall_code == OK
        status = response.statuses[0]
        assert (status.current_limit.name, status.current_limit.requests_per_unit) == ("rpm", 3)
        assert status.current_limit.unit == RateLimitResponse.RateLimit.MINUTE
        assert status.limit_remaining == left
        assert headers(response)["x-ratelimit-remaining-requests"] == str(left)

    refused = await limiter.should_rate_limit(one)
    assert refused.overall_code == refused.statuses[0].code == OVER_LIMIT
    assert headers(refused) | {"x-ratelimit-reset-requests": ""} == {
        "content-type": "application/json",
        "x-ratelimit-limit-requests": "3",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "",
        "retry-after": "20",
        "retry-after-ms": "20000",
    }
    error = json.loads(refused.raw_body)["error"]
    assert (error["type"], error["code"]) == ("requests", "rate_limit_exceeded")
    assert "small in organization org-1 on requests per min (RPM): Limit 3" in error["message"]

    clock.advance(20)
    assert (await limiter.should_rate_limit(one)).overall_code == OK


async def test_by_its_other_name_it_is_the_same_model(limiter: Limiter) -> None:
    await limiter.should_rate_limit(calling(described(organization="org-1", model="tiny"), hits=3))
    assert (await limiter.should_rate_limit(calling(described(**SMALL)))).overall_code == OVER_LIMIT


async def test_a_project_has_its_own_limit_within_its_organizations(limiter: Limiter) -> None:
    mine, other = (calling(described(**SMALL, project=name)) for name in ("proj_1", "proj_2"))
    for _ in range(2):
        assert (await limiter.should_rate_limit(mine)).overall_code == OK
    assert (await limiter.should_rate_limit(mine)).overall_code == OVER_LIMIT
    assert (await limiter.should_rate_limit(other)).overall_code == OK
    assert (await limiter.should_rate_limit(other)).overall_code == OVER_LIMIT


async def test_the_usage_tier_gives_the_limits_of_a_model_without_a_table(limiter: Limiter) -> None:
    entries = {"organization": "org-1", "model": "large"}
    free = await limiter.should_rate_limit(calling(described(**entries)))
    third = await limiter.should_rate_limit(calling(described(**entries, usage_tier="3")))
    assert free.statuses[0].current_limit.requests_per_unit == 3
    assert third.statuses[0].current_limit.requests_per_unit == 5000


async def test_tokens_are_counted_as_hits(limiter: Limiter) -> None:
    tokens = described(**SMALL, unit="tokens")
    assert (await limiter.should_rate_limit(calling(tokens, hits=90))).statuses[0].limit_remaining == 10
    refused = await limiter.should_rate_limit(calling(tokens, hits=20))
    assert refused.overall_code == OVER_LIMIT
    assert headers(refused)["x-ratelimit-remaining-tokens"] == "10"
    too_large = await limiter.should_rate_limit(calling(tokens, hits=101))
    assert headers(too_large)["x-should-retry"] == "false"


async def test_tokens_that_were_used_are_counted_whatever_is_left(limiter: Limiter, clock: Clock) -> None:
    look = calling(described(0, **SMALL, unit="tokens"))
    assert (await limiter.should_rate_limit(look)).overall_code == OK
    used = calling(described(160, **SMALL, unit="tokens_used"))
    assert (await limiter.should_rate_limit(used)).overall_code == OK

    assert (await limiter.should_rate_limit(look)).overall_code == OVER_LIMIT
    clock.advance(37)
    assert (await limiter.should_rate_limit(look)).overall_code == OK


async def test_to_look_takes_nothing(limiter: Limiter) -> None:
    for _ in range(5):
        assert (await limiter.should_rate_limit(calling(described(0, **SMALL)))).overall_code == OK


async def test_descriptors_are_taken_all_or_none(limiter: Limiter) -> None:
    both = calling(described(**SMALL), described(500, **SMALL, unit="tokens"), described(**SMALL))
    for _ in range(4):
        response = await limiter.should_rate_limit(both)
        assert response.overall_code == OVER_LIMIT
        assert [status.code for status in response.statuses] == [OK, OVER_LIMIT, OK]
    assert (await limiter.should_rate_limit(calling(described(**SMALL), hits=3))).overall_code == OK


@pytest.mark.parametrize(
    "request_",
    [
        calling(described(**SMALL), domain="envoy", hits=1000),
        calling(hits=1000),
        calling(described(generic_key="slow"), hits=1000),
        calling(described(organization="org-1"), hits=1000),
        calling(described(model="small"), hits=1000),
        calling(described(**SMALL, unit="pages"), hits=1000),
        calling(described(**SMALL, usage_tier="gold"), hits=1000),
        calling(described(**SMALL, limits="%%%"), hits=1000),
    ],
)
async def test_what_nobody_has_limits_for_passes(limiter: Limiter, request_: Any) -> None:
    response = await limiter.should_rate_limit(request_)
    assert response.overall_code == OK
    assert len(response.statuses) == len(request_.descriptors)
    assert not any(status.HasField("current_limit") for status in response.statuses)


async def test_a_model_without_limits_has_nothing_to_say(clock: Clock) -> None:
    free = {f"{scope}_{word}": "unlimited" for scope in ("organization", "project") for word in ("rpm", "rpd", "tpm")}
    limiter = Limiter(clock, table("small", **free))
    for unit in ("requests", "tokens"):
        response = await limiter.should_rate_limit(calling(described(**SMALL, unit=unit), hits=10_000))
        assert response.overall_code == OK
        assert not response.statuses[0].HasField("current_limit")


ROUTE = {
    "route": {
        "cluster": "upstream",
        "rate_limits": [
            {
                "actions": [
                    {"request_headers": {"header_name": "x-organization", "descriptor_key": "organization"}},
                    {"generic_key": {"descriptor_key": "model", "descriptor_value": "small"}},
                ]
            }
        ],
    }
}


def limited(*, deny: bool) -> dict[str, Any]:
    return {
        "name": "envoy.filters.http.ratelimit",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit",
            "domain": "modelplane",
            "failure_mode_deny": deny,
            "timeout": "30s",
            "rate_limit_service": {"transport_api_version": "V3", "grpc_service": asked("ratelimit")},
        },
    }


@asynccontextmanager
async def edge(folder: Path, address: str, *, deny: bool) -> AsyncIterator[httpx.AsyncClient]:
    clusters = [cluster("ratelimit", int(address.rpartition(":")[2]), grpc=True)]
    async with (
        proxied(folder, ROUTE, [limited(deny=deny)], clusters) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        yield client


@pytest.mark.parametrize(("deny", "without"), [(False, 200), (True, 500)])
async def test_a_real_envoy(tmp_path: Path, deny: bool, without: int) -> None:
    clock = steady_clock()
    limits = Limiter(Clock(), TABLE)
    limiter = RateLimiter(type(limits.buckets)(clock), make_book(TABLE), limits.expectations, clock, LEASE_NS)
    async with offered(limiter, PROTOCOL) as server, edge(tmp_path, server.address, deny=deny) as client:
        me = {"x-organization": "org-1"}
        for left in ("2", "1", "0"):
            passed = await client.get("/", headers=me)
            assert passed.status_code == 200
            assert passed.headers["x-ratelimit-remaining-requests"] == left

        refused = await client.get("/", headers=me)
        assert refused.status_code == 429
        assert refused.headers["content-type"] == "application/json"
        assert 18 <= int(refused.headers["retry-after"]) <= 20
        assert refused.headers["x-ratelimit-limit-requests"] == "3"
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"

        assert (await client.get("/", headers={"x-organization": "org-2"})).status_code == 200
        # Without its header there is no descriptor, and nobody is asked.
        assert "x-ratelimit-limit-requests" not in (await client.get("/")).headers

        await server.stop(0)
        assert (await client.get("/", headers=me)).status_code == without
