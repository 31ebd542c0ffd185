"""The plan of a model pool, whatever happens in whatever order beside it."""

import random
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from operators.model_pool.plan import AddGroup, DropGroup, Pool, Release, ScaleGroup, plan
from operators.model_pool.workers import is_group_of
from tests.operators.model_pool.played import Played, spec

LEAST, SPAN = st.integers(0, 3), st.integers(0, 3)
STEPS = st.sampled_from(
    (
        *("turn", "turn", "kuberay_looks", "pods_go_on", "pools_follow", "pools_look", "ray_places"),
        *("replicas_start", "replicas_finish", "blind", "image", "slots", "busy"),
    )
)


@st.composite
def worlds(draw: st.DrawFn) -> Played:
    least = draw(LEAST)
    counts = {"min": least, "max": max(1, least + draw(SPAN)), "surge": draw(st.integers(0, 1))}
    pool = Pool("a", spec(replicas=counts), "2026-01-01T00:00:00Z", 1)
    return Played(pool, random.Random(draw(st.integers(0, 2**32))))


def change(world: Played, **changes: Any) -> None:
    assert world.pool.spec is not None
    world.pool = replace(world.pool, spec={**world.pool.spec, **changes}, generation=world.pool.generation + 1)


def step(world: Played, name: str) -> None:
    match name:
        case "blind":
            world.turn(asked=False)
        case "image":
            change(world, image=f"worker:{world.random.randint(1, 4)}")
        case "slots":
            change(world, slots=world.random.randint(1, 64))
        case "busy":
            world.pools_look(running=world.random.randint(0, 200))
        case _:
            getattr(world, name)()


@settings(deadline=None)
@given(worlds(), st.lists(STEPS, max_size=60))
def test_a_second_plan_does_nothing(world: Played, steps: list[str]) -> None:
    for name in steps:
        step(world, name)
        world.turn()
        actions = world.turn().actions
        assert all(isinstance(action, DropGroup) for action in actions)
        assert plan(world.pool, world.observed(), world.platform).actions == ()


@settings(deadline=None)
@given(worlds(), st.lists(STEPS, max_size=80))
def test_it_converges_to_one_pod_for_each_wanted_replica(world: Played, steps: list[str]) -> None:
    for name in steps:
        step(world, name)
    world.settle()
    counts = world.pool.spec["replicas"] if world.pool.spec else {}
    assert counts["min"] <= world.ready() == world.wanted == len(world.pods) <= counts["max"]
    assert len(world.groups) == 1
    assert world.turn().actions == ()


@settings(deadline=None)
@given(worlds(), st.lists(STEPS, max_size=120))
def test_no_pod_with_a_replica_that_serves_is_ever_taken_away(world: Played, steps: list[str]) -> None:
    world.settle(10)
    for name in steps:
        step(world, name)
        step(world, "kuberay_looks")
    assert world.killed == []


@settings(deadline=None)
@given(worlds(), st.sampled_from(("image", "slots", "revision")), st.lists(STEPS, max_size=60))
def test_a_roll_never_serves_with_less(world: Played, what: str, steps: list[str]) -> None:
    world.settle()
    before = world.ready()
    change(world, **{what: {"image": "worker:new", "slots": 77, "revision": "2"}[what]})
    surge = world.pool.spec["replicas"]["surge"] if world.pool.spec else 0
    for name in steps:
        if name not in ("image", "slots", "busy"):
            step(world, name)
            assert world.ready() >= before - (1 - surge) or not before
    world.settle()
    assert world.killed == []
    assert all(one.generation == next(iter(world.replicas.values())).generation for one in world.replicas.values())


@settings(deadline=None)
@given(worlds(), st.lists(STEPS, max_size=60))
def test_a_roll_where_there_is_no_room_for_one_more_ends_too(world: Played, steps: list[str]) -> None:
    world.settle()
    world.rooms = len(world.pods)
    change(world, image="worker:new")
    for name in steps:
        if name not in ("image", "slots", "busy"):
            step(world, name)
    world.settle(200)
    assert len(world.groups) == 1
    assert world.killed == []
    assert world.ready() == world.wanted


@settings(deadline=None)
@given(worlds(), st.lists(STEPS, max_size=30))
def test_to_zero_and_back(world: Played, steps: list[str]) -> None:
    change(world, replicas={"min": 0, "max": 2, "surge": 1})
    for name in steps:
        step(world, name)
    world.settle()
    assert (world.ready(), len(world.pods)) == (0, 0)
    world.settle(queued=1)
    assert (world.ready(), len(world.pods)) == (1, 1)
    world.settle()
    assert (world.ready(), len(world.pods)) == (0, 0)
    assert world.killed == []


@settings(deadline=None)
@given(worlds())
def test_a_pool_whose_model_another_has_waits_and_may_go(world: Played) -> None:
    seen = replace(world.observed(), holder="b")
    planned = plan(world.pool, seen, world.platform)
    assert (planned.actions, planned.entry) == ((), None)
    assert "the pool b" in planned.refused
    assert plan(replace(world.pool, deleting=True), seen, world.platform).actions == (Release(),)


@settings(deadline=None)
@given(worlds(), st.lists(STEPS, max_size=60), st.lists(STEPS, max_size=60))
def test_an_object_that_is_deleted_leaves_nothing(world: Played, steps: list[str], after: list[str]) -> None:
    for name in steps:
        step(world, name)
    world.pool = replace(world.pool, deleting=True)
    for name in after:
        step(world, name)
        if world.released:
            assert world.entry is None
            assert not world.groups
            assert not world.replicas
    world.settle()
    assert world.released
    assert world.killed == []
    assert (world.entry, world.groups, world.pods, world.replicas) == (None, [], {}, {})


@settings(deadline=None)
@given(worlds(), worlds(), st.lists(st.tuples(st.booleans(), STEPS), max_size=80))
def test_two_pools_never_touch_each_others_groups(one: Played, other: Played, steps: list[tuple[bool, str]]) -> None:
    # A name that goes on as a group of the other would.
    other.pool = replace(other.pool, name="a-0123abcd", spec={**(other.pool.spec or {}), "model": "other"})
    other.groups, other.pods = one.groups, one.pods
    for first, name in steps:
        world = one if first else other
        for action in plan(world.pool, world.observed(), world.platform).actions:
            if isinstance(action, ScaleGroup):
                assert is_group_of(world.pool.name, action.group)
            if isinstance(action, AddGroup):
                assert is_group_of(world.pool.name, action.document["groupName"])
        theirs = [group for group in one.groups if not is_group_of(world.pool.name, group["groupName"])]
        step(world, name)
        assert [group for group in one.groups if not is_group_of(world.pool.name, group["groupName"])] == theirs
