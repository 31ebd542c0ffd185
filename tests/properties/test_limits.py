"""The decision over all buckets: all or nothing, never over a limit, estimates that correct themselves."""

from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from services.ratelimit.limits import (
    MINUTE_NS,
    Demand,
    Expectations,
    Granted,
    Limits,
    ModelRates,
    Owner,
    Rates,
    Refused,
)

RATES = ModelRates(organization=Rates.per_minute(6, 600), project=Rates.per_minute(4, 400))
LEASE_NS = 5 * MINUTE_NS
GUESS = 50


def make_limits() -> Limits:
    return Limits(lambda model: RATES, Expectations(GUESS), LEASE_NS)


def levels(limits: Limits, now_ns: int) -> dict[Owner, tuple[int, int]]:
    return {owner: (requests_ns, tokens_ns) for owner, requests_ns, tokens_ns in limits.states(now_ns)}


class LimitsMachine(RuleBasedStateMachine):
    """Reserves, settles, sweeps and lets time pass, and keeps its own account of what was really used."""

    reservations: Bundle[str] = Bundle("reservations")

    def __init__(self) -> None:
        super().__init__()
        self.limits = make_limits()
        self.now_ns = MINUTE_NS
        self.made = 0
        # Of each owner: when, and how many tokens, of the requests that count.
        self.used: dict[Owner, dict[str, tuple[int, int]]] = defaultdict(dict)
        self.reserved: dict[str, tuple[Demand, int]] = {}

    def owners(self, demand: Demand) -> tuple[Owner, Owner]:
        return (
            Owner("organization", demand.organization_id, demand.model),
            Owner("project", demand.project_id, demand.model),
        )

    @rule(
        target=reservations,
        organization=st.sampled_from("ab"),
        project=st.sampled_from("xy"),
        input_tokens=st.integers(0, 450),
        max_output_tokens=st.integers(1, 500),
    )
    def reserve(self, organization: str, project: str, input_tokens: int, max_output_tokens: int) -> str:
        self.made += 1
        request_id = f"req_{self.made}"
        demand = Demand(request_id, organization, organization + project, "m", input_tokens, max_output_tokens)
        before = levels(self.limits, self.now_ns)
        decision = self.limits.reserve(demand, self.now_ns)
        after = levels(self.limits, self.now_ns)
        if isinstance(decision, Refused):
            assert after == before
            assert (decision.wait_ns is None) == (input_tokens > decision.limit and decision.dimension == "tokens")
            assert decision.wait_ns is None or decision.wait_ns > 0
            return request_id
        assert input_tokens <= decision.tokens <= input_tokens + max_output_tokens
        self.reserved[request_id] = (demand, decision.tokens)
        for owner, rates in zip(self.owners(demand), RATES, strict=True):
            requests_ns, tokens_ns = before.get(owner, (0, 0))
            assert after[owner] == (
                requests_ns + rates.requests.interval_ns,
                tokens_ns + decision.tokens * rates.tokens.interval_ns,
            )
            self.used[owner][request_id] = (self.now_ns, decision.tokens)
        again = self.limits.reserve(demand, self.now_ns)
        assert isinstance(again, Granted) and again == decision
        assert levels(self.limits, self.now_ns) == after
        return request_id

    @rule(request_id=consumes(reservations), share=st.sampled_from([0, 0.3, 1]))
    def settle(self, request_id: str, share: float) -> None:
        if request_id not in self.reserved:
            return
        demand, tokens = self.reserved.pop(request_id)
        used = int(tokens * share)
        expired = any(at_ns + LEASE_NS <= self.now_ns for at_ns, _ in [self.used[self.owners(demand)[0]][request_id]])
        self.limits.settle(request_id, used, self.now_ns)
        after = levels(self.limits, self.now_ns)
        self.limits.settle(request_id, 10_000, self.now_ns)
        assert levels(self.limits, self.now_ns) == after
        for owner in self.owners(demand) if not expired else ():
            at_ns, _ = self.used[owner].pop(request_id)
            if used:
                self.used[owner][request_id] = (at_ns, used)

    @rule(seconds=st.integers(0, 90))
    def wait(self, seconds: int) -> None:
        self.now_ns += seconds * 1_000_000_000

    @rule()
    def sweep(self) -> None:
        before = levels(self.limits, self.now_ns)
        self.limits.sweep(self.now_ns)
        assert levels(self.limits, self.now_ns) == before

    @precondition(lambda self: self.reserved)
    @rule()
    def restart(self) -> None:
        """A restart forgets reservations, which keep their estimates charged, and nothing else."""
        before = levels(self.limits, self.now_ns)
        states = list(self.limits.states(self.now_ns))
        self.limits = make_limits()
        for state in states:
            self.limits.restore(state, 0, self.now_ns)
        self.reserved.clear()
        assert levels(self.limits, self.now_ns) == before

    @invariant()
    def never_over_a_limit(self) -> None:
        for owner, requests in self.used.items():
            rates = RATES.organization if owner.scope == "organization" else RATES.project
            for first_ns, _ in requests.values():
                inside = [tokens for at_ns, tokens in requests.values() if at_ns >= first_ns]
                window_ns = max(at_ns for at_ns, _ in requests.values()) - first_ns
                for rate, units in ((rates.requests, len(inside)), (rates.tokens, sum(inside))):
                    assert units * rate.interval_ns <= rate.units * rate.interval_ns + window_ns


TestLimits = LimitsMachine.TestCase
TestLimits.settings = settings(max_examples=60, stateful_step_count=40)


def demand(request_id: str, input_tokens: int = 10, max_output_tokens: int = 100, project: str = "p") -> Demand:
    return Demand(request_id, "o", project, "m", input_tokens, max_output_tokens)


@given(st.lists(st.integers(0, 400), min_size=1), st.integers(1, 1000))
def test_the_estimate_follows_what_requests_use_and_stays_below_what_they_may(
    outputs: list[int], max_output_tokens: int
) -> None:
    expectations = Expectations(GUESS)
    for output_tokens in outputs:
        expectations.learn("o", "m", output_tokens)
        assert min(GUESS, *outputs) - 1 <= expectations.output_tokens("o", "m") <= max(GUESS, *outputs) + 1
    limits = Limits(lambda model: RATES, expectations, LEASE_NS)
    granted = limits.reserve(demand("r", 10, max_output_tokens), MINUTE_NS)
    assert isinstance(granted, Granted)
    assert granted.tokens <= 10 + max_output_tokens


@given(st.integers(0, 400), st.integers(0, 2000))
def test_more_than_reserved_becomes_a_debt_that_time_pays(reserved: int, used: int) -> None:
    limits = make_limits()
    granted = limits.reserve(demand("r", reserved, 1), MINUTE_NS)
    assert isinstance(granted, Granted)
    limits.settle("r", used, MINUTE_NS)
    requests_ns, tokens_ns = levels(limits, MINUTE_NS).get(Owner("project", "p", "m"), (0, 0))
    assert tokens_ns == used * RATES.project.tokens.interval_ns
    assert requests_ns == (RATES.project.requests.interval_ns if used else 0)
