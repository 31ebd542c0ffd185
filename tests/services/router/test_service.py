"""The router in its own process, with a clock of the test's own."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest
from prometheus_client import REGISTRY

from modelplane.router.v1 import router_pb2 as pb
from services import context
from services.faults import NotFound, Unavailable
from services.router.service import Router
from services.router.settings import Settings


@dataclass
class Clock:
    now_ms: float = 1000.0

    def __call__(self) -> float:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def router(clock: Clock) -> Iterator[Router]:
    router = Router(Settings(), clock)
    yield router
    router.close()


@pytest.fixture
async def replica(router: Router) -> AsyncIterator[None]:
    await router.put_pool(pb.PutPoolRequest(pool=pb.Pool(model="m")))
    await register(router, "r1", 1)
    yield


async def register(router: Router, replica_id: str, slots: int) -> None:
    replica = pb.Replica(id=replica_id, model="m", address="127.0.0.1:1", slots=slots)
    await router.register(pb.RegisterRequest(replica=replica))


async def beat(router: Router, *request_ids: str) -> bool:
    load = pb.Load(request_ids=request_ids, healthy=True)
    return (await router.heartbeat(pb.HeartbeatRequest(replica_id="r1", load=load))).registered


async def running(router: Router) -> int:
    return (await router.list_pools(pb.ListPoolsRequest())).pools[0].running


def request(request_id: str, tier: str = "default", *excluded: str) -> pb.PlaceRequest:
    return pb.PlaceRequest(
        request_id=request_id, model="m", prefix_hash=1, service_tier=tier, excluded_replica_ids=excluded
    )


async def test_waiting_requests_are_served_by_tier_then_in_order(router: Router, replica: None) -> None:
    await router.place(request("first"))
    order: list[str] = []

    async def wait(request_id: str, tier: str) -> None:
        await router.place(request(request_id, tier))
        order.append(request_id)

    arrivals = ["batch", "default", "scale", "default", "flex", "priority"]
    async with asyncio.TaskGroup() as group:
        for number, tier in enumerate(arrivals):
            group.create_task(wait(f"{tier}-{number}", tier))
        await asyncio.sleep(0)
        for previous in ("first", "scale-2", "priority-5", "default-1", "default-3", "flex-4"):
            await router.release(pb.ReleaseRequest(request_id=previous))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
    assert order == ["scale-2", "priority-5", "default-1", "default-3", "flex-4", "batch-0"]


async def test_a_wait_cancelled_in_the_moment_of_its_turn_gives_the_slot_back(router: Router, replica: None) -> None:
    await router.place(request("a"))
    waiting = asyncio.create_task(router.place(request("b")))
    await asyncio.sleep(0)
    await router.release(pb.ReleaseRequest(request_id="a"))
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert waiting.cancelled()
    assert await running(router) == 0


async def test_one_who_cannot_use_a_slot_does_not_hold_up_the_next(router: Router, replica: None) -> None:
    await router.place(request("a"))
    choosy = asyncio.create_task(router.place(request("b", "scale", "r1")))
    easy = asyncio.create_task(router.place(request("c", "batch")))
    await asyncio.sleep(0)
    await router.release(pb.ReleaseRequest(request_id="a"))
    assert (await easy).placement.replica_id == "r1"
    await register(router, "r2", 1)
    assert (await choosy).placement.replica_id == "r2"


async def test_a_silent_replica_is_lost_with_its_placements(router: Router, replica: None, clock: Clock) -> None:
    await router.place(request("a"))
    clock.now_ms += 4000
    assert await beat(router, "a")
    clock.now_ms += 5000
    router.sweep()
    assert await running(router) == 1
    clock.now_ms += 1
    router.sweep()
    assert await running(router) == 0
    assert not await beat(router, "a")


async def test_a_placement_that_its_replica_does_not_know_ends(router: Router, replica: None, clock: Clock) -> None:
    await router.place(request("a"))
    clock.now_ms += 5000
    await beat(router)
    assert await running(router) == 1
    clock.now_ms += 1
    await beat(router, "a")
    assert await running(router) == 1
    await beat(router)
    assert await running(router) == 0
    await router.release(pb.ReleaseRequest(request_id="a"))
    assert await running(router) == 0


async def test_registering_again_keeps_the_placements(router: Router, replica: None) -> None:
    await router.place(request("a"))
    await register(router, "r1", 2)
    assert await running(router) == 1
    await router.place(request("b"))
    await router.release(pb.ReleaseRequest(request_id="a"))
    await router.release(pb.ReleaseRequest(request_id="b"))
    assert await running(router) == 0


async def test_placing_a_request_again_moves_it(router: Router, replica: None) -> None:
    await router.place(request("a"))
    await router.place(request("a"))
    assert await running(router) == 1


async def test_a_replica_may_be_faster_than_its_pool(router: Router) -> None:
    await register(router, "r1", 1)
    assert not (await router.list_pools(pb.ListPoolsRequest())).pools
    assert (await router.place(request("a"))).placement.replica_id == "r1"


async def test_metrics_follow_the_live_state(router: Router, replica: None) -> None:
    await router.place(request("a"))
    waiting = asyncio.create_task(router.place(request("b")))
    await asyncio.sleep(0)
    assert [
        REGISTRY.get_sample_value(f"modelplane_router_{name}", {"model": "m"})
        for name in ("queued_requests", "running_requests", "replicas")
    ] == [1, 1, 1]
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


def asked(request_id: str, model: str = "m") -> pb.PlaceRequest:
    return pb.PlaceRequest(request_id=request_id, model=model, key_id="k", project_id="p")


async def test_after_a_restart_a_request_waits_until_its_model_is_known() -> None:
    router = Router(Settings())
    placing = asyncio.create_task(router.place(asked("req_1")))
    await asyncio.sleep(0.05)
    await router.put_pool(pb.PutPoolRequest(pool=pb.Pool(model="other")))
    await asyncio.sleep(0.05)
    assert not placing.done()
    await register(router, "r1", 1)
    assert (await asyncio.wait_for(placing, 30)).placement.replica_id == "r1"
    router.close()


async def test_a_model_that_nobody_tells_of_does_not_exist() -> None:
    router = Router(Settings(settle_ms=100))
    started_s = time.monotonic()
    with pytest.raises(NotFound):
        await router.place(asked("req_1"))
    assert 0.09 < time.monotonic() - started_s < 3
    with pytest.raises(NotFound):
        await asyncio.wait_for(router.place(asked("req_2")), 30)


async def test_whoever_cannot_wait_for_the_models_is_told_to_come_back() -> None:
    router = Router(Settings())
    with context.call("req_1", 0.05), pytest.raises(Unavailable) as caught:
        await router.place(asked("req_1"))
    assert (caught.value.reason, caught.value.rule.status, caught.value.retry_after_ms) == ("not_ready", 503, 1000)
