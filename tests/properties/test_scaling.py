"""The number of replicas, for any course of events."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from services.pools.scaling import Demand, Memory, Policy, State, plan, start_failed, started

POLICY = Policy(
    min_replicas=1,
    max_replicas=3,
    slots=4,
    queued_per_replica=2,
    scale_up_after_s=5.0,
    scale_down_after_s=60.0,
    backoff_s=1.0,
    backoff_max_s=30.0,
)
IDLE = Demand(running=0, queued=0)


class PoolOfReplicas(RuleBasedStateMachine):
    """Replicas start, fail, die and drain, load comes and goes, and the plan is carried out at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = POLICY
        self.memory = Memory()
        self.replicas: dict[str, State] = {}
        self.demand: Demand | None = None
        self.now_s = 0.0
        self.made = 0

    @initialize(low=st.integers(0, 3), high=st.integers(1, 4))
    def configure(self, low: int, high: int) -> None:
        self.policy = replace(POLICY, min_replicas=min(low, high), max_replicas=high)
        self.look()

    @rule(running=st.integers(0, 20), queued=st.integers(0, 40))
    def load(self, running: int, queued: int) -> None:
        self.demand = Demand(running, queued)
        self.look()

    @rule()
    def router_is_lost(self) -> None:
        self.demand = None
        self.look()

    @rule(seconds=st.floats(0, 200))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds
        self.look()

    @rule(data=st.data())
    def one_becomes_ready(self, data: st.DataObject) -> None:
        if replica_id := self.one(data, State.STARTING):
            self.replicas[replica_id] = State.READY
            self.memory = started(self.memory)
            self.look()

    @rule(data=st.data())
    def one_fails_to_start(self, data: st.DataObject) -> None:
        if replica_id := self.one(data, State.STARTING):
            del self.replicas[replica_id]
            self.memory = start_failed(self.policy, self.memory, self.now_s)
            self.look()

    @rule(data=st.data(), state=st.sampled_from([State.READY, State.DRAINING]))
    def one_ends(self, data: st.DataObject, state: State) -> None:
        if replica_id := self.one(data, state):
            del self.replicas[replica_id]
            self.look()

    def one(self, data: st.DataObject, state: State) -> str | None:
        found = [replica_id for replica_id, its in self.replicas.items() if its is state]
        return data.draw(st.sampled_from(found)) if found else None

    def look(self) -> None:
        live_before = self.live
        wanted = plan(self.policy, list(self.replicas.items()), self.demand, self.memory, self.now_s)
        self.memory = wanted.memory
        assert wanted.start == 0 or not wanted.drain
        assert wanted.start == 0 or self.now_s >= wanted.memory.start_from_s
        for replica_id in wanted.drain:
            assert self.replicas[replica_id] is State.READY
            assert self.demand is not None and self.demand.queued == 0
            assert live_before - len(wanted.drain) >= self.policy.min_replicas
            self.replicas[replica_id] = State.DRAINING
        for _ in range(wanted.start):
            self.made += 1
            self.replicas[str(self.made)] = State.STARTING

    @property
    def live(self) -> int:
        return sum(state is not State.DRAINING for state in self.replicas.values())

    @invariant()
    def never_too_many(self) -> None:
        assert len(self.replicas) <= self.policy.max_replicas

    @invariant()
    def never_too_few_but_for_a_pause_or_a_full_house(self) -> None:
        paused = self.now_s < self.memory.start_from_s
        full = len(self.replicas) == self.policy.max_replicas
        assert self.made == 0 or paused or full or self.live >= self.policy.min_replicas


TestPoolOfReplicas = PoolOfReplicas.TestCase


@given(st.integers(1, 200))
def test_pauses_double_up_to_the_longest(failures: int) -> None:
    memory, pauses = Memory(), []
    for _ in range(failures):
        memory = start_failed(POLICY, memory, 100.0)
        pauses.append(memory.start_from_s - 100.0)
    assert pauses[:4] == [0.0, 1.0, 2.0, 4.0][:failures]
    assert pauses == sorted(pauses) and pauses[-1] <= POLICY.backoff_max_s
    assert started(memory).start_from_s < 0


def test_a_queue_that_stays_makes_the_pool_grow_one_by_one() -> None:
    replicas = [("a", State.READY)]
    queue = Demand(running=4, queued=9)
    first = plan(POLICY, replicas, queue, Memory(), 0.0)
    assert first.start == 0
    assert plan(POLICY, replicas, queue, first.memory, 4.9).start == 0
    second = plan(POLICY, replicas, queue, first.memory, 5.0)
    assert second.start == 1
    assert plan(POLICY, [*replicas, ("b", State.STARTING)], queue, second.memory, 5.1).start == 0


def test_a_queue_that_goes_away_in_between_does_not() -> None:
    replicas = [("a", State.READY)]
    memory = plan(POLICY, replicas, Demand(4, 9), Memory(), 0.0).memory
    memory = plan(POLICY, replicas, Demand(4, 1), memory, 4.0).memory
    assert plan(POLICY, replicas, Demand(4, 9), memory, 8.0).start == 0


def test_an_empty_pool_grows_at_once_when_asked() -> None:
    policy = replace(POLICY, min_replicas=0)
    assert plan(policy, [], IDLE, Memory(), 0.0).start == 0
    assert plan(policy, [], Demand(running=0, queued=1), Memory(), 0.0).start == 1


def test_an_idle_pool_shrinks_to_its_minimum_and_no_further() -> None:
    replicas = [("a", State.READY), ("b", State.READY)]
    memory = plan(POLICY, replicas, IDLE, Memory(), 0.0).memory
    assert plan(POLICY, replicas, IDLE, memory, 59.0).drain == ()
    assert plan(POLICY, replicas, IDLE, memory, 60.0).drain == ("b",)
    alone = plan(POLICY, replicas[:1], IDLE, Memory(), 0.0).memory
    assert plan(POLICY, replicas[:1], IDLE, alone, 1000.0).drain == ()


def test_nothing_is_taken_away_while_the_router_is_lost() -> None:
    replicas = [("a", State.READY), ("b", State.READY)]
    memory = plan(POLICY, replicas, IDLE, Memory(), 0.0).memory
    assert plan(POLICY, replicas, None, memory, 100.0).drain == ()
