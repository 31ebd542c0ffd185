"""Pools over a fleet without processes and a real router, with a clock of the test's own."""

import asyncio
from dataclasses import dataclass

import pytest
from msgspec.structs import replace

from modelplane.pools.v1 import pools_pb2
from modelplane.router.v1 import router_pb2
from services.catalog import Catalog, ModelSpec, generation
from services.faults import NotFound, Unavailable
from services.pools.messages import Found, Start
from services.pools.service import Pools
from services.pools.settings import Settings
from services.router.service import Router
from services.router.settings import Settings as RouterSettings
from tests.fakes.fleet import FakeFleet

STARTING = pools_pb2.REPLICA_STATE_STARTING
SPEC = ModelSpec(name="m", engine="scripted", owned_by="us", context_tokens=100, slots=2, max_replicas=2)


def start_of(spec: ModelSpec, replica_id: str) -> Start:
    return Start(replica_id, {"MODELPLANE_CHAT_INFERENCE_MODEL": spec.name}, 0.0, 0.0, "/dev/null")


@dataclass
class Clock:
    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


class Bench:
    """Pools and their surroundings; `look` is the test's to call."""

    def __init__(self, outlived: bool = False) -> None:
        self.clock = Clock()
        self.router = Router(RouterSettings())
        self.fleet = FakeFleet(outlived)
        self.catalog = Catalog((SPEC,))
        self.pools = Pools(self.catalog, Settings(), self.router, self.fleet, start_of, clock=self.clock)
        self.catalog.subscribe(self.pools.renew)

    async def open(self) -> None:
        """Takes the fleet's events, without the loop that looks."""
        await self.fleet.open(self.pools.accept)
        await self.pools.look()

    async def ready(self, replica_id: str) -> None:
        replica = router_pb2.Replica(id=replica_id, model="m", address=f"{replica_id}:1", slots=2)
        await self.router.register(router_pb2.RegisterRequest(replica=replica))
        self.fleet.ready(replica_id)

    async def infos(self) -> list[pools_pb2.ReplicaInfo]:
        return list((await self.pools.list_replicas(pools_pb2.ListReplicasRequest())).replicas)

    async def statuses(self) -> list[router_pb2.PoolStatus]:
        return list((await self.router.list_pools(router_pb2.ListPoolsRequest())).pools)

    async def info(self, model: str = "m") -> pools_pb2.PoolInfo:
        pools = (await self.pools.list_pools(pools_pb2.ListPoolsRequest())).pools
        return {pool.model: pool for pool in pools}[model]

    async def configure(self, *specs: ModelSpec) -> None:
        self.catalog.replace(Catalog(specs))
        await self.pools.look()

    async def after(self, seconds: float) -> None:
        self.clock.now_s += seconds
        await self.pools.look()


@pytest.fixture
async def bench() -> Bench:
    bench = Bench()
    await bench.open()
    return bench


async def test_a_pool_is_declared_and_declared_again_when_forgotten(bench: Bench) -> None:
    [status] = await bench.statuses()
    assert (status.pool.model, status.pool.owned_by, status.pool.context_tokens) == ("m", "us", 100)
    assert (status.pool.min_replicas, status.pool.max_replicas) == (1, 2)
    await bench.router.put_pool(router_pb2.PutPoolRequest(pool=router_pb2.Pool(model="m")))
    await bench.after(1)
    assert [again.pool for again in await bench.statuses()] == [status.pool]


async def test_a_replica_from_start_to_ready(bench: Bench) -> None:
    [info] = await bench.infos()
    assert (info.model, info.state, info.phase, info.pid) == (
        "m",
        pools_pb2.REPLICA_STATE_STARTING,
        "loading weights",
        17,
    )
    assert info.started_at_ms > 0
    with pytest.raises(Unavailable, match="loading weights") as caught:
        await bench.pools.ping()
    assert caught.value.reason == "not_ready"
    await bench.ready(info.id)
    [info] = await bench.infos()
    assert (info.state, info.address, info.phase) == (pools_pb2.REPLICA_STATE_READY, f"{info.id}:1", "")
    await bench.pools.ping()


async def test_a_replica_that_dies_is_replaced_and_out_of_the_router(bench: Bench) -> None:
    [first] = bench.fleet.running
    await bench.ready(first)
    bench.fleet.end(first, "SIGKILL")
    await bench.pools.look()
    [second] = bench.fleet.running
    assert second != first
    assert not (await bench.statuses())[0].replicas
    with pytest.raises(Unavailable):
        await bench.pools.ping()


async def test_failed_starts_are_repeated_after_growing_pauses(bench: Bench) -> None:
    for _ in range(2):
        [replica_id] = bench.fleet.running
        bench.fleet.end(replica_id, "no weights")
        await bench.pools.look()
    assert not bench.fleet.running
    [info] = await bench.infos()
    assert info.phase == "waiting to start again after: no weights"
    await bench.after(0.9)
    assert not bench.fleet.running
    await bench.after(0.2)
    assert len(bench.fleet.running) == 1


async def test_a_queue_makes_the_pool_grow_and_idleness_shrink(bench: Bench) -> None:
    [first] = bench.fleet.running
    await bench.ready(first)
    requests = [router_pb2.PlaceRequest(request_id=str(number), model="m") for number in range(8)]
    waiting = [asyncio.create_task(bench.router.place(request)) for request in requests]
    await asyncio.sleep(0)
    assert (await bench.statuses())[0].queued == 6
    await bench.after(0)
    await bench.after(5)
    [_, second] = bench.fleet.running
    await bench.ready(second)
    for request in requests:
        await bench.router.release(router_pb2.ReleaseRequest(request_id=request.request_id))
        await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert (await bench.statuses())[0].running == 0
    await bench.after(1)
    await bench.after(300)
    assert bench.fleet.draining == [second]
    assert list(bench.fleet.running) == [first]


async def test_draining_waits_for_every_replica_and_starts_none(bench: Bench) -> None:
    [replica_id] = bench.fleet.running
    await bench.ready(replica_id)
    bench.fleet.drains = False
    draining = asyncio.create_task(bench.pools.drain())
    await asyncio.sleep(0)
    assert (await bench.infos())[0].state == pools_pb2.REPLICA_STATE_DRAINING
    await bench.pools.look()
    assert not draining.done()
    bench.fleet.end(replica_id)
    await asyncio.wait_for(draining, 30)
    await bench.pools.look()
    assert not bench.fleet.running


async def test_stopping_does_not_wait_for_replicas_that_only_start(bench: Bench) -> None:
    await asyncio.wait_for(bench.pools.drain(), 30)
    assert not bench.fleet.draining


async def test_a_replica_that_hangs_is_killed_and_replaced(bench: Bench) -> None:
    [first] = bench.fleet.running
    await bench.ready(first)
    await bench.after(100)
    assert list(bench.fleet.running) == [first]
    await bench.router.deregister(router_pb2.DeregisterRequest(replica_id=first))
    await bench.after(29)
    assert list(bench.fleet.running) == [first]
    await bench.after(1)
    [second] = bench.fleet.running
    assert second != first


async def test_the_loop_acts_at_once_when_a_replica_ends() -> None:
    bench = Bench()
    await bench.pools.open()
    try:
        while not bench.fleet.running:
            await asyncio.sleep(0.01)
        [first] = bench.fleet.running
        bench.fleet.end(first, "gone")
        while not bench.fleet.running:
            await asyncio.sleep(0.01)
    finally:
        await bench.pools.close()
    assert bench.fleet.closed


async def test_a_changed_model_is_rolled_one_by_one(bench: Bench) -> None:
    spec = replace(SPEC, min_replicas=2)
    await bench.configure(spec)
    first, second = bench.fleet.running
    await bench.ready(first)
    await bench.ready(second)
    await bench.configure(replace(spec, owned_by="them", max_replicas=3))
    assert list(bench.fleet.running) == [first, second]
    assert (await bench.statuses())[0].pool.owned_by == "them"
    await bench.configure(replace(spec, context_tokens=50))
    info = await bench.info()
    assert (info.wanted, info.ready, info.starting, info.outdated, info.max_replicas) == (3, 2, 1, 2, 2)
    old = {first, second}
    while old:
        [fresh] = [replica.id for replica in (await bench.info()).replicas if replica.state == STARTING]
        assert old <= set(bench.fleet.running)
        await bench.ready(fresh)
        await bench.pools.look()
        [drained] = old - set(bench.fleet.running)
        old.discard(drained)
        await bench.router.deregister(router_pb2.DeregisterRequest(replica_id=drained))
        await bench.pools.look()
    info = await bench.info()
    assert (info.wanted, info.ready, info.starting, info.outdated) == (2, 2, 0, 0)
    assert {start.generation for start in bench.fleet.running.values()} == {info.generation}


async def test_without_room_for_a_successor_one_makes_room(bench: Bench) -> None:
    [first] = bench.fleet.running
    await bench.ready(first)
    await bench.configure(replace(SPEC, revision="2", max_replicas=1))
    [_, fresh] = bench.fleet.running
    bench.fleet.crowded(fresh)
    await bench.after(0)
    info = await bench.info()
    assert (info.ready, info.waiting_for) == (1, "no node has pool-m free")
    await bench.after(59)
    assert first in bench.fleet.running
    await bench.after(1)
    assert list(bench.fleet.running) == [fresh]


async def test_models_come_and_go(bench: Bench) -> None:
    [first] = bench.fleet.running
    await bench.ready(first)
    other = ModelSpec(name="other", engine="scripted", min_replicas=0)
    await bench.configure(SPEC, other)
    assert [status.pool.model for status in await bench.statuses()] == ["m", "other"]
    # Models that came later do not decide whether this process is ready.
    await bench.configure(SPEC, replace(other, min_replicas=1))
    await bench.pools.ping()
    assert len(bench.fleet.running) == 2
    bench.fleet.drains = False
    await bench.configure(replace(other, min_replicas=1))
    assert bench.fleet.draining == [first]
    assert [status.pool.model for status in await bench.statuses()] == ["other"]
    with pytest.raises(NotFound):
        await bench.router.place(router_pb2.PlaceRequest(request_id="r", model="m"))
    info = await bench.info()
    assert (info.removed, info.draining, info.wanted, info.waiting_for) == (True, 1, 0, "")
    bench.fleet.end(first)
    await bench.pools.look()
    assert [pool.model for pool in (await bench.pools.list_pools(pools_pb2.ListPoolsRequest())).pools] == ["other"]
    await bench.configure(SPEC, other)
    assert {status.pool.model for status in await bench.statuses()} == {"m", "other"}
    assert "m" in {start.model for start in bench.fleet.running.values()}


async def test_a_model_that_comes_back_while_it_goes(bench: Bench) -> None:
    [first] = bench.fleet.running
    await bench.ready(first)
    bench.fleet.drains = False
    await bench.configure()
    await bench.configure(SPEC)
    [again] = set(bench.fleet.running) - {first}
    await bench.ready(again)
    bench.fleet.end(first)
    await bench.pools.look()
    info = await bench.info()
    assert (info.removed, info.ready, info.draining) == (False, 1, 0)


async def test_a_pool_sleeps_until_it_is_asked(bench: Bench) -> None:
    await bench.configure(replace(SPEC, min_replicas=0))
    [first] = bench.fleet.running
    await bench.ready(first)
    await bench.after(1)
    await bench.after(300)
    info = await bench.info()
    assert (info.wanted, info.ready, info.waiting_for, not bench.fleet.running) == (0, 0, "", True)
    await bench.router.deregister(router_pb2.DeregisterRequest(replica_id=first))
    asked = asyncio.create_task(bench.router.place(router_pb2.PlaceRequest(request_id="r", model="m")))
    await asyncio.sleep(0)
    await bench.pools.look()
    info = await bench.info()
    assert (info.wanted, info.queued, info.waiting_for) == (1, 1, "loading weights")
    [second] = bench.fleet.running
    await bench.ready(second)
    assert (await asked).placement.replica_id == second


async def test_replicas_that_run_already_are_taken_over() -> None:
    bench = Bench(outlived=True)
    await bench.open()
    assert not bench.fleet.running
    with pytest.raises(Unavailable, match="not known yet"):
        await bench.info()
    kept, gone = (Found(name, name[0], generation(SPEC), 5, False) for name in ("m-1", "x-1"))
    bench.fleet.running = {found.replica_id: start_of(SPEC, found.replica_id) for found in (kept, gone)}
    bench.fleet.connected(kept, gone)
    await bench.pools.look()
    # Nobody knows its model any more.
    assert bench.fleet.draining == ["x-1"]
    await bench.ready("m-1")
    await bench.pools.look()
    info = await bench.info()
    assert list(bench.fleet.running) == ["m-1"]
    assert (info.wanted, info.ready, info.outdated, info.replicas[0].started_at_ms) == (1, 1, 0, 5)
    # They go on when this process ends.
    await asyncio.wait_for(bench.pools.drain(), 30)
    assert list(bench.fleet.running) == ["m-1"]


async def test_an_outdated_replica_that_is_taken_over_is_replaced() -> None:
    bench = Bench(outlived=True)
    await bench.open()
    bench.fleet.running = {"m-1": start_of(SPEC, "m-1")}
    bench.fleet.connected(Found("m-1", "m", "another", 5, False))
    await bench.ready("m-1")
    await bench.pools.look()
    [_, fresh] = bench.fleet.running
    await bench.ready(fresh)
    await bench.pools.look()
    assert list(bench.fleet.running) == [fresh]
