"""A service `pools` whose figures a test sets, over real gRPC, in a thread of its own."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from modelplane.pools.v1 import pools_pb2
from modelplane.pools.v1.pools_api import PoolsService
from services.rpc.connect import descriptor_of
from services.rpc.serve import RpcServer
from services.rpc.settings import RpcSettings


class FakePools:
    """Answers with `pools`, by model; `calls` counts how often it was asked."""

    def __init__(self) -> None:
        self.pools: dict[str, pools_pb2.PoolInfo] = {}
        self.calls = 0
        self.address = ""

    async def list_pools(self, request: pools_pb2.ListPoolsRequest, /) -> pools_pb2.ListPoolsResponse:
        self.calls += 1
        return pools_pb2.ListPoolsResponse(pools=list(self.pools.values()))

    async def list_replicas(self, request: pools_pb2.ListReplicasRequest, /) -> pools_pb2.ListReplicasResponse:
        return pools_pb2.ListReplicasResponse(
            replicas=[replica for pool in self.pools.values() for replica in pool.replicas]
        )


@contextmanager
def served(pools: FakePools) -> Iterator[None]:
    """Answers at `pools.address` while entered."""
    loop, ready, stop = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def serve() -> None:
        server = RpcServer(RpcSettings(listen=pools.address or "127.0.0.1:0"), {"pools": descriptor_of(PoolsService)})
        await server.start()
        server.place("pools", pools)
        await server.serving(True)
        pools.address = server.address
        ready.set()
        await stop.wait()
        await server.stop(0)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    try:
        if not ready.wait(60):
            raise TimeoutError("the service did not start")
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
