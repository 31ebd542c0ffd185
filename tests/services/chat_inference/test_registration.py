"""A replica's place in the router, across the router's restarts and outages."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

import pytest

from modelplane.router.v1 import router_pb2
from modelplane.router.v1.router_pb2 import Load, PlaceRequest, Replica
from services.chat_inference.registration import Registration
from services.faults import Unavailable
from services.router.service import Router
from services.router.settings import Settings

REPLICA = Replica(id="replica-1", model="small", address="10.0.0.1:1", slots=2)


class Away(Router):
    """A router that can be out of reach."""

    away = False

    async def register(self, request: router_pb2.RegisterRequest, /) -> router_pb2.RegisterResponse:
        if self.away:
            raise Unavailable("service_unavailable", "The router is away.")
        return await super().register(request)

    async def heartbeat(self, request: router_pb2.HeartbeatRequest, /) -> router_pb2.HeartbeatResponse:
        if self.away:
            raise Unavailable("service_unavailable", "The router is away.")
        return await super().heartbeat(request)


class Line:
    """Leads to a router that can be replaced."""

    def __init__(self, router: Router) -> None:
        self.router = router

    def __getattr__(self, name: str) -> object:
        return getattr(self.router, name)


def kept(router: object) -> Registration:
    load = Load(healthy=True)
    return Registration(router, REPLICA, lambda: load, 0.01)  # type: ignore[arg-type]


RouterT = TypeVar("RouterT", bound=Router)


async def declared(router: RouterT) -> RouterT:
    """The router, told of the pool as `pools` does."""
    await router.put_pool(router_pb2.PutPoolRequest(pool=router_pb2.Pool(model="small")))
    return router


async def replicas(router: Router) -> list[str]:
    pools = (await router.list_pools(router_pb2.ListPoolsRequest())).pools
    return [replica.id for pool in pools for replica in pool.replicas]


async def until(router: Router, wanted: Callable[[list[str]], bool]) -> None:
    async with asyncio.timeout(30):
        while not wanted(await replicas(router)):
            await asyncio.sleep(0.005)


async def test_a_replica_becomes_known_and_withdraws() -> None:
    router = await declared(Router(Settings()))
    registration = kept(router)
    registration.start()
    await until(router, lambda found: found == ["replica-1"])
    placed = await router.place(PlaceRequest(request_id="a", model="small"))
    assert placed.placement.address == "10.0.0.1:1"
    await registration.withdraw()
    assert await replicas(router) == []
    await registration.withdraw()


async def test_it_registers_again_with_a_router_that_restarted() -> None:
    line = Line(await declared(Router(Settings())))
    registration = kept(line)
    registration.start()
    await until(line.router, bool)
    line.router = await declared(Router(Settings()))
    await until(line.router, bool)
    await registration.withdraw()


async def test_it_outlives_an_outage() -> None:
    router = await declared(Away(Settings()))
    router.away = True
    registration = kept(router)
    registration.start()
    await asyncio.sleep(0.05)
    router.away = False
    await until(router, bool)
    router.away = True
    await asyncio.sleep(0.05)
    router.away = False
    await until(router, bool)
    await registration.withdraw()


async def test_an_unhealthy_replica_gets_nothing() -> None:
    router = await declared(Router(Settings(queue_timeout_ms=10)))
    load = Load(healthy=True)
    registration = Registration(router, REPLICA, lambda: load, 60)
    await registration.beat()
    load.healthy = False
    await registration.beat()
    with pytest.raises(Unavailable) as raised:
        await router.place(PlaceRequest(request_id="a", model="small"))
    assert raised.value.reason == "no_replica"
    await registration.withdraw()
