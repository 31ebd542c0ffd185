"""Pools on a real Ray with scripted replicas: one Ray for all of these tests, which run in this order."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from modelplane.pools.v1 import pools_pb2
from modelplane.pools.v1.pools_api import PoolsService
from modelplane.router.v1 import router_pb2
from modelplane.router.v1.router_api import RouterService
from services.compose import Platform
from services.faults import Fault
from services.pools.sessions import members
from services.settings import Environment

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240), pytest.mark.asyncio(loop_scope="module")]

CONFIG = """
[[models]]
name = "scripted"
engine = "scripted"
slots = 2
min_replicas = 1
max_replicas = 2
"""
VARIABLES = {
    "MODELPLANE_RPC_TOKEN": "shared by the processes of a platform",
    "MODELPLANE_BILLING_ADDRESS": "127.0.0.1:1",
    "MODELPLANE_POOLS_INTERVAL_MS": "100",
    # What the tests place, no gateway starts at the replica.
    "MODELPLANE_ROUTER_PLACEMENT_GRACE_MS": "600000",
    "MODELPLANE_POOLS_SCALE_UP_AFTER_MS": "200",
    "MODELPLANE_POOLS_SCALE_DOWN_AFTER_MS": "500",
    "MODELPLANE_POOLS_QUEUED_PER_REPLICA": "1",
}


class Bench:
    """A running platform of router and pools."""

    def __init__(self, stack: AsyncExitStack, platform: Platform, home: Path) -> None:
        self._stack = stack
        self.platform = platform
        self.home = home
        self.router = platform.local(RouterService)
        self.pools = platform.local(PoolsService)

    async def infos(self) -> list[pools_pb2.ReplicaInfo]:
        return list((await self.pools.list_replicas(pools_pb2.ListReplicasRequest())).replicas)

    async def status(self) -> router_pb2.PoolStatus:
        [status] = (await self.router.list_pools(router_pb2.ListPoolsRequest())).pools
        return status

    async def ready(self) -> bool:
        """Whether the pool serves, and pools has heard so too: the replica tells the router first."""
        try:
            await self.platform.pings["pools"]()
        except Fault:
            return False
        return all(info.state == pools_pb2.REPLICA_STATE_READY for info in await self.infos())

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        while not await condition():
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        await self._stack.aclose()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    home = tmp_path_factory.mktemp("home")
    (home / "models.toml").write_text(CONFIG)
    variables = {"MODELPLANE_HOME": str(home), "MODELPLANE_CONFIG": str(home / "models.toml"), **VARIABLES}
    async with AsyncExitStack() as stack:
        platform = await stack.enter_async_context(Platform(("router", "pools"), Environment(variables)))
        yield Bench(stack, platform, home)


async def test_a_replica_registers_and_the_process_stays_its_own(bench: Bench) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    await bench.until(bench.ready)
    [info] = await bench.infos()
    assert info.state == pools_pb2.REPLICA_STATE_READY
    [replica] = (await bench.status()).replicas
    assert (replica.id, replica.address, replica.slots) == (info.id, info.address, 2)
    assert info.address.startswith("unix:/")
    # Signals to this process's group or terminal reach neither Ray nor the replica.
    assert os.getsid(info.pid) != os.getsid(0)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers
    # Other tests of this run may have imported it; here it must not have connected.
    ray = sys.modules.get("ray")
    assert ray is None or not ray.is_initialized()
    assert (bench.home / "logs" / "scripted.log").read_text()


async def test_a_killed_replica_is_replaced(bench: Bench) -> None:
    [killed] = await bench.infos()
    assert killed.pid > 1  # to kill 0 is to kill this test's whole group
    os.kill(killed.pid, signal.SIGKILL)

    async def replaced() -> bool:
        replicas = (await bench.status()).replicas
        return len(replicas) == 1 and replicas[0].id != killed.id

    await bench.until(replaced)
    await bench.until(bench.ready)
    [info] = await bench.infos()
    assert info.pid != killed.pid


async def test_a_queue_brings_a_second_replica_and_idleness_takes_it_away(bench: Bench) -> None:
    requests = [router_pb2.PlaceRequest(request_id=str(number), model="scripted") for number in range(4)]
    placing = [asyncio.create_task(bench.router.place(request)) for request in requests]
    placed = await asyncio.gather(*placing)
    assert len({answer.placement.replica_id for answer in placed}) == 2
    for request in requests:
        await bench.router.release(router_pb2.ReleaseRequest(request_id=request.request_id))

    async def alone() -> bool:
        return len(await bench.infos()) == 1 and len((await bench.status()).replicas) == 1

    await bench.until(alone)


async def test_stopping_leaves_no_process(bench: Bench) -> None:
    [info] = await bench.infos()
    session = os.getsid(info.pid)
    assert len(members(session)) > 3
    folder = Path((bench.home / "ray-folder").read_text())
    await bench.close()
    assert members(session) == []
    assert not folder.exists()
