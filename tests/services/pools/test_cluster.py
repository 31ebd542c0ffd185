"""Pools on a Ray cluster of several nodes: one story, since every Ray node takes seconds to start.

The router runs in this process and pools in one of its own, so that it can be killed.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import psutil
import pytest

from modelplane.chat_inference.v1.chat_inference_api import ChatInferenceService
from modelplane.chat_inference.v1.chat_inference_pb2 import GenerateRequest, Sampling
from modelplane.pools.v1 import pools_pb2
from modelplane.pools.v1.pools_api import PoolsService
from modelplane.router.v1 import router_pb2
from modelplane.router.v1.router_api import RouterService
from services.compose import Platform
from services.faults import Fault
from services.rpc.connect import connect
from services.rpc.settings import RpcSettings
from services.settings import Environment
from tests.services.pools.clusters import RayCluster, free_port

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

TOKEN = "shared by the processes of a platform"
RESOURCE = {"pool-scripted": 1.0}
CONFIG = """
[[models]]
name = "scripted"
engine = "scripted"
slots = 2
resources = { "pool-scripted" = 1 }
script = { tokens = 200, token_ms = 50 }
"""
ELSEWHERE = """
[[models]]
name = "elsewhere"
engine = "scripted"
resources = { "pool-elsewhere" = 1 }
"""
TOKENS = 200


class PoolsProcess:
    """`modelplane serve pools` against the cluster, and a client of it."""

    def __init__(self, home: Path, cluster: RayCluster, router: str) -> None:
        port = free_port()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MODELPLANE_")}
        self._variables = {
            **inherited,
            "MODELPLANE_HOME": str(home / "pools"),
            "MODELPLANE_CONFIG": str(home / "models"),
            "MODELPLANE_CONFIG_POLL_S": "0.2",
            "MODELPLANE_RPC_TOKEN": TOKEN,
            "MODELPLANE_RPC_LISTEN": f"127.0.0.1:{port}",
            "MODELPLANE_ROUTER_ADDRESS": router,
            "MODELPLANE_BILLING_ADDRESS": "127.0.0.1:1",
            "MODELPLANE_POOLS_RAY_ADDRESS": cluster.address,
            "MODELPLANE_POOLS_RAY_TOKEN_FILE": str(cluster.token_file),
            "MODELPLANE_POOLS_INTERVAL_MS": "200",
            "MODELPLANE_POOLS_CROWDED_AFTER_MS": "500",
        }
        self.address = f"127.0.0.1:{port}"
        self._log = home / "pools.log"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self._log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "services", "serve", "pools"), env=self._variables, stdout=output, stderr=output
            )

    async def end(self, number: int) -> int:
        """Sends the signal, and waits until the process and everything below it are gone."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        below = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        status = await process.wait()
        _, alive = await asyncio.to_thread(psutil.wait_procs, below, 15)
        assert not alive
        return status


class Bench:
    """A cluster's head, the router, and pools in a process."""

    def __init__(
        self, home: Path, cluster: RayCluster, pools: PoolsProcess, client: PoolsService, router: RouterService
    ) -> None:
        self.home = home
        self.cluster = cluster
        self.process = pools
        self.pools = client
        self.router = router

    async def info(self, model: str) -> pools_pb2.PoolInfo:
        """The pool, or an empty one while nothing is known."""
        try:
            pools = (await self.pools.list_pools(pools_pb2.ListPoolsRequest())).pools
        except Fault:
            return pools_pb2.PoolInfo()
        return next(pool for pool in pools if pool.model == model)

    async def until(
        self, condition: Callable[[pools_pb2.PoolInfo], bool], model: str = "scripted"
    ) -> pools_pb2.PoolInfo:
        while not condition(info := await self.info(model)):
            await asyncio.sleep(0.1)
        return info

    async def known(self) -> set[str]:
        """The replicas that the router gives requests to."""
        statuses = (await self.router.list_pools(router_pb2.ListPoolsRequest())).pools
        return {replica.id for status in statuses for replica in status.replicas}


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "scripted.toml").write_text(CONFIG)
    (tmp_path / "models" / "elsewhere.toml").write_text(ELSEWHERE)
    variables = {"MODELPLANE_HOME": str(tmp_path / "router"), "MODELPLANE_RPC_TOKEN": TOKEN}
    cluster = RayCluster(tmp_path)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(cluster.end)
        platform = await stack.enter_async_context(Platform(("router",), Environment(variables)))
        await cluster.start_head()
        pools = PoolsProcess(tmp_path, cluster, platform.server.address)
        stack.push_async_callback(pools.end, signal.SIGKILL)
        settings = RpcSettings(token=TOKEN, timeout_s=2.0)
        client = await stack.enter_async_context(connect(PoolsService, pools.address, settings))
        yield Bench(tmp_path, cluster, pools, client, platform.local(RouterService))


async def tokens_of(address: str, began: asyncio.Event) -> int:
    """Runs one long request on a replica and counts what came."""
    sampling = Sampling(n=1, max_output_tokens=TOKENS)
    request = GenerateRequest(request_id="req_1", model="scripted", prompt_token_ids=[1, 2, 3], sampling=sampling)
    count = 0
    async with connect(ChatInferenceService, address, RpcSettings(token=TOKEN, timeout_s=120.0)) as replica:
        async for response in replica.generate(request):
            count += response.delta.tokens
            began.set()
    return count


async def test_a_cluster(bench: Bench) -> None:
    _, first_node = await asyncio.gather(
        bench.process.start(), bench.cluster.start_worker(RESOURCE, bench.home / "first")
    )
    ready = await bench.until(lambda info: info.ready == 1)
    [replica] = ready.replicas
    assert replica.node_name and replica.node_ip and not ready.waiting_for
    assert os.getsid(replica.pid) == first_node.session
    # What its machine says of its own folders comes before what the platform has.
    assert (bench.home / "first" / "logs" / "scripted.log").exists()
    waiting = await bench.until(lambda info: "pool-elsewhere" in info.waiting_for, "elsewhere")
    assert (waiting.waiting_for, waiting.wanted, waiting.ready) == ("no node offers pool-elsewhere", 1, 0)

    # The process is killed while a client gets its answer from the replica, and another one goes on with it.
    began = asyncio.Event()
    stream = asyncio.create_task(tokens_of(replica.address, began))
    await began.wait()
    await bench.process.end(signal.SIGKILL)
    assert await bench.known() == {replica.id}
    _, second_node = await asyncio.gather(
        bench.process.start(), bench.cluster.start_worker(RESOURCE, bench.home / "second")
    )
    again = await bench.until(lambda info: info.ready == 1)
    assert [(known.id, known.pid) for known in again.replicas] == [(replica.id, replica.pid)]
    assert (again.starting, again.draining, again.outdated) == (0, 0, 0)
    assert await stream == TOKENS

    # Its machine is lost, and it comes back on another one.
    await first_node.end()
    replaced = await bench.until(lambda info: info.ready == 1 and info.replicas[0].id != replica.id)
    [last] = replaced.replicas
    assert os.getsid(last.pid) == second_node.session

    # A changed model gets a new replica; there is room for one only, so the old one makes it.
    (bench.home / "models" / "scripted.toml").write_text(CONFIG + 'revision = "2"\n')
    await bench.until(lambda info: info.ready == 1 and info.generation != replaced.generation)
    changed = await bench.until(lambda info: info.ready == 1 and info.outdated == 0)
    assert changed.replicas[0].node_ip == last.node_ip and not psutil.pid_exists(last.pid)

    # An ordered stop leaves what runs.
    assert await bench.process.end(signal.SIGTERM) == 0
    assert psutil.pid_exists(changed.replicas[0].pid)
    assert await bench.known() == {changed.replicas[0].id}
