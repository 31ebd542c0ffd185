"""Pools over a fleet without processes and a real router, with a clock of the test's own."""

import asyncio
from dataclasses import dataclass

import pytest

from modelplane.pools.v1 import pools_pb2
from modelplane.router.v1 import router_pb2
from services.catalog import Catalog, ModelSpec
from services.faults import Unavailable
from services.pools.messages import Start
from services.pools.service import Pools, pools_of
from services.pools.settings import Settings
from services.router.service import Router
from services.router.settings import Settings as RouterSettings
from tests.fakes.fleet import FakeFleet

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

    def __init__(self) -> None:
        self.clock = Clock()
        self.router = Router(RouterSettings())
        self.fleet = FakeFleet()
        pools = pools_of(Catalog((SPEC,)), Settings())
        self.pools = Pools(
            pools, self.router, self.fleet, start_of, interval_s=1.0, lost_after_s=30.0, clock=self.clock
        )

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
    await asyncio.wait_for(draining, 1)
    await bench.pools.look()
    assert not bench.fleet.running


async def test_stopping_does_not_wait_for_replicas_that_only_start(bench: Bench) -> None:
    await asyncio.wait_for(bench.pools.drain(), 1)
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
