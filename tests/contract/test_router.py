"""RouterService, over both wirings."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from modelplane.router.v1 import router_pb2 as pb
from modelplane.router.v1.router_api import RouterService
from services.context import call
from services.faults import InvalidRequest, NotFound, Unavailable
from services.router.service import Router
from services.router.settings import Settings
from tests.contract.conftest import Wire

POOL = pb.Pool(model="m", owned_by="us", created_at=7, context_tokens=2048, min_replicas=1, max_replicas=2)


@pytest.fixture
async def router(wire: Wire) -> AsyncIterator[RouterService]:
    service = Router(Settings(queue_size=2, queue_timeout_ms=200, retry_after_ms=700, settle_ms=0))
    client = await wire(RouterService, service)
    await client.put_pool(pb.PutPoolRequest(pool=POOL))
    yield client
    service.close()


async def register(router: RouterService, replica_id: str = "r1", slots: int = 1) -> pb.Replica:
    replica = pb.Replica(id=replica_id, model="m", address=f"{replica_id}:1", slots=slots)
    await router.register(pb.RegisterRequest(replica=replica))
    return replica


async def place(
    router: RouterService, request_id: str, *excluded: str, tier: str = "", project: str = "", key: str = ""
) -> pb.Placement:
    request = pb.PlaceRequest(
        request_id=request_id,
        model="m",
        prefix_hash=5,
        service_tier=tier,
        excluded_replica_ids=excluded,
        project_id=project,
        key_id=key,
    )
    with call(request_id, 30.0):
        return (await router.place(request)).placement


async def status(router: RouterService) -> pb.PoolStatus:
    [status] = (await router.list_pools(pb.ListPoolsRequest())).pools
    return status


async def queued(router: RouterService, count: int) -> None:
    while (await status(router)).queued != count:
        await asyncio.sleep(0.005)


async def test_a_pool_and_its_live_state(router: RouterService) -> None:
    assert await status(router) == pb.PoolStatus(pool=POOL)
    replica = await register(router)
    placement = await place(router, "a", tier="priority")
    assert placement == pb.Placement(request_id="a", replica_id="r1", address="r1:1", service_tier="priority")
    assert await status(router) == pb.PoolStatus(pool=POOL, replicas=[replica], running=1)
    for _ in range(2):
        await router.release(pb.ReleaseRequest(request_id="a"))
    assert (await status(router)).running == 0


async def test_an_unknown_model(router: RouterService) -> None:
    with pytest.raises(NotFound) as caught:
        await router.place(pb.PlaceRequest(request_id="a", model="other"))
    assert (caught.value.reason, caught.value.param) == ("model_not_found", "model")


async def test_an_unknown_tier(router: RouterService) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await place(router, "a", tier="express")
    assert caught.value.param == "service_tier"


async def test_no_replica_in_time(router: RouterService) -> None:
    with pytest.raises(Unavailable) as caught:
        await place(router, "a")
    assert (caught.value.reason, caught.value.retry_after_ms) == ("no_replica", 700)
    assert (await status(router)).queued == 0


async def test_no_slot_in_time(router: RouterService) -> None:
    await register(router)
    await place(router, "a")
    with pytest.raises(Unavailable) as caught:
        await place(router, "b")
    assert caught.value.reason == "overloaded"


async def test_a_full_queue(router: RouterService) -> None:
    waiting = [asyncio.create_task(place(router, name)) for name in "ab"]
    await queued(router, 2)
    with pytest.raises(Unavailable) as caught:
        await place(router, "c")
    assert (caught.value.reason, caught.value.retry_after_ms) == ("overloaded", 700)
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_waiting_until_a_replica_comes(router: RouterService) -> None:
    waiting = asyncio.create_task(place(router, "a"))
    await queued(router, 1)
    await register(router)
    assert (await waiting).replica_id == "r1"


async def test_a_cancelled_wait_leaves_the_queue(router: RouterService) -> None:
    waiting = asyncio.create_task(place(router, "a"))
    await queued(router, 1)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await queued(router, 0)
    await register(router)
    assert (await status(router)).running == 0


async def test_one_key_cannot_fill_a_pool(router: RouterService) -> None:
    await register(router, slots=10)
    for number in range(9):
        await place(router, f"a{number}", project="p", key="x")
    with pytest.raises(Unavailable) as caught:
        await place(router, "a9", project="p", key="x")
    assert caught.value.reason == "overloaded"
    await place(router, "b", project="p", key="y")
    assert (await status(router)).running == 10


async def test_failed_replicas_are_avoided(router: RouterService) -> None:
    await register(router, "r1")
    await register(router, "r2")
    assert (await place(router, "a", "r1")).replica_id == "r2"
    with pytest.raises(Unavailable) as caught:
        await place(router, "b", "r1", "r2")
    assert caught.value.reason == "no_replica"


async def test_an_unknown_replica_is_told_to_register(router: RouterService) -> None:
    beat = pb.HeartbeatRequest(replica_id="r1", load=pb.Load(healthy=True))
    assert not (await router.heartbeat(beat)).registered
    await register(router)
    assert (await router.heartbeat(beat)).registered


async def test_a_draining_replica_keeps_what_it_has_and_gets_nothing_new(router: RouterService) -> None:
    await register(router, slots=2)
    await place(router, "a")
    await router.deregister(pb.DeregisterRequest(replica_id="r1"))
    assert await status(router) == pb.PoolStatus(pool=POOL, running=1)
    with pytest.raises(Unavailable) as caught:
        await place(router, "b")
    assert caught.value.reason == "no_replica"


async def test_an_unhealthy_replica_loses_its_placements(router: RouterService) -> None:
    replica = await register(router)
    await place(router, "a")
    await router.heartbeat(pb.HeartbeatRequest(replica_id="r1", load=pb.Load(healthy=False)))
    assert await status(router) == pb.PoolStatus(pool=POOL)
    await router.heartbeat(pb.HeartbeatRequest(replica_id="r1", load=pb.Load(healthy=True)))
    assert await status(router) == pb.PoolStatus(pool=POOL, replicas=[replica])


async def test_a_removed_pool_is_not_found_and_what_runs_is_finished(router: RouterService) -> None:
    await register(router)
    held = await place(router, "runs")
    waiting = asyncio.create_task(place(router, "waits"))
    while not (await router.list_pools(pb.ListPoolsRequest())).pools[0].queued:
        await asyncio.sleep(0.01)
    await router.remove_pool(pb.RemovePoolRequest(model="m"))
    for refused in (waiting, place(router, "later")):
        with pytest.raises(NotFound) as caught:
            await refused
        assert caught.value.reason == "model_not_found"
    assert not (await router.list_pools(pb.ListPoolsRequest())).pools
    # Its replica is still known, until it goes by itself.
    load = pb.Load(healthy=True, request_ids=[held.request_id], output_tokens_per_s=3.5)
    beat = pb.HeartbeatRequest(replica_id="r1", load=load)
    assert (await router.heartbeat(beat)).registered
    await router.release(pb.ReleaseRequest(request_id="runs"))
    for _ in range(2):
        await router.remove_pool(pb.RemovePoolRequest(model="m"))
    await router.remove_pool(pb.RemovePoolRequest(model="never there"))
    await router.put_pool(pb.PutPoolRequest(pool=POOL))
    assert (await place(router, "again")).replica_id == "r1"
    [status] = (await router.list_pools(pb.ListPoolsRequest())).pools
    assert (status.pool, status.running, status.output_tokens_per_s) == (POOL, 1, 3.5)
