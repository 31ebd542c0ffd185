"""PoolsService, over both wirings."""

import pytest

from modelplane.pools.v1 import pools_pb2
from modelplane.pools.v1.pools_api import PoolsService
from modelplane.router.v1 import router_pb2
from services.catalog import Catalog, generation
from services.faults import Unavailable
from services.pools.service import Pools
from services.pools.settings import Settings
from services.router.service import Router
from services.router.settings import Settings as RouterSettings
from tests.contract.conftest import Wire
from tests.fakes.fleet import FakeFleet
from tests.services.pools.test_service import SPEC, start_of


async def test_replicas_are_listed(wire: Wire) -> None:
    fleet = FakeFleet()
    service = Pools(
        Catalog((SPEC,)),
        Settings(),
        Router(RouterSettings()),
        fleet,
        start_of,
    )
    await fleet.open(service.accept)
    await service.look()
    pools = await wire(PoolsService, service)
    [info] = (await pools.list_replicas(pools_pb2.ListReplicasRequest())).replicas
    assert [info.id] == list(fleet.running)
    assert (info.model, info.state) == (SPEC.name, pools_pb2.REPLICA_STATE_STARTING)


async def test_pools_are_listed(wire: Wire) -> None:
    fleet, router = FakeFleet(outlived=True), Router(RouterSettings())
    service = Pools(Catalog((SPEC,)), Settings(), router, fleet, start_of)
    await fleet.open(service.accept)
    await service.look()
    pools = await wire(PoolsService, service)
    with pytest.raises(Unavailable) as caught:
        await pools.list_pools(pools_pb2.ListPoolsRequest())
    assert caught.value.reason == "not_ready"
    fleet.connected()
    await service.look()
    [replica_id] = fleet.running
    [pool] = (await pools.list_pools(pools_pb2.ListPoolsRequest())).pools
    assert (pool.model, pool.generation, pool.min_replicas, pool.max_replicas) == ("m", generation(SPEC), 1, 2)
    assert (pool.wanted, pool.starting, pool.ready, pool.draining, pool.outdated) == (1, 1, 0, 0, 0)
    assert (pool.waiting_for, pool.last_error, pool.removed) == ("loading weights", "", False)
    replica = router_pb2.Replica(id=replica_id, model="m", address="h:1", slots=2)
    await router.register(router_pb2.RegisterRequest(replica=replica))
    load = router_pb2.Load(healthy=True, output_tokens_per_s=12.5)
    await router.heartbeat(router_pb2.HeartbeatRequest(replica_id=replica_id, load=load))
    fleet.ready(replica_id)
    await router.place(router_pb2.PlaceRequest(request_id="r", model="m"))
    await service.look()
    [pool] = (await pools.list_pools(pools_pb2.ListPoolsRequest())).pools
    assert (pool.ready, pool.running, pool.queued, pool.output_tokens_per_s) == (1, 1, 0, 12.5)
    assert pool.waiting_for == ""
    [info] = pool.replicas
    assert (info.id, info.generation, info.node_ip, info.node_name) == (replica_id, pool.generation, "10.0.0.1", "node")
