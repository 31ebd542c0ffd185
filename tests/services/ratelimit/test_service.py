"""The limiter in virtual time: what it says when it refuses, top-ups, leases, and the snapshot."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from modelplane.limits.v1 import limits_pb2
from modelplane.limits.v1.limits_pb2 import Override
from modelplane.ratelimit.v1.ratelimit_pb2 import (
    DescribeLimitsRequest,
    Reservation,
    ReserveRequest,
    SettleRequest,
    TopUpRequest,
)
from services.faults import RateLimited
from services.ratelimit.buckets import MemoryBuckets, Need, Short, Taken
from services.ratelimit.expectations import Expectations
from services.ratelimit.gcra import Claim
from services.ratelimit.limits import TPM
from services.ratelimit.service import Keeper, RateLimiter
from services.ratelimit.settings import LimitGroup, LimitsTable
from tests.services.ratelimit.limiters import CATALOG, LEASE_NS, SECOND_NS, Clock, Limiter, make_book, table

UNLIMITED = {
    f"{scope}_{word}": "unlimited" for scope in ("organization", "project") for word in ("rpd", "tpd", "batch_tpd")
}
TABLE = table("small", organization_rpm=3, organization_tpm=10_000, project_rpm=100, project_tpm=6_000, **UNLIMITED)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limiter(clock: Clock) -> Limiter:
    return Limiter(clock, TABLE)


def asking(request_id: str, input_tokens: int = 100, project: str = "proj_1", bound: int = 1000) -> ReserveRequest:
    return ReserveRequest(
        request_id=request_id,
        organization_id="org-1",
        project_id=project,
        model="small",
        input_tokens=input_tokens,
        max_output_tokens=bound,
        key_id="key_1",
    )


def asking_for(request_id: str, measures: dict[str, int]) -> ReserveRequest:
    request = ReserveRequest(
        request_id=request_id, organization_id="org-1", project_id="proj_1", model="small", usage_tier=5
    )
    for name, value in measures.items():
        setattr(request, name, value)
    return request


async def reserve(
    limiter: Limiter, request_id: str, input_tokens: int = 100, project: str = "proj_1", bound: int = 1000
) -> Reservation:
    return (await limiter.reserve(asking(request_id, input_tokens, project, bound))).reservation


async def refusal(limiter: Limiter, request: ReserveRequest) -> RateLimited:
    with pytest.raises(RateLimited) as caught:
        await limiter.reserve(request)
    return caught.value


async def remaining_tokens(limiter: Limiter) -> int:
    """What is left of the tightest of the token limits."""
    remaining = (await reserve(limiter, "to look", 1, bound=0)).tokens_state.remaining + 1
    await limiter.settle(SettleRequest(request_id="to look", tokens=0))
    return remaining


async def test_the_reservation_shows_the_tighter_buckets(limiter: Limiter) -> None:
    reservation = await reserve(limiter, "a")
    assert reservation.request_id == "a"
    assert reservation.tokens == 300
    requests, tokens = reservation.requests_state, reservation.tokens_state
    assert (requests.limit, requests.remaining, requests.reset_ms) == (3, 2, 20_000)
    assert (tokens.limit, tokens.remaining, tokens.reset_ms) == (6_000, 5_700, 3_000)


async def test_too_many_requests(limiter: Limiter, clock: Clock) -> None:
    for request_id in "abc":
        await reserve(limiter, request_id)
    clock.advance(0.5)
    fault = await refusal(limiter, asking("d"))
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


async def test_too_many_tokens(limiter: Limiter, clock: Clock) -> None:
    await reserve(limiter, "a", input_tokens=5_000)
    fault = await refusal(limiter, asking("b", input_tokens=3_000))
    assert fault.reason == "rate_limit_tokens"
    assert fault.message == (
        "Rate limit reached for small in project proj_1 on tokens per min (TPM): "
        "Limit 6000, Used 5200, Requested 3200. Please try again in 24s."
    )
    assert fault.headers["x-ratelimit-remaining-tokens"] == "800"
    clock.advance(24)
    await reserve(limiter, "b", input_tokens=3_000)


async def test_less_than_a_millisecond_is_a_millisecond(limiter: Limiter, clock: Clock) -> None:
    for request_id in "abc":
        await reserve(limiter, request_id)
    clock.now_ns += 20 * SECOND_NS - 1
    fault = await refusal(limiter, asking("d"))
    assert fault.retry_after_ms == 1
    assert fault.message.endswith("Please try again in 1ms.")


DIMENSIONS = [
    ("rpd", {}, "rate_limit_requests", "requests per day (RPD): Limit 1, Used 1, Requested 1.", "24h0m0s"),
    ("tpd", {"input_tokens": 1}, "rate_limit_tokens", "tokens per day (TPD): Limit 1, Used 1, Requested 1.", "24h0m0s"),
    ("ipm", {"images": 1}, "rate_limit_images", "images per min (IPM): Limit 1, Used 1, Requested 1.", "1m0s"),
    (
        "audio_mbpm",
        {"audio_bytes": 750_000},
        "rate_limit_audio",
        "audio megabytes per min: Limit 1, Used 0.75, Requested 0.75.",
        "30s",
    ),
    (
        "batch_tpd",
        {"batch_tokens": 1},
        "rate_limit_batch_tokens",
        "batch input tokens per day: Limit 1, Used 1, Requested 1.",
        "24h0m0s",
    ),
]


@pytest.mark.parametrize("scope", ["organization", "project"])
@pytest.mark.parametrize(("word", "measures", "reason", "words", "wait"), DIMENSIONS)
async def test_every_dimension_is_refused_in_its_own_words(
    clock: Clock, scope: str, word: str, measures: dict[str, int], reason: str, words: str, wait: str
) -> None:
    limiter = Limiter(clock, table("small", **{f"{scope}_{word}": 1}))
    await limiter.reserve(asking_for("a", measures))
    fault = await refusal(limiter, asking_for("b", measures))
    assert fault.reason == reason
    owner = {"organization": "org-1", "project": "proj_1"}[scope]
    assert fault.message == (f"Rate limit reached for small in {scope} {owner} on {words} Please try again in {wait}.")
    assert fault.rule.retryable


@pytest.mark.parametrize(
    ("word", "measures", "words"),
    [
        ("tpd", {"input_tokens": 11}, "tokens per day (TPD): Limit 10, Requested 11. The input or output tokens must"),
        ("ipm", {"images": 11}, "images per min (IPM): Limit 10, Requested 11. The number of images must"),
        ("audio_mbpm", {"audio_bytes": 10_500_000}, "audio megabytes per min: Limit 10, Requested 10.5. The audio"),
        ("batch_tpd", {"batch_tokens": 11}, "batch input tokens per day: Limit 10, Requested 11. The batch must"),
    ],
)
async def test_what_can_never_fit_is_told_what_to_reduce(
    clock: Clock, word: str, measures: dict[str, int], words: str
) -> None:
    limiter = Limiter(clock, table("small", **{f"organization_{word}": 10}))
    fault = await refusal(limiter, asking_for("a", measures))
    assert fault.reason == "request_too_large"
    assert fault.message.startswith(f"Request too large for small in organization org-1 on {words}")
    assert (fault.retry_after_ms, fault.rule.retryable) == (0, False)


async def test_a_prompt_over_the_limit_is_not_told_to_come_back(limiter: Limiter) -> None:
    fault = await refusal(limiter, asking("a", input_tokens=6_001))
    assert fault.reason == "request_too_large"
    assert fault.message == (
        "Request too large for small in project proj_1 on tokens per min (TPM): Limit 6000, Requested 6001. "
        "The input or output tokens must be reduced in order to run successfully."
    )
    assert fault.retry_after_ms == 0
    assert not fault.rule.retryable
    assert fault.headers["x-ratelimit-remaining-requests"] == "3"


async def test_a_prompt_just_at_the_limit_is_admitted(limiter: Limiter) -> None:
    assert (await reserve(limiter, "a", input_tokens=6_000)).tokens == 6_000


async def test_a_limit_of_nothing_lets_nothing_through(limiter: Limiter) -> None:
    request = asking("a")
    request.overrides.add(
        scope=limits_pb2.SCOPE_PROJECT, model="small", dimension=limits_pb2.DIMENSION_REQUESTS_PER_MINUTE, limit=0
    )
    fault = await refusal(limiter, request)
    assert (fault.reason, fault.retry_after_ms) == ("request_too_large", 0)
    assert fault.message == (
        "Request too large for small in project proj_1 on requests per min (RPM): Limit 0, Requested 1."
    )


async def test_an_override_holds_from_the_next_request_on(limiter: Limiter) -> None:
    await reserve(limiter, "a")
    request = asking("b")
    request.overrides.add(
        scope=limits_pb2.SCOPE_ORGANIZATION, model="small", dimension=limits_pb2.DIMENSION_REQUESTS_PER_MINUTE, limit=6
    )
    state = (await limiter.reserve(request)).reservation.requests_state
    # A third of the bucket was used up, and still is; then one more of the six.
    assert (state.limit, state.remaining) == (6, 3)


async def test_models_of_a_group_share_their_buckets(clock: Clock) -> None:
    limiter = Limiter(
        clock,
        LimitsTable(group="chat", organization_rpm=2),
        groups=(LimitGroup(name="chat", models=("tiny", "large")),),
    )
    states = []
    for model in ("small", "large", "tiny", "dall-e"):
        request = ReserveRequest(
            request_id=model, organization_id="o", project_id="p", model=model, input_tokens=1, usage_tier=1
        )
        if model == "tiny":
            assert (await refusal(limiter, request)).message.startswith("Rate limit reached for tiny in organization o")
        else:
            states.append((await limiter.reserve(request)).reservation.requests_state)
    assert [(state.limit, state.remaining) for state in states] == [(2, 1), (2, 0), (500, 499)]


async def test_settling_returns_what_was_not_used(limiter: Limiter) -> None:
    await reserve(limiter, "a", input_tokens=100)
    await limiter.settle(SettleRequest(request_id="a", tokens=120))
    reservation = await reserve(limiter, "b", input_tokens=10, bound=0)
    assert reservation.tokens_state.remaining == 5_870
    assert reservation.requests_state.remaining == 1


async def test_a_request_that_used_nothing_does_not_count(limiter: Limiter) -> None:
    for attempt in range(10):
        await reserve(limiter, f"{attempt}")
        await limiter.top_up(TopUpRequest(request_id=f"{attempt}", tokens=500))
        await limiter.settle(SettleRequest(request_id=f"{attempt}", tokens=0))
    assert await remaining_tokens(limiter) == 6_000


async def test_images_that_were_made_count_and_others_do_not(clock: Clock) -> None:
    limiter = Limiter(clock, LimitsTable(model="small", organization_ipm=4))
    request = asking("a")
    request.images = 3
    await limiter.reserve(request)
    await limiter.settle(SettleRequest(request_id="a", tokens=0))
    request.request_id = "b"
    await limiter.reserve(request)
    await limiter.settle(SettleRequest(request_id="b", tokens=5))
    request.request_id = "c"
    assert (await refusal(limiter, request)).reason == "rate_limit_images"


async def test_tokens_that_nobody_expected_are_charged_when_they_are_told(clock: Clock) -> None:
    limiter = Limiter(clock, TABLE)
    assert (await reserve(limiter, "a", input_tokens=0, bound=0)).tokens == 0
    await limiter.settle(SettleRequest(request_id="a", tokens=1_000))
    assert await remaining_tokens(limiter) == 5_000


async def test_what_is_not_limited_has_no_state(clock: Clock) -> None:
    limiter = Limiter(clock, LimitsTable(model="small", organization_tpm="unlimited", organization_rpd="unlimited"))
    reservation = await reserve(limiter, "a", input_tokens=10**9)
    assert not reservation.tokens_state.limit
    assert reservation.requests_state.limit == 3
    await limiter.top_up(TopUpRequest(request_id="a", tokens=10**10))
    await limiter.settle(SettleRequest(request_id="a", tokens=10**10))
    assert [key.dimension for key, _ in limiter.buckets.states()] == [limits_pb2.DIMENSION_REQUESTS_PER_MINUTE]


async def test_estimates_learn_so_that_large_bounds_are_not_refused(limiter: Limiter, clock: Clock) -> None:
    tokens = 0
    for attempt in range(40):
        tokens = (await reserve(limiter, f"{attempt}", input_tokens=100, bound=100_000)).tokens
        await limiter.settle(SettleRequest(request_id=f"{attempt}", tokens=110))
        clock.advance(60)
    assert tokens - 100 <= 12
    other = asking("other")
    other.key_id = "key_2"
    assert (await limiter.reserve(other)).reservation.tokens == 300


async def test_a_stream_that_grows_takes_its_next_step_before_it_has_used_it(limiter: Limiter) -> None:
    assert (await reserve(limiter, "a", bound=1_000)).tokens == 300
    steps = [
        (await limiter.top_up(TopUpRequest(request_id="a", tokens=tokens))).tokens
        for tokens in (300, 301, 480, 501, 901, 1_100, 1_200)
    ]
    # Its output doubles until it is all that the request may have; what it uses beyond counts as well.
    assert steps == [300, 500, 500, 900, 1_100, 1_100, 1_200]
    await limiter.settle(SettleRequest(request_id="a", tokens=1_150))
    assert await remaining_tokens(limiter) == 4_850
    assert (await limiter.top_up(TopUpRequest(request_id="a", tokens=5_000))).tokens == 0
    assert await remaining_tokens(limiter) == 4_850


async def test_what_has_refilled_since_it_was_taken_is_not_charged_again(limiter: Limiter, clock: Clock) -> None:
    await reserve(limiter, "a", bound=1_000)
    assert (await limiter.top_up(TopUpRequest(request_id="a", tokens=301))).tokens == 500
    clock.advance(600)
    await limiter.settle(SettleRequest(request_id="a", tokens=500))
    assert await remaining_tokens(limiter) == 6_000


async def test_a_step_leaves_a_debt_rather_than_stop_the_request(limiter: Limiter) -> None:
    await reserve(limiter, "a", input_tokens=5_900, bound=4_000)
    assert (await limiter.top_up(TopUpRequest(request_id="a", tokens=6_001))).tokens == 6_200
    fault = await refusal(limiter, asking("b", input_tokens=1, bound=0))
    assert (fault.reason, fault.headers["x-ratelimit-remaining-tokens"]) == ("rate_limit_tokens", "0")
    assert fault.retry_after_ms == 2_010


async def test_a_lease_that_ends_gives_back_what_is_not_known_to_be_used(clock: Clock) -> None:
    table = LimitsTable(model="small", organization_rpm=100, organization_rpd=1_000, organization_tpd=10_000)
    limiter = Limiter(clock, table, guess=4_000)
    await reserve(limiter, "silent", input_tokens=1_000, bound=4_000)
    await reserve(limiter, "telling", input_tokens=1_000, bound=4_000)
    clock.advance(600)
    await limiter.top_up(TopUpRequest(request_id="telling", tokens=3_000))
    clock.advance(300)
    assert await limiter.sweep() == 1
    # A prompt and a whole estimate of 5,000, less what fifteen minutes of a day have brought back.
    assert 10_000 - await remaining_tokens(limiter) == 1_000 + 5_000 - 104
    await limiter.settle(SettleRequest(request_id="silent", tokens=5_000))
    clock.advance(600)
    await limiter.sweep()
    assert 10_000 - await remaining_tokens(limiter) == 1_000 + 3_000 - 173


async def test_memory_is_bounded(limiter: Limiter, clock: Clock) -> None:
    for tenant in range(100):
        await reserve(limiter, f"{tenant}", project=f"proj_{tenant}")
        clock.advance(20)
    clock.advance(900)
    assert await limiter.sweep() == 0
    assert limiter.buckets.sweep() == 0


class FarBuckets(MemoryBuckets):
    """Buckets whose answers take their time."""

    async def take(self, needs: Sequence[Need], /) -> Taken | Short:
        decision = await super().take(needs)
        await asyncio.sleep(0)
        return decision

    async def extend(self, needs: Sequence[Need], /) -> tuple[Claim, ...]:
        claims = await super().extend(needs)
        await asyncio.sleep(0)
        return claims


async def test_the_same_request_twice_at_once_is_taken_once(clock: Clock) -> None:
    buckets = FarBuckets(clock)
    limiter = RateLimiter(buckets, make_book(TABLE), Expectations(200), clock, LEASE_NS)
    first, second = await asyncio.gather(limiter.reserve(asking("a")), limiter.reserve(asking("a")))
    assert first.reservation.tokens == second.reservation.tokens == 300
    assert second.reservation.requests_state.remaining == 2
    await limiter.settle(SettleRequest(request_id="a", tokens=0))
    assert not list(buckets.states())


async def test_a_step_that_comes_after_the_settlement_is_given_back(clock: Clock) -> None:
    buckets = FarBuckets(clock)
    limiter = RateLimiter(buckets, make_book(TABLE), Expectations(200), clock, LEASE_NS)
    await limiter.reserve(asking("a"))
    await asyncio.gather(
        limiter.top_up(TopUpRequest(request_id="a", tokens=301)),
        limiter.settle(SettleRequest(request_id="a", tokens=310)),
    )
    await limiter.reserve(asking("b", input_tokens=1, bound=0))
    assert {key.scope: until_full_ns for key, until_full_ns in buckets.states() if key.dimension == TPM} == {
        "organization": 311 * 6_000_000,
        "project": 311 * 10_000_000,
    }


async def test_limits_are_described_for_every_model(limiter: Limiter) -> None:
    override = Override(
        scope=limits_pb2.SCOPE_PROJECT, model="large", dimension=limits_pb2.DIMENSION_REQUESTS_PER_MINUTE, limit=7
    )
    described = await limiter.describe_limits(DescribeLimitsRequest(usage_tier=1, overrides=[override]))
    assert [model.model for model in described.models] == sorted(spec.name for spec in CATALOG)
    limits = {
        (model.model, limit.scope, limit.dimension): limit.limit for model in described.models for limit in model.limits
    }
    organization, project = limits_pb2.SCOPE_ORGANIZATION, limits_pb2.SCOPE_PROJECT
    assert limits["small", organization, limits_pb2.DIMENSION_REQUESTS_PER_MINUTE] == 3
    assert limits["large", organization, limits_pb2.DIMENSION_REQUESTS_PER_MINUTE] == 500
    assert limits["large", project, limits_pb2.DIMENSION_REQUESTS_PER_MINUTE] == 7
    assert limits["large", project, limits_pb2.DIMENSION_TOKENS_PER_MINUTE] == 200_000
    assert limits["dall-e", organization, limits_pb2.DIMENSION_IMAGES_PER_MINUTE] == 5
    assert ("small", organization, limits_pb2.DIMENSION_REQUESTS_PER_DAY) not in limits


def keeper(limiter: Limiter, path: Path, clock: Clock) -> Keeper:
    return Keeper(limiter, limiter.buckets, limiter.expectations, path, clock)


async def test_a_restart_hands_out_no_fresh_burst(limiter: Limiter, clock: Clock, tmp_path: Path) -> None:
    path = tmp_path / "home" / "ratelimit.snapshot"
    for request_id in "abc":
        await reserve(limiter, request_id)
    await keeper(limiter, path, clock).save()
    clock.advance(5)
    again = Limiter(clock, TABLE)
    await keeper(again, path, clock).restore()
    assert (await refusal(again, asking("d"))).retry_after_ms == 15_000


async def test_a_restart_remembers_what_was_learned(limiter: Limiter, clock: Clock, tmp_path: Path) -> None:
    await reserve(limiter, "a")
    await limiter.settle(SettleRequest(request_id="a", tokens=100))
    await keeper(limiter, tmp_path / "snapshot", clock).save()
    again = Limiter(clock, TABLE)
    await keeper(again, tmp_path / "snapshot", clock).restore()
    assert again.expectations.output_tokens("small", "key_1") == 175


async def test_a_clock_set_back_while_stopped_does_not_refill(limiter: Limiter, clock: Clock, tmp_path: Path) -> None:
    for request_id in "abc":
        await reserve(limiter, request_id)
    await keeper(limiter, tmp_path / "snapshot", clock).save()
    clock.advance(-3600)
    again = Limiter(clock, TABLE)
    await keeper(again, tmp_path / "snapshot", clock).restore()
    assert (await refusal(again, asking("d"))).retry_after_ms == 20_000


@pytest.mark.parametrize("content", [b"", b"not json", b'{"taken_ns": 1, "accounts": []}'])
async def test_a_broken_snapshot_is_left_out(clock: Clock, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "snapshot").write_bytes(content)
    limiter = Limiter(clock, TABLE)
    await keeper(limiter, tmp_path / "snapshot", clock).restore()
    assert not list(limiter.buckets.states())


async def test_a_snapshot_that_cannot_be_written_stops_nothing(limiter: Limiter, clock: Clock, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    await keeper(limiter, tmp_path / "file" / "snapshot", clock).save()


async def test_stopping_settles_what_is_open_and_writes_it_down(limiter: Limiter, clock: Clock, tmp_path: Path) -> None:
    path, stopping = tmp_path / "snapshot", asyncio.Event()
    running = asyncio.create_task(keeper(limiter, path, clock).run(3600, stopping))
    await reserve(limiter, "a", input_tokens=100)
    stopping.set()
    await running
    again = Limiter(clock, TABLE)
    await keeper(again, path, clock).restore()
    assert await remaining_tokens(again) == 5_900


async def test_the_snapshot_is_written_while_running(limiter: Limiter, clock: Clock, tmp_path: Path) -> None:
    path, stopping = tmp_path / "snapshot", asyncio.Event()
    running = asyncio.create_task(keeper(limiter, path, clock).run(0.001, stopping))
    async with asyncio.timeout(30):
        while not path.exists():
            await asyncio.sleep(0.001)
    stopping.set()
    await running
