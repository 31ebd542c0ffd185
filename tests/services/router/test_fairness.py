"""Many callers at one pool: the order of their turns, and how much of it one of them may hold."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import pytest
from prometheus_client import REGISTRY

from modelplane.router.v1 import router_pb2 as pb
from services.faults import Unavailable
from services.router.service import Router
from services.router.settings import Settings

Placing = asyncio.Task[pb.PlaceResponse]


class Callers:
    """Places and releases requests named `<project>/<key>/<number>`, and sees in which order they get a slot."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.placing: dict[str, Placing] = {}
        self._served: list[str] = []

    async def ask(self, project: str, key: str = "", times: int = 1, weight: int = 0, tier: str = "") -> None:
        for _ in range(times):
            name = f"{project}/{key}/{len(self.placing)}"
            request = pb.PlaceRequest(
                request_id=name, model="m", service_tier=tier, project_id=project, key_id=key, weight=weight
            )
            self.placing[name] = asyncio.create_task(self.router.place(request))
        await self.settle()

    async def settle(self) -> None:
        for _ in range(4):
            await asyncio.sleep(0)
        served = [name for name, task in self.placing.items() if task.done() and not task.cancelled()]
        self._served += [name for name in served if name not in self._served]

    async def release(self, name: str) -> None:
        await self.router.release(pb.ReleaseRequest(request_id=name))
        await self.settle()

    async def next(self) -> str:
        """Of a pool with one slot: ends the placement, and gives the project that gets the slot."""
        last = self._served[-1]
        await self.release(last)
        assert self._served[-2] == last
        return self._served[-1].split("/")[0]

    def served(self) -> Counter[str]:
        """How many requests of each project got a slot."""
        return Counter(name.split("/")[0] for name in self._served)

    async def register(self, slots: int, replica_id: str = "r1") -> None:
        replica = pb.Replica(id=replica_id, model="m", address=f"{replica_id}:1", slots=slots)
        await self.router.register(pb.RegisterRequest(replica=replica))
        await self.settle()


@pytest.fixture
def router() -> Iterator[Router]:
    router = Router(Settings(queue_size=100))
    yield router
    router.close()


@pytest.fixture
async def callers(router: Router) -> AsyncIterator[Callers]:
    callers = Callers(router)
    await router.put_pool(pb.PutPoolRequest(pool=pb.Pool(model="m")))
    yield callers
    for task in callers.placing.values():
        task.cancel()
    await asyncio.gather(*callers.placing.values(), return_exceptions=True)


async def test_projects_are_served_by_weight_however_many_of_their_requests_wait(callers: Callers) -> None:
    await callers.register(1)
    await callers.ask("crowd", times=60)
    await callers.ask("small", times=20, weight=1)
    await callers.ask("heavy", times=20, weight=2)
    turns = [await callers.next() for _ in range(20)]
    assert Counter(turns) == {"crowd": 5, "small": 5, "heavy": 10}
    assert max(len(part) for part in "".join(name[0] for name in turns).split("h")) <= 2


async def test_the_keys_of_a_project_take_turns(callers: Callers) -> None:
    await callers.register(1)
    await callers.ask("p", "x", times=10)
    await callers.ask("p", "y", times=2)
    for _ in range(4):
        await callers.next()
    assert [task.done() for name, task in callers.placing.items() if "/y/" in name] == [True, True]


async def test_one_key_and_one_project_leave_slots_free_for_others(callers: Callers) -> None:
    before = [held_back("key"), held_back("project")]
    await callers.register(20)
    await callers.ask("big", "x", times=30)
    assert callers.served() == {"big": 18}
    await callers.ask("big", "y", times=5)
    assert callers.served() == {"big": 19}
    await callers.ask("other")
    assert callers.served() == {"big": 19, "other": 1}
    assert [held_back("key"), held_back("project")] == [before[0] + 12, before[1] + 4]


async def test_the_share_of_a_key_is_counted_across_tiers(callers: Callers) -> None:
    await callers.register(10)
    await callers.ask("big", "x", times=9)
    await callers.ask("big", "x", tier="scale")
    await callers.ask("other", tier="batch")
    assert callers.served() == {"big": 9, "other": 1}


async def test_a_small_pool_serves_whoever_is_there(callers: Callers) -> None:
    await callers.register(4)
    await callers.ask("only", "x", times=4)
    assert callers.served() == {"only": 4}


async def test_a_key_at_its_share_goes_on_as_soon_as_one_of_its_requests_ends(callers: Callers) -> None:
    await callers.register(10)
    await callers.ask("big", "x", times=11)
    assert callers.served() == {"big": 9}
    await callers.release("big/x/0")
    assert callers.served() == {"big": 10}
    await callers.release("big/x/1")
    assert callers.served() == {"big": 11}


async def test_a_wait_for_ones_share_that_is_cancelled_leaves_nothing(callers: Callers) -> None:
    await callers.register(10)
    await callers.ask("big", "x", times=11)
    for name in ("big/x/9", "big/x/10"):
        callers.placing[name].cancel()
    await asyncio.gather(*callers.placing.values(), return_exceptions=True)
    for number in range(9):
        await callers.router.release(pb.ReleaseRequest(request_id=f"big/x/{number}"))
    [status] = (await callers.router.list_pools(pb.ListPoolsRequest())).pools
    assert (status.running, status.queued) == (0, 0)
    await callers.ask("big", "x", times=9)
    assert callers.served() == {"big": 18}


async def test_what_runs_on_a_replica_that_drains_takes_nothing_of_its_successor(callers: Callers) -> None:
    await callers.register(10)
    await callers.ask("big", "x", times=9)
    await callers.router.deregister(pb.DeregisterRequest(replica_id="r1"))
    await callers.register(10, "r2")
    await callers.ask("big", "x", times=10)
    assert callers.served() == {"big": 18}
    await callers.release("big/x/0")
    assert callers.served() == {"big": 18}
    await callers.release("big/x/9")
    assert callers.served() == {"big": 19}


async def test_more_replicas_raise_the_share(callers: Callers) -> None:
    await callers.register(10)
    await callers.ask("big", "x", times=30)
    await callers.register(10, "r2")
    assert callers.served() == {"big": 18}


async def test_a_lost_replica_takes_its_placements_out_of_the_share(callers: Callers) -> None:
    await callers.register(10)
    await callers.ask("big", "x", times=9)
    unwell = pb.HeartbeatRequest(replica_id="r1", load=pb.Load(healthy=False))
    await callers.router.heartbeat(unwell)
    unwell.load.healthy = True
    await callers.router.heartbeat(unwell)
    await callers.ask("big", "x", times=10)
    assert callers.served() == {"big": 18}


async def test_one_key_cannot_fill_the_queue(callers: Callers) -> None:
    await callers.ask("big", "x", times=90)
    with pytest.raises(Unavailable, match="overloaded"):
        await callers.router.place(pb.PlaceRequest(request_id="late", model="m", project_id="big", key_id="x"))
    await callers.ask("other", times=10)
    assert not any(task.done() for task in callers.placing.values())


def held_back(share: str) -> float:
    labels = {"model": "m", "share": share}
    return REGISTRY.get_sample_value("modelplane_router_held_back_requests_total", labels) or 0
