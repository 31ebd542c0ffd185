"""PoolsService, over both wirings."""

from modelplane.pools.v1 import pools_pb2
from modelplane.pools.v1.pools_api import PoolsService
from services.catalog import Catalog
from services.pools.service import Pools, pools_of
from services.pools.settings import Settings
from services.router.service import Router
from services.router.settings import Settings as RouterSettings
from tests.contract.conftest import Wire
from tests.fakes.fleet import FakeFleet
from tests.services.pools.test_service import SPEC, start_of


async def test_replicas_are_listed(wire: Wire) -> None:
    fleet = FakeFleet()
    service = Pools(
        pools_of(Catalog((SPEC,)), Settings()),
        Router(RouterSettings()),
        fleet,
        start_of,
        interval_s=1.0,
        lost_after_s=30.0,
    )
    await fleet.open(service.accept)
    await service.look()
    pools = await wire(PoolsService, service)
    [info] = (await pools.list_replicas(pools_pb2.ListReplicasRequest())).replicas
    assert [info.id] == list(fleet.running)
    assert (info.model, info.state) == (SPEC.name, pools_pb2.REPLICA_STATE_STARTING)
