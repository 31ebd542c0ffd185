"""Who waits for how long, and how much one may hold, whoever comes and goes."""

from collections import Counter
from collections.abc import Iterator
from itertools import count, islice
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.fairness import TIERS, Shares, TierQueue

weights = st.integers(0, 12)
passers = st.lists(st.sampled_from(["push", "discard", "nothing"]), min_size=100, max_size=100)


class Item(NamedTuple):
    """A request: numbers are given in order of arrival."""

    tier: str
    project: str
    key: str
    number: int


class Queue:
    """A queue of items that names whom it serves."""

    def __init__(self) -> None:
        self.queue: TierQueue[Item] = TierQueue()
        self.numbers = count()

    def push(self, project: str, key: str = "", weight: int = 1, tier: str = "default") -> Item:
        item = Item(tier, project, key, next(self.numbers))
        self.queue.push(tier, project, weight, key, item)
        return item

    def take(self, *blocked: str) -> Item:
        item = self.queue.take(lambda item: item.project not in blocked)
        assert item is not None
        return item

    def served(self, **backlogged: int) -> Iterator[str]:
        """The projects in the order of their turns, each kept at a backlog of two, with these weights."""
        for project, weight in backlogged.items():
            self.push(project, weight=weight)
            self.push(project, weight=weight)
        while True:
            project = self.take().project
            if project in backlogged:
                self.push(project, weight=backlogged[project])
            yield project


def anything(_: Item) -> bool:
    return True


@st.composite
def operations(draw: st.DrawFn) -> list[tuple[str, str, str, str, int]]:
    operation = st.tuples(
        st.sampled_from(["push", "push", "take", "discard"]),
        st.sampled_from(TIERS),
        st.sampled_from(["", "a", "b"]),
        st.sampled_from(["", "x", "y"]),
        st.integers(0, 2**31 - 1),
    )
    return draw(st.lists(operation, max_size=60))


@given(operations())
def test_everything_that_stays_is_served_once_and_a_key_in_order_of_arrival(
    operations: list[tuple[str, str, str, str, int]],
) -> None:
    made, waiting, taken = Queue(), list[Item](), list[Item]()

    def take() -> None:
        item = made.queue.take(anything)
        if item is None:
            assert not waiting
            return
        assert TIERS.index(item.tier) == min(TIERS.index(other.tier) for other in waiting)
        assert item == min((other for other in waiting if other[:3] == item[:3]), key=lambda other: other.number)
        waiting.remove(item)
        taken.append(item)

    for name, tier, project, key, number in operations:
        if name == "push":
            waiting.append(made.push(project, key, number, tier))
        elif name == "discard" and waiting:
            gone = waiting.pop(number % len(waiting))
            assert made.queue.discard(gone)
            assert not made.queue.discard(gone)
        elif name == "take":
            take()
        assert len(made.queue) == len(waiting)
    while waiting:
        take()
    assert len(set(taken)) == len(taken)
    assert not any(made.queue.discard(item) for item in taken)


@given(weights, weights, passers)
def test_two_projects_that_always_wait_are_served_by_weight_whoever_passes(
    first: int, second: int, passers: list[str]
) -> None:
    """Over every stretch of turns, give or take a turn of each."""
    queue = Queue()
    turns = queue.served(a=first, b=second)
    shares = {"a": max(first, 1), "b": max(second, 1)}
    # How far a is ahead of b, in units of a turn divided by both weights.
    lead = [0]
    passing: list[Item] = []
    for number, passer in enumerate(passers):
        if passer == "push":
            passing.append(queue.push(f"passer-{number % 7}", weight=number % 5))
        elif passer == "discard" and passing:
            queue.queue.discard(passing.pop())
        project = next(turns)
        lead.append(lead[-1] + {"a": shares["b"], "b": -shares["a"]}.get(project, 0))
    # Weights that do not divide the virtual cost of a request are off by less than a millionth.
    assert max(lead) - min(lead) <= (shares["a"] + shares["b"]) * 1.000001


@given(weights, weights)
def test_nobody_starves(small: int, big: int) -> None:
    turns = list(islice(Queue().served(small=small, big=big), 60))
    assert {"small", "big"} == set(turns)


@given(st.integers(0, 40), weights, weights)
def test_a_project_that_was_idle_has_no_credit(idle_turns: int, present: int, coming: int) -> None:
    queue = Queue()
    turns = queue.served(present=present)
    for _ in range(idle_turns):
        next(turns)
    for _ in range(50):
        queue.push("coming", weight=coming)
    counted = Counter(islice(turns, 40))
    shares = {"present": max(present, 1), "coming": max(coming, 1)}
    assert counted["coming"] <= (counted["present"] + 1) * shares["coming"] / shares["present"] + 1


@given(weights, weights)
def test_coming_one_by_one_gains_nothing_over_waiting(patient: int, eager: int) -> None:
    """A project that pushes its next request once the last was served leaves the queue each time."""
    queue = Queue()
    turns = queue.served(patient=patient)
    counted: Counter[str] = Counter()
    queue.push("eager", weight=eager)
    for project in islice(turns, 60):
        counted[project] += 1
        if project == "eager":
            queue.push("eager", weight=eager)
    shares = {"patient": max(patient, 1), "eager": max(eager, 1)}
    assert counted["eager"] <= (counted["patient"] + 1) * shares["eager"] / shares["patient"] + 1
    assert counted["eager"] > 0


@given(st.integers(1, 40), weights)
def test_who_was_passed_over_is_not_paid_back(passed_turns: int, weight: int) -> None:
    queue = Queue()
    for project in ("passed", "served") * 100:
        queue.push(project, weight=weight)
    assert {queue.take("passed").project for _ in range(passed_turns)} == {"served"}
    counted = Counter(queue.take().project for _ in range(20))
    assert abs(counted["passed"] - counted["served"]) <= 2


@given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=30))
def test_the_keys_of_a_project_take_turns(others: list[str]) -> None:
    queue = Queue()
    for key in ("x", *others, "y", *["x", "y"] * 10):
        queue.push("project", key)
    counted: Counter[str] = Counter()
    for _ in range(len(others) + 12):
        counted[queue.take().key] += 1
        assert abs(counted["x"] - counted["y"]) <= 1


def test_who_cannot_be_served_is_passed_over_flow_by_flow() -> None:
    queue = Queue()
    for _ in range(300):
        for project in ("a", "b"):
            for key in ("x", "y"):
                queue.push(project, key)
    last = queue.push("c")
    asked: list[Item] = []

    def usable(item: Item) -> bool:
        asked.append(item)
        return item.project == "c"

    assert queue.queue.take(usable) == last
    assert len(asked) == 5
    assert queue.queue.take(usable) is None
    assert len(asked) == 9


@given(st.integers(0, 300), st.floats(0, 1.5))
def test_a_share_is_rounded_up_and_never_nothing(total: int, share: float) -> None:
    limit = allowed(Shares(total, share, 2.0), "key")
    assert limit >= 1
    assert total * share - 1e-6 <= limit < max(total * share + 1, 1.000001)


@pytest.mark.parametrize(
    ("total", "of_a_key", "of_a_project"),
    [(1, 1, 1), (4, 4, 4), (8, 8, 8), (9, 9, 9), (10, 9, 10), (20, 18, 19), (32, 29, 31), (64, 58, 61)],
)
def test_big_pools_keep_something_free_of_everybody_and_small_ones_are_not_crippled(
    total: int, of_a_key: int, of_a_project: int
) -> None:
    assert allowed(Shares(total, 0.9, 0.95), "key") == of_a_key
    assert allowed(Shares(total, 2.0, 0.95), "project") == of_a_project


def allowed(shares: Shares, whose: str) -> int:
    """How many one key may have until `whose` share is spent."""
    for number in count():
        if (spent := shares.spent(("project", "key"))) is not None:
            assert spent == whose
            return number
        shares.add(("project", "key"))
    raise AssertionError


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy")), max_size=40), st.data())
def test_shares_are_counted_exactly(owners: list[tuple[str, str]], data: st.DataObject) -> None:
    shares = Shares(10, 0.5, 0.8, owners[:5])
    for owner in owners[5:]:
        shares.add(owner)
    for owner in data.draw(st.permutations(owners)):
        keys, projects = Counter(owners), Counter(project for project, _ in owners)
        whose = "key" if keys[owner] >= 5 else "project" if projects[owner[0]] >= 8 else None
        assert shares.spent(owner) == whose
        shares.remove(owner)
        owners.remove(owner)
