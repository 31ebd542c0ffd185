"""Purses of several processes under one bound: together they never spend more, whatever fails in between."""

from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from services.billing.purse import SHARE, Need, Purse, admit, ahead, pace, size

PROCESSES = 2
amounts = st.integers(0, 400)
# Whether a transaction is at once committed and known to be.
whole = st.booleans()
processes = st.integers(0, PROCESSES - 1)


class Transaction(NamedTuple):
    """Of a process, with the organisation's lock; `drained` is None for a lease."""

    process: int
    lease: int
    drained: int | None


class SharedBound(RuleBasedStateMachine):
    """A database with a lock, and processes that learn of what they have committed a while later."""

    @initialize(bound=st.integers(0, 3000))
    def begin(self, bound: int) -> None:
        self.bound = bound
        self.spent = 0
        self.purses = [Purse() for _ in range(PROCESSES)]
        self.holds: list[list[int]] = [[] for _ in range(PROCESSES)]
        # In the database.
        self.leases = [0] * PROCESSES
        self.open: Transaction | None = None
        # What a process has committed, or given up, and not taken in yet.
        self.leased: list[bool | None] = [None] * PROCESSES
        self.drained: list[int | None] = [None] * PROCESSES

    @rule(process=processes, amount=amounts)
    def hold(self, process: int, amount: int) -> None:
        if self.purses[process].affords(amount):
            self.purses[process].take(amount, 0)
            self.holds[process].append(amount)

    @rule(process=processes, index=st.integers(0, 20), share=st.sampled_from([0.0, 0.3, 1.0]))
    def settle(self, process: int, index: int, share: float) -> None:
        if index < len(self.holds[process]):
            amount = self.holds[process].pop(index)
            self.purses[process].settle(amount, 0, int(amount * share))

    def is_leasing(self, process: int) -> bool:
        return self.leased[process] is not None

    @precondition(lambda self: self.open is None)
    @rule(process=processes, needed=amounts, more=amounts, at_once=whole)
    def lease(self, process: int, needed: int, more: int, at_once: bool) -> None:
        if self.is_leasing(process):
            return
        purse = self.purses[process]
        others = sum(self.leases) - self.leases[process]
        free = self.bound - self.spent - others - purse.obligations
        self.open = Transaction(process, purse.resize(size(free, needed, more), free), None)
        if at_once:
            self.end(committed=True)
            self.take_in_lease(process)

    @precondition(lambda self: self.open is None)
    @rule(process=processes, share=st.sampled_from([0.4, 1.0]), at_once=whole)
    def drain(self, process: int, share: float, at_once: bool) -> None:
        purse = self.purses[process]
        amount = int(purse.undrained * share)
        if amount and self.drained[process] is None:
            self.open = Transaction(process, purse.leased_after(amount), amount)
            if at_once:
                self.end(committed=True)
                self.take_in_drain(process)

    @precondition(lambda self: self.open is not None)
    @rule(committed=st.booleans())
    def end(self, committed: bool) -> None:
        assert self.open is not None
        process, lease, drained = self.open
        self.open = None
        if committed:
            self.leases[process] = lease
            self.spent += drained or 0
        if drained is None:
            self.leased[process] = committed
        elif committed:
            self.drained[process] = drained

    @rule(process=processes)
    def take_in_lease(self, process: int) -> None:
        written = self.leased[process]
        if written is not None:
            self.purses[process].settle_lease(written)
            self.leased[process] = None

    @rule(process=processes)
    def take_in_drain(self, process: int) -> None:
        amount = self.drained[process]
        if amount is not None:
            self.purses[process].drain(amount)
            self.drained[process] = None

    @invariant()
    def nobody_spends_what_is_not_there(self) -> None:
        if not hasattr(self, "bound"):
            return
        committed = self.spent
        for purse, drained in zip(self.purses, self.drained, strict=True):
            assert purse.left >= 0
            committed += purse.lease - (drained or 0)
        assert committed <= self.bound

    @invariant()
    def the_database_has_what_processes_believe(self) -> None:
        for process in range(PROCESSES if hasattr(self, "bound") else 0):
            assert self.purses[process].lease - (self.drained[process] or 0) <= self.leases[process]


TestSharedBound = SharedBound.TestCase
TestSharedBound.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)

needs = st.lists(st.builds(Need, project_id=st.sampled_from(["", "a", "b"]), amount=amounts), max_size=12)


@given(needs, st.integers(-100, 2000), st.dictionaries(st.sampled_from(["a", "b"]), st.integers(-100, 2000)))
def test_who_is_admitted_fits_and_who_is_not_does_not(wanted: list[Need], free: int, projects: dict[str, int]) -> None:
    sums = admit(wanted, free, projects)
    assert sums[""] <= max(0, free)
    assert all(sums.get(project_id, 0) <= max(0, most) for project_id, most in projects.items())
    if all(sums.get(need.project_id, 0) == 0 for need in wanted):
        fits = [need for need in wanted if need.amount <= min(free, projects.get(need.project_id, free))]
        assert all(need.amount == 0 for need in fits if need.project_id)
    total = sum(need.amount for need in wanted)
    if total <= free and not projects:
        assert sums[""] == total


@given(st.integers(-(10**12), 10**15), st.integers(0, 10**12), st.integers(0, 10**12))
def test_a_purse_gets_what_is_needed_and_no_more_than_its_share_beyond(free: int, needed: int, more: int) -> None:
    left = size(free, needed, more)
    assert 0 <= left <= max(0, free)
    assert left >= min(needed, free)
    assert left <= max(needed, free // SHARE, 0)
    assert left <= max(needed, more)


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.floats(0, 10**6))
def test_the_pace_rises_at_once_and_falls_slowly(before: int, used: int, elapsed_s: float) -> None:
    now = pace(before, used, elapsed_s)
    assert now >= before // 2
    assert now <= max(used, before // 2)


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(1, 10**9))
def test_a_purse_that_is_as_large_as_is_wanted_has_room_for_worst_cases(held: int, worst: int, expected: int) -> None:
    purse = Purse()
    purse.read = True
    purse.lease = ahead(worst + expected, held, 0)
    assert purse.spares(min(expected, worst), worst)
