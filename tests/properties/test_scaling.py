"""The number of replicas, for any course of events."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from services.pools.scaling import Demand, Memory, Plan, Policy, Seen, State, plan, start_failed, started

POLICY = Policy(
    min_replicas=1,
    max_replicas=3,
    slots=4,
    queued_per_replica=2,
    scale_up_after_s=5.0,
    scale_down_after_s=60.0,
    backoff_s=1.0,
    backoff_max_s=30.0,
    crowded_after_s=30.0,
)
IDLE = Demand(running=0, queued=0)
READY, STARTING, DRAINING = State.READY, State.STARTING, State.DRAINING


def seen(*states: State) -> list[Seen]:
    return [Seen("abcdefgh"[number], state) for number, state in enumerate(states)]


class PoolOfReplicas(RuleBasedStateMachine):
    """Replicas start, fail, die and drain, load comes and goes, the configuration changes, and the plan is carried
    out at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = POLICY
        self.memory = Memory()
        self.replicas: dict[str, Seen] = {}
        self.demand: Demand | None = None
        self.now_s = 0.0
        self.made = 0

    @initialize(low=st.integers(0, 3), high=st.integers(1, 4), surge=st.integers(0, 1))
    def configure(self, low: int, high: int, surge: int) -> None:
        self.policy = replace(POLICY, min_replicas=min(low, high), max_replicas=high, surge=surge)
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

    @rule()
    def the_configuration_changes(self) -> None:
        for replica_id, replica in self.replicas.items():
            self.replicas[replica_id] = replica._replace(current=False)
        self.look()

    @rule(data=st.data())
    def one_becomes_ready(self, data: st.DataObject) -> None:
        if replica_id := self.one(data, STARTING):
            self.become(replica_id, READY)
            self.memory = started(self.memory)
            self.look()

    @rule(data=st.data())
    def one_has_no_room(self, data: st.DataObject) -> None:
        if replica_id := self.one(data, STARTING):
            self.replicas[replica_id] = self.replicas[replica_id]._replace(crowded=True)
            self.look()

    @rule(data=st.data())
    def one_fails_to_start(self, data: st.DataObject) -> None:
        if replica_id := self.one(data, STARTING):
            del self.replicas[replica_id]
            self.memory = start_failed(self.policy, self.memory, self.now_s)
            self.look()

    @rule(data=st.data(), state=st.sampled_from([READY, DRAINING]))
    def one_ends(self, data: st.DataObject, state: State) -> None:
        if replica_id := self.one(data, state):
            del self.replicas[replica_id]
            self.look()

    def one(self, data: st.DataObject, state: State) -> str | None:
        found = [replica_id for replica_id, its in self.replicas.items() if its.state is state]
        return data.draw(st.sampled_from(found)) if found else None

    def become(self, replica_id: str, state: State) -> None:
        self.replicas[replica_id] = self.replicas[replica_id]._replace(state=state, crowded=False)

    def look(self) -> None:
        before = self.count(READY)
        wanted = plan(self.policy, list(self.replicas.values()), self.demand, self.memory, self.now_s)
        self.memory = wanted.memory
        assert wanted.start == 0 or not wanted.drain
        assert wanted.start == 0 or self.now_s >= wanted.memory.start_from_s
        self.check_drained(wanted, before)
        for replica_id in wanted.drain:
            self.become(replica_id, DRAINING)
        for _ in range(wanted.start):
            self.made += 1
            self.replicas[str(self.made)] = Seen(str(self.made), STARTING)

    def check_drained(self, wanted: Plan, ready_before: int) -> None:
        """What is taken away is ready and can be spared, or outdated and replaced."""
        for replica in (self.replicas[replica_id] for replica_id in wanted.drain):
            assert replica.state is not DRAINING
            if replica.state is STARTING:
                assert not replica.current
            elif replica.current:
                assert self.demand is not None and self.demand.queued == 0
                assert ready_before - 1 >= self.policy.min_replicas
            elif ready_before - 1 < self.policy.min_replicas:
                # Only where there is no room for a successor beside it, and only one at a time.
                crowded = any(its.crowded for its in self.replicas.values())
                assert crowded or self.policy.surge == 0
                assert self.count(DRAINING) == 0

    def count(self, state: State) -> int:
        return sum(its.state is state for its in self.replicas.values())

    @property
    def live(self) -> int:
        return len(self.replicas) - self.count(DRAINING)

    @invariant()
    def never_too_many(self) -> None:
        assert len(self.replicas) <= self.policy.max_replicas + self.policy.surge

    @invariant()
    def never_too_few_but_for_a_pause_or_a_full_house(self) -> None:
        paused = self.now_s < self.memory.start_from_s
        full = len(self.replicas) >= self.policy.max_replicas
        rolling = any(not its.current for its in self.replicas.values())
        assert self.made == 0 or paused or full or rolling or self.live >= self.policy.min_replicas

    def teardown(self) -> None:
        """Whatever happened: when everything that is started becomes ready, only current replicas are left, and
        no fewer than there must be."""
        self.demand = None
        for _ in range(12 * (self.policy.max_replicas + 1)):
            self.now_s += 40.0
            self.look()
            for replica_id, its in list(self.replicas.items()):
                if its.state is STARTING:
                    self.become(replica_id, READY)
                elif its.state is DRAINING:
                    del self.replicas[replica_id]
        assert all(its.current and its.state is READY for its in self.replicas.values())
        assert self.policy.min_replicas <= len(self.replicas) <= self.policy.max_replicas


TestPoolOfReplicas = PoolOfReplicas.TestCase


class Roll:
    """A pool of `size` replicas whose configuration has just changed, and the fewest and most that it then had."""

    def __init__(self, policy: Policy, size: int) -> None:
        self.policy = policy
        self.memory = Memory()
        self.replicas = {str(number): Seen(str(number), READY, current=False) for number in range(size)}
        self.now_s = 0.0
        self.fewest_ready = self.most = size

    def step(self, crowded: bool) -> bool:
        """One look, after which what drains ends and what starts becomes ready, unless it has no room beside
        `size` others. False when nothing is left to do."""
        self.now_s += 20.0
        wanted = plan(self.policy, list(self.replicas.values()), None, self.memory, self.now_s)
        self.memory = wanted.memory
        for replica_id in wanted.drain:
            self.replicas[replica_id] = self.replicas[replica_id]._replace(state=DRAINING)
        for _ in range(wanted.start):
            name = f"new {len(self.replicas)} {self.now_s}"
            self.replicas[name] = Seen(name, STARTING)
        self.most = max(self.most, len(self.replicas))
        ready = sum(its.state is READY for its in self.replicas.values())
        self.fewest_ready = min(self.fewest_ready, ready)
        for replica_id, its in list(self.replicas.items()):
            if its.state is DRAINING:
                del self.replicas[replica_id]
            elif its.state is STARTING:
                full = crowded and ready >= self.policy.max_replicas
                state = STARTING if full else READY
                self.replicas[replica_id] = its._replace(state=state, crowded=full)
        left = any(its.state is not READY or not its.current for its in self.replicas.values())
        return left or len(self.replicas) < self.policy.min_replicas


@given(size=st.integers(1, 6), surge=st.integers(0, 1), crowded=st.booleans())
def test_a_roll_ends_with_all_new_and_as_many(size: int, surge: int, crowded: bool) -> None:
    roll = Roll(replace(POLICY, min_replicas=size, max_replicas=size, surge=surge), size)
    steps = 0
    while roll.step(crowded):
        steps += 1
        assert steps < 12 * size
    assert len(roll.replicas) == size
    assert roll.most == size + surge
    # One makes room only where none is left for its successor.
    assert roll.fewest_ready == (size if surge and not crowded else size - 1)


def test_a_successor_that_cannot_start_leaves_the_others_alone() -> None:
    policy = replace(POLICY, min_replicas=2)
    replicas = [Seen("a", READY, current=False), Seen("b", READY, current=False)]
    memory, now_s, starts = Memory(), 0.0, 0
    for _ in range(200):
        wanted = plan(policy, replicas, IDLE, memory, now_s)
        assert wanted.drain == ()
        memory = wanted.memory
        if wanted.start:
            starts += 1
            waiting = [*replicas, Seen("c", STARTING)]
            assert plan(policy, waiting, IDLE, memory, now_s + 500.0).drain == ()
            memory = start_failed(policy, memory, now_s)
        now_s += 1.0
    assert 5 < starts < 15


def test_a_roll_keeps_what_load_had_made_of_the_pool() -> None:
    policy = replace(POLICY, min_replicas=0, max_replicas=5)
    roll = Roll(policy, 3)
    while roll.step(False):
        pass
    assert (len(roll.replicas), roll.fewest_ready, roll.most) == (3, 3, 4)


def test_a_lower_maximum_takes_the_outdated_first() -> None:
    replicas = [Seen("a", READY), Seen("b", READY, current=False), Seen("c", READY), Seen("d", STARTING)]
    policy = replace(POLICY, max_replicas=1, surge=1)
    assert set(plan(policy, replicas, None, Memory(), 0.0).drain) == {"b", "d"}


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
    queue = Demand(running=4, queued=9)
    first = plan(POLICY, seen(READY), queue, Memory(), 0.0)
    assert (first.start, first.wanted) == (0, 1)
    assert plan(POLICY, seen(READY), queue, first.memory, 4.9).start == 0
    second = plan(POLICY, seen(READY), queue, first.memory, 5.0)
    assert (second.start, second.wanted) == (1, 2)
    assert plan(POLICY, seen(READY, STARTING), queue, second.memory, 5.1).start == 0


def test_a_queue_that_goes_away_in_between_does_not() -> None:
    memory = plan(POLICY, seen(READY), Demand(4, 9), Memory(), 0.0).memory
    memory = plan(POLICY, seen(READY), Demand(2, 1), memory, 4.0).memory
    assert plan(POLICY, seen(READY), Demand(4, 9), memory, 8.0).start == 0


def test_slots_that_are_nearly_all_taken_make_the_pool_grow() -> None:
    memory = plan(POLICY, seen(READY), Demand(running=4, queued=0), Memory(), 0.0).memory
    assert plan(POLICY, seen(READY), Demand(running=4, queued=0), memory, 5.0).start == 1
    memory = plan(POLICY, seen(READY), Demand(running=3, queued=0), Memory(), 0.0).memory
    assert plan(POLICY, seen(READY), Demand(running=3, queued=0), memory, 5.0).start == 0


def test_measured_output_makes_the_pool_grow_and_keeps_it() -> None:
    policy = replace(POLICY, target_tokens_per_s=100.0)
    busy = Demand(running=1, queued=0, output_tokens_per_s=101.0)
    memory = plan(policy, seen(READY), busy, Memory(), 0.0).memory
    assert plan(policy, seen(READY), busy, memory, 5.0).start == 1
    for tokens_per_s, drained in ((51.0, ()), (50.0, ("b",))):
        load = Demand(running=1, queued=0, output_tokens_per_s=tokens_per_s)
        memory = plan(policy, seen(READY, READY), load, Memory(), 0.0).memory
        assert plan(policy, seen(READY, READY), load, memory, 60.0).drain == drained


def test_an_empty_pool_grows_at_once_when_asked() -> None:
    policy = replace(POLICY, min_replicas=0)
    assert plan(policy, [], IDLE, Memory(), 0.0).start == 0
    assert plan(policy, [], Demand(running=0, queued=1), Memory(), 0.0).start == 1


def test_an_idle_pool_shrinks_to_its_minimum_and_no_further() -> None:
    memory = plan(POLICY, seen(READY, READY), IDLE, Memory(), 0.0).memory
    assert plan(POLICY, seen(READY, READY), IDLE, memory, 59.0).drain == ()
    assert plan(POLICY, seen(READY, READY), IDLE, memory, 60.0).drain == ("b",)
    alone = plan(POLICY, seen(READY), IDLE, Memory(), 0.0).memory
    assert plan(POLICY, seen(READY), IDLE, alone, 1000.0).drain == ()


def test_an_idle_pool_that_may_be_empty_becomes_empty() -> None:
    policy = replace(POLICY, min_replicas=0)
    memory = plan(policy, seen(READY), IDLE, Memory(), 0.0).memory
    last = plan(policy, seen(READY), IDLE, memory, 60.0)
    assert (last.drain, last.wanted) == (("a",), 0)


def test_nothing_is_taken_away_while_the_router_is_lost() -> None:
    memory = plan(POLICY, seen(READY, READY), IDLE, Memory(), 0.0).memory
    assert plan(POLICY, seen(READY, READY), None, memory, 100.0).drain == ()
