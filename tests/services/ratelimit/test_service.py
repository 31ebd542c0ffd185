"""The limiter in virtual time: what it says when it refuses, leases, and the snapshot."""

import asyncio
from pathlib import Path

import pytest

from modelplane.ratelimit.v1.ratelimit_pb2 import Reservation, ReserveRequest, SettleRequest
from services.faults import RateLimited
from services.ratelimit import service, snapshot
from services.ratelimit.limits import Expectations, Limits, ModelRates, Rates
from services.ratelimit.service import RateLimiter

SECOND_NS = 1_000_000_000
LEASE_NS = 900 * SECOND_NS
RATES = ModelRates(organization=Rates.per_minute(3, 10_000), project=Rates.per_minute(100, 6_000))


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now_ns = 1_700_000_000 * SECOND_NS

    def __call__(self) -> int:
        return self.now_ns

    def advance(self, seconds: float) -> None:
        self.now_ns += int(seconds * SECOND_NS)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make_limits() -> Limits:
    return Limits(lambda model: RATES, Expectations(200), LEASE_NS)


@pytest.fixture
def limits() -> Limits:
    return make_limits()


@pytest.fixture
def limiter(limits: Limits, clock: Clock) -> RateLimiter:
    return RateLimiter(limits, clock)


async def reserve(
    limiter: RateLimiter, request_id: str, input_tokens: int = 100, project: str = "proj_1", bound: int = 1000
) -> Reservation:
    request = ReserveRequest(
        request_id=request_id,
        organization_id="org-1",
        project_id=project,
        model="small",
        input_tokens=input_tokens,
        max_output_tokens=bound,
    )
    return (await limiter.reserve(request)).reservation


async def refusal(limiter: RateLimiter, request_id: str, input_tokens: int = 100, project: str = "p") -> RateLimited:
    with pytest.raises(RateLimited) as caught:
        await reserve(limiter, request_id, input_tokens, project)
    return caught.value


async def test_the_reservation_shows_the_tighter_buckets(limiter: RateLimiter) -> None:
    reservation = await reserve(limiter, "a")
    assert reservation.request_id == "a"
    assert reservation.tokens == 300
    requests, tokens = reservation.requests_state, reservation.tokens_state
    assert (requests.limit, requests.remaining, requests.reset_ms) == (3, 2, 20_000)
    assert (tokens.limit, tokens.remaining, tokens.reset_ms) == (6_000, 5_700, 3_000)


async def test_too_many_requests(limiter: RateLimiter, clock: Clock) -> None:
    for request_id in "abc":
        await reserve(limiter, request_id)
    clock.advance(0.5)
    fault = await refusal(limiter, "d")
    assert fault.reason == "rate_limit_requests"
    assert fault.message == (
        "Rate limit reached for small in organization org-1 on requests per min (RPM): "
        "Limit 3, Used 3, Requested 1. Please try again in 19.5s."
    )
    assert fault.retry_after_ms == 19_500
    assert fault.headers["x-ratelimit-remaining-requests"] == "0"
    assert fault.headers["x-ratelimit-reset-requests"] == "59.5s"
    assert len(fault.headers) == 6
    clock.advance(19.5)
    await reserve(limiter, "d")


async def test_too_many_tokens(limiter: RateLimiter, clock: Clock) -> None:
    await reserve(limiter, "a", input_tokens=5_000)
    fault = await refusal(limiter, "b", input_tokens=3_000, project="proj_1")
    assert fault.reason == "rate_limit_tokens"
    assert fault.message == (
        "Rate limit reached for small in project proj_1 on tokens per min (TPM): "
        "Limit 6000, Used 5200, Requested 3200. Please try again in 24s."
    )
    assert fault.headers["x-ratelimit-remaining-tokens"] == "800"
    clock.advance(24)
    await reserve(limiter, "b", input_tokens=3_000)


async def test_a_prompt_over_the_limit_is_not_told_to_come_back(limiter: RateLimiter) -> None:
    fault = await refusal(limiter, "a", input_tokens=6_001, project="proj_1")
    assert fault.reason == "request_too_large"
    assert fault.message == (
        "Request too large for small in project proj_1 on tokens per min (TPM): Limit 6000, Requested 6001. "
        "The input or output tokens must be reduced in order to run successfully."
    )
    assert fault.retry_after_ms == 0
    assert not fault.rule.retryable
    assert fault.headers["x-ratelimit-remaining-requests"] == "3"


async def test_a_prompt_just_at_the_limit_is_admitted(limiter: RateLimiter) -> None:
    assert (await reserve(limiter, "a", input_tokens=6_000)).tokens == 6_000


async def test_settling_returns_what_was_not_used(limiter: RateLimiter) -> None:
    await reserve(limiter, "a", input_tokens=100)
    await limiter.settle(SettleRequest(request_id="a", tokens=120))
    reservation = await reserve(limiter, "b", input_tokens=0, bound=0)
    assert reservation.tokens_state.remaining == 5_880
    assert reservation.requests_state.remaining == 1


async def test_a_request_that_used_nothing_does_not_count(limiter: RateLimiter) -> None:
    for attempt in range(10):
        await reserve(limiter, f"{attempt}")
        await limiter.settle(SettleRequest(request_id=f"{attempt}", tokens=0))


async def test_estimates_learn_so_that_large_bounds_are_not_refused(limiter: RateLimiter, clock: Clock) -> None:
    tokens = 0
    for attempt in range(40):
        tokens = (await reserve(limiter, f"{attempt}", input_tokens=100, bound=100_000)).tokens
        await limiter.settle(SettleRequest(request_id=f"{attempt}", tokens=110))
        clock.advance(60)
    assert tokens - 100 <= 12


async def test_a_lease_that_ends_keeps_its_estimate_charged(limiter: RateLimiter, clock: Clock) -> None:
    await reserve(limiter, "a", input_tokens=5_800)
    clock.advance(899)
    await reserve(limiter, "b", input_tokens=5_800)
    clock.advance(1)
    await limiter.settle(SettleRequest(request_id="a", tokens=0))
    assert (await reserve(limiter, "c", 0, bound=0)).tokens_state.remaining == 100
    clock.advance(899)
    await reserve(limiter, "d", input_tokens=5_800)
    await limiter.settle(SettleRequest(request_id="b", tokens=0))
    assert (await reserve(limiter, "e", 0, bound=0)).tokens_state.remaining == 0


async def test_memory_is_bounded(limiter: RateLimiter, limits: Limits, clock: Clock) -> None:
    for tenant in range(100):
        await reserve(limiter, f"{tenant}", project=f"proj_{tenant}")
        clock.advance(20)
    clock.advance(900)
    assert limits.sweep(clock()) == 0


async def test_a_restart_hands_out_no_fresh_burst(
    limiter: RateLimiter, limits: Limits, clock: Clock, tmp_path: Path
) -> None:
    path = tmp_path / "home" / "ratelimit.snapshot"
    for request_id in "abc":
        await reserve(limiter, request_id)
    await service.save(limits, path, clock)
    clock.advance(5)
    again = make_limits()
    await service.restore(again, path, clock)
    assert (await refusal(RateLimiter(again, clock), "d")).retry_after_ms == 15_000
    assert [file.name for file in path.parent.iterdir()] == ["ratelimit.snapshot"]


async def test_a_wall_clock_set_back_counts_as_no_time(limiter: RateLimiter, limits: Limits, clock: Clock) -> None:
    await reserve(limiter, "a", input_tokens=5_800)
    saved = snapshot.capture(limits, clock())
    clock.advance(-3_600)
    again = make_limits()
    snapshot.restore(saved, again, clock())
    assert list(again.states(clock())) == saved.accounts


@pytest.mark.parametrize("content", [b"", b"{", b'{"taken_ns": 1}', b"\xff"])
async def test_a_broken_snapshot_stops_nothing(clock: Clock, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ratelimit.snapshot"
    path.write_bytes(content)
    limits = make_limits()
    await service.restore(limits, path, clock)
    assert not list(limits.states(clock()))


async def test_the_snapshot_is_written_while_running_and_at_the_end(
    limiter: RateLimiter, limits: Limits, clock: Clock, tmp_path: Path
) -> None:
    path = tmp_path / "ratelimit.snapshot"
    stopping = asyncio.Event()
    keeper = asyncio.create_task(service.keep(limits, path, clock, 0.001, stopping))
    async with asyncio.timeout(5):
        while not path.exists():
            await asyncio.sleep(0.001)
    await reserve(limiter, "a")
    stopping.set()
    await keeper
    saved = snapshot.load(path)
    assert saved is not None and [state.owner.id for state in saved.accounts] == ["org-1", "proj_1"]


async def test_a_folder_that_cannot_be_written_stops_nothing(limits: Limits, clock: Clock, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    await service.save(limits, tmp_path / "file" / "ratelimit.snapshot", clock)
