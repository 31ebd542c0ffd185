"""The limiter over all its buckets: all or nothing, never over a limit, estimates that correct themselves."""

from collections import defaultdict
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from modelplane.ratelimit.v1.ratelimit_pb2 import ReserveRequest, ReserveResponse, SettleRequest, TopUpRequest
from services.faults import RateLimited
from services.ratelimit.buckets import BucketKey, Correction, MemoryBuckets, Need, Short, Taken
from services.ratelimit.expectations import Expectations
from services.ratelimit.limits import (
    AUDIO,
    BATCH,
    DIMENSIONS,
    IPM,
    RPD,
    RPM,
    TPD,
    TPM,
    Measures,
    ModelLimits,
    Plan,
    plan,
    rate,
)
from services.ratelimit.service import RateLimiter
from services.ratelimit.settings import LimitsTable
from tests.fakes.bucket_scripts import finish
from tests.services.ratelimit.limiters import LEASE_NS, SECOND_NS, Clock, Limiter, make_book

TABLE = LimitsTable(
    model="small",
    organization_rpm=6,
    organization_rpd=30,
    organization_tpm=600,
    organization_tpd=6_000,
    project_rpm=4,
    project_rpd=25,
    project_tpm=400,
    project_tpd=5_000,
)
LIMITS = make_book(TABLE).limits("small", 5)
GUESS = 50


class Asked(NamedTuple):
    request: ReserveRequest
    at_ns: int
    tokens: int


def plan_of(request: ReserveRequest) -> Plan:
    return plan(request.organization_id, request.project_id, LIMITS)


class LimitsMachine(RuleBasedStateMachine):
    """Reserves, settles, sweeps, restarts and lets time pass, and keeps its own account of what was used."""

    reservations: Bundle[str] = Bundle("reservations")

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.limiter = Limiter(self.clock, TABLE, guess=GUESS)
        self.made = 0
        # Of each bucket: when, and how much, of the requests that count.
        self.used: dict[BucketKey, dict[str, tuple[int, int]]] = defaultdict(dict)
        self.open: dict[str, Asked] = {}

    def levels(self) -> dict[BucketKey, int]:
        return dict(self.limiter.buckets.states())

    def count(self, asked: Asked, tokens: int) -> None:
        """From now on the request counts with so many tokens, and not at all without any."""
        for need in plan_of(asked.request).needs(Measures(tokens, 0, 0, 0)):
            self.used[need.key][asked.request.request_id] = (asked.at_ns, need.units)

    def forget(self, request_id: str) -> None:
        for requests in self.used.values():
            requests.pop(request_id, None)

    @rule(
        target=reservations,
        organization=st.sampled_from("ab"),
        project=st.sampled_from("xy"),
        input_tokens=st.integers(1, 450),
        max_output_tokens=st.integers(1, 500),
    )
    def reserve(self, organization: str, project: str, input_tokens: int, max_output_tokens: int) -> str:
        self.made += 1
        request_id = f"req_{self.made}"
        request = ReserveRequest(
            request_id=request_id,
            organization_id=organization,
            project_id=organization + project,
            model="small",
            input_tokens=input_tokens,
            max_output_tokens=max_output_tokens,
            key_id="key_1",
            usage_tier=5,
        )
        before = self.levels()
        try:
            response: ReserveResponse = finish(self.limiter.reserve(request))
        except RateLimited as fault:
            assert self.levels() == before
            assert (fault.reason == "request_too_large") == (input_tokens > 400)
            assert (fault.retry_after_ms == 0) == (input_tokens > 400)
            return request_id
        tokens = response.reservation.tokens
        assert input_tokens <= tokens <= input_tokens + max_output_tokens
        after = self.levels()
        for need in plan_of(request).needs(Measures(tokens, 0, 0, 0)):
            assert after[need.key] == before.get(need.key, 0) + need.units * need.rate.interval_ns
        self.open[request_id] = Asked(request, self.clock.now_ns, tokens)
        self.count(self.open[request_id], tokens)
        assert finish(self.limiter.reserve(request)) == response
        assert self.levels() == after
        return request_id

    @rule(request_id=consumes(reservations), share=st.sampled_from([0, 0.3, 1]))
    def settle(self, request_id: str, share: float) -> None:
        asked = self.open.pop(request_id, None)
        if asked is not None:
            used = int(asked.tokens * share)
            self.forget(request_id)
            if used:
                self.count(asked, used)
            finish(self.limiter.settle(SettleRequest(request_id=request_id, tokens=used)))
        after = self.levels()
        finish(self.limiter.settle(SettleRequest(request_id=request_id, tokens=10_000)))
        assert self.levels() == after

    @rule(seconds=st.integers(0, 90))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule()
    def a_lease_passes(self) -> None:
        """What nobody settled is settled at its prompt."""
        self.clock.now_ns += LEASE_NS
        assert finish(self.limiter.sweep()) == 0
        self.limiter.buckets.sweep()
        self.end_all()

    @rule()
    def restart(self) -> None:
        """A restart settles what is open at its prompt, and forgets nothing else."""
        finish(self.limiter.end_all())
        self.end_all()
        before = self.levels()
        states = list(self.limiter.buckets.states())
        self.limiter = Limiter(self.clock, TABLE, guess=GUESS)
        for state in states:
            self.limiter.buckets.restore(state, 0)
        assert self.levels() == before

    def end_all(self) -> None:
        for asked in self.open.values():
            self.count(asked, asked.request.input_tokens)
        self.open.clear()

    @invariant()
    def never_over_a_limit(self) -> None:
        for key, requests in self.used.items():
            limits = LIMITS.organization if key.scope == "organization" else LIMITS.project
            units, interval_ns = rate(key.dimension, limits[key.dimension])
            last_ns = max((at_ns for at_ns, _ in requests.values()), default=0)
            for first_ns, _ in requests.values():
                inside = sum(used for at_ns, used in requests.values() if at_ns >= first_ns)
                assert inside * interval_ns <= units * interval_ns + last_ns - first_ns


TestLimits = LimitsMachine.TestCase
TestLimits.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)


class Event(NamedTuple):
    """Wait, then settle one of the open takes, or take units for one of two projects."""

    wait_ms: int
    project: int
    units: int
    settle: int | None
    percent: int


events = st.builds(
    Event,
    wait_ms=st.integers(0, 30_000),
    project=st.integers(0, 1),
    units=st.integers(1, 40),
    settle=st.none() | st.integers(0, 5),
    percent=st.integers(0, 120),
)


@settings(max_examples=300)
@given(st.integers(1, 40), st.integers(0, 40), st.lists(events, max_size=30))
def test_a_project_bucket_no_tighter_than_the_organisations_never_decides(
    limit: int, looser: int, script: list[Event]
) -> None:
    """Which is why `plan` leaves it out."""
    clock = Clock()
    buckets = MemoryBuckets(clock)
    organization = Need(BucketKey("organization", "o", "m", TPM), rate(TPM, limit), 1)
    open_takes: list[tuple[list[Need], Taken]] = []
    for event in script:
        clock.now_ns += event.wait_ms * 1_000_000
        project = Need(BucketKey("project", f"p{event.project}", "m", TPM), rate(TPM, limit + looser), 1)
        needs = [need._replace(units=event.units) for need in (organization, project)]
        if event.settle is not None and open_takes:
            taken_needs, taken = open_takes.pop(event.settle % len(open_takes))
            used = taken_needs[0].units * event.percent // 100
            pairs = zip(taken_needs, taken.claims, strict=True)
            finish(buckets.settle([Correction(need.key, need.rate, claim, used) for need, claim in pairs]))
        decision = finish(buckets.take(needs))
        if isinstance(decision, Short):
            assert decision.index == 0
        else:
            open_takes.append((needs, decision))
        assert decision.levels[0].remaining <= decision.levels[1].remaining


limit_maps = st.dictionaries(st.sampled_from([*DIMENSIONS.values()]), st.integers(0, 1000))


@given(limit_maps, limit_maps, st.builds(Measures, *[st.integers(0, 50)] * 4))
def test_a_request_needs_what_is_limited_and_what_it_uses(
    organization: dict[int, int], project: dict[int, int], measures: Measures
) -> None:
    needs = plan("o", "p", ModelLimits("m", organization, project)).needs(measures)
    assert len({need.key for need in needs}) == len(needs)
    for need in needs:
        limits = organization if need.key.scope == "organization" else project
        assert need.rate == rate(need.key.dimension, limits[need.key.dimension])
        assert need.units > 0
    tighter = {dimension for dimension, limit in project.items() if limit < organization.get(dimension, limit + 1)}
    used = {RPM, RPD}
    for amount, dimensions in zip(measures, ({TPM, TPD}, {IPM}, {AUDIO}, {BATCH}), strict=True):
        used |= dimensions if amount else set()
    assert {(need.key.scope, need.key.dimension) for need in needs} == {
        ("organization", limited) for limited in used & {*organization}
    } | {("project", limited) for limited in used & tighter}


@given(st.integers(0, 900), st.integers(0, 900), st.integers(1, 500))
def test_the_estimate_is_bounded_by_the_smallest_token_limit_but_never_below_the_prompt(
    input_tokens: int, output_tokens: int, limit: int
) -> None:
    limits = ModelLimits("m", {TPM: 1_000, TPD: limit}, {TPM: 600})
    tokens = plan("o", "p", limits).estimate(input_tokens, output_tokens)
    assert tokens == max(input_tokens, min(input_tokens + output_tokens, limit))
    assert (
        plan("o", "p", ModelLimits("m", {}, {})).estimate(input_tokens, output_tokens) == input_tokens + output_tokens
    )


@given(st.lists(st.integers(0, 400), min_size=1), st.integers(1, 1000))
def test_the_expectation_follows_what_requests_use(outputs: list[int], guess: int) -> None:
    expectations = Expectations(guess)
    for output_tokens in outputs:
        expectations.learn("m", "key_1", output_tokens)
        assert min(guess, *outputs) - 1 <= expectations.output_tokens("m", "key_1") <= max(guess, *outputs) + 1
    assert expectations.output_tokens("m", "key_2") == guess


def token_debt(limiter: Limiter) -> dict[int, int]:
    """Time until full of the project's token buckets, in units."""
    found = {}
    for key, until_full_ns in limiter.buckets.states():
        if key.scope == "project" and key.dimension in (TPM, TPD):
            found[key.dimension] = until_full_ns // rate(key.dimension, LIMITS.project[key.dimension]).interval_ns
    return found


async def reserve(limiter: RateLimiter, input_tokens: int, max_output_tokens: int) -> int:
    request = ReserveRequest(
        request_id="r",
        organization_id="o",
        project_id="p",
        model="small",
        input_tokens=input_tokens,
        max_output_tokens=max_output_tokens,
    )
    return (await limiter.reserve(request)).reservation.tokens


@given(st.integers(1, 400), st.integers(1, 2000))
def test_more_than_reserved_becomes_a_debt_that_time_pays(reserved: int, used: int) -> None:
    limiter = Limiter(Clock(), TABLE, guess=GUESS)
    assert finish(reserve(limiter, reserved, 1)) in (reserved, reserved + 1)
    finish(limiter.settle(SettleRequest(request_id="r", tokens=used)))
    assert token_debt(limiter) == {TPM: used, TPD: used}


@given(st.integers(1, 300), st.integers(1, 3000), st.lists(st.integers(1, 400), max_size=12), st.data())
def test_a_streaming_request_always_holds_what_it_has_used_and_never_more_than_it_may(
    input_tokens: int, max_output_tokens: int, deltas: list[int], data: st.DataObject
) -> None:
    limiter = Limiter(Clock(), TABLE, guess=GUESS)
    taken = finish(reserve(limiter, input_tokens, max_output_tokens))
    most, used, steps = input_tokens + max_output_tokens, input_tokens, 0
    for delta in deltas:
        used = min(used + delta, most)
        if used > taken:
            steps += 1
            taken = finish(limiter.top_up(TopUpRequest(request_id="r", tokens=used))).tokens
        assert used <= taken <= most
        assert token_debt(limiter) == {TPM: taken, TPD: taken}
    assert steps <= max(1, max_output_tokens.bit_length())
    final = data.draw(st.integers(1, taken + 50))
    finish(limiter.settle(SettleRequest(request_id="r", tokens=final)))
    assert token_debt(limiter) == {TPM: final, TPD: final}


@given(st.integers(1, 300), st.integers(1, 600), st.integers(0, 40))
def test_a_request_that_is_never_settled_costs_what_it_is_known_to_have_used(
    input_tokens: int, told: int, seconds: int
) -> None:
    clock = Clock()
    limiter = Limiter(clock, TABLE, guess=GUESS)
    finish(reserve(limiter, input_tokens, 500))
    finish(limiter.top_up(TopUpRequest(request_id="r", tokens=told)))
    clock.now_ns += seconds * SECOND_NS
    finish(limiter.end_all())
    # Of the day hardly anything has refilled: the rest of the estimate has come back, but for what time gave.
    day = token_debt(limiter).get(TPD, 0)
    assert max(told, input_tokens) - 3 <= day <= max(told, input_tokens)
