"""What the router, which is one process, spends on its replicas and on placing requests, as pools grow.

Run: python -m benchmarks.router. It prints a table; docs/kubernetes/scale.md goes by it. The router is the real one, in
a process of its own, asked over gRPC as replicas and gateways ask it; what is shown is its CPU time.
"""

import asyncio
import os
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

from benchmarks.processes import memory_bytes, tree
from benchmarks.servers import PYTHON, ROOT, free_port
from modelplane.router.v1 import router_pb2
from modelplane.router.v1.router_api import RouterService
from services.faults import Unavailable
from services.rpc.connect import connect
from services.rpc.settings import RpcSettings

REPLICAS: Final = (100, 1000, 4000)
SLOTS: Final = 64
BEATS: Final = 4000
REQUESTS: Final = 3000
AT_ONCE: Final = 32
RUNNING: Final = [f"req_{number:032x}" for number in range(AT_ONCE)]
START_S: Final = 30.0


@contextmanager
def router(port: int) -> Iterator[int]:
    """Its process id. Replicas that say nothing are not lost."""
    variables = {
        "MODELPLANE_RPC_LISTEN": f"127.0.0.1:{port}",
        "MODELPLANE_ROUTER_HEARTBEAT_TIMEOUT_MS": "3600000",
        "MODELPLANE_ROUTER_PLACEMENT_GRACE_MS": "3600000",
        "MODELPLANE_TELEMETRY_LOG_LEVEL": "warning",
    }
    process = subprocess.Popen([PYTHON, "-m", "services", "serve", "router"], cwd=ROOT, env={**os.environ, **variables})
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(START_S)


async def cpu_us(pid: int, calls: int, call: Callable[[int], Awaitable[object]]) -> float:
    """Of the process, for each of so many calls, AT_ONCE of them at once."""

    async def some(first: int) -> None:
        for number in range(first, calls, AT_ONCE):
            await call(number)

    before = tree(pid)[pid].cpu_s
    await asyncio.gather(*(some(first) for first in range(AT_ONCE)))
    return (tree(pid)[pid].cpu_s - before) / calls * 1e6


async def grown(service: RouterService, pid: int, replicas: int) -> None:
    """Measures a pool of so many replicas, and prints a row."""
    model = f"of-{replicas}"
    await service.put_pool(router_pb2.PutPoolRequest(pool=router_pb2.Pool(model=model)))

    async def register(number: int) -> object:
        replica = router_pb2.Replica(id=f"{model}-{number}", model=model, address=f"10.0.0.1:{number}", slots=SLOTS)
        return await service.register(router_pb2.RegisterRequest(replica=replica))

    async def beat(number: int) -> object:
        load = router_pb2.Load(healthy=True, request_ids=RUNNING)
        name = f"{model}-{number % replicas}"
        return await service.heartbeat(router_pb2.HeartbeatRequest(replica_id=name, load=load))

    async def place(number: int) -> object:
        request = router_pb2.PlaceRequest(
            request_id=f"{model}-{number}", model=model, prefix_hash=number * 0x9E3779B1 + 1
        )
        request.project_id, request.key_id = f"project-{number % 50}", f"key-{number % 200}"
        return await service.place(request)

    async def release(number: int) -> object:
        return await service.release(router_pb2.ReleaseRequest(request_id=f"{model}-{number}"))

    memory = memory_bytes([pid])
    await cpu_us(pid, replicas, register)
    kibibytes = (memory_bytes([pid]) - memory) / replicas / 1024
    figures = [await cpu_us(pid, BEATS, beat), await cpu_us(pid, REQUESTS, place), await cpu_us(pid, REQUESTS, release)]
    print(f"| {replicas:,} | {' | '.join(f'{figure:.0f}' for figure in figures)} | {kibibytes:.1f} |", flush=True)


async def main() -> None:
    port = free_port()
    with router(port) as pid:
        async with connect(RouterService, f"127.0.0.1:{port}", RpcSettings()) as service:
            async with asyncio.timeout(START_S):
                while True:
                    try:
                        await service.list_pools(router_pb2.ListPoolsRequest())
                        break
                    except Unavailable:
                        await asyncio.sleep(0.1)
            print("| replicas in the pool | heartbeat us | place us | release us | memory KiB/replica |")
            print("| ---: | ---: | ---: | ---: | ---: |")
            for replicas in REPLICAS:
                await grown(service, pid, replicas)


if __name__ == "__main__":
    asyncio.run(main())
