"""A thousand pods behind one Service, as the fleet of a big installation: followed through its EndpointSlices, and
known to a router that hears of each once a second."""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import pytest

from modelplane.router.v1 import router_pb2 as pb
from modelplane.router.v1.router_api import RouterService
from services.cluster.settings import ClusterSettings
from services.cluster.slices import Address, follow
from services.router.service import Router
from services.router.settings import Settings
from services.rpc.connect import connect, descriptor_of
from services.rpc.serve import RpcServer
from services.rpc.settings import RpcSettings
from tests.cluster.control_plane import ControlPlane
from tests.cluster.processes import wait_until

NAMESPACE = "fleet"
PODS = 1000
LABELS = {"app.kubernetes.io/name": "modelplane", "app.kubernetes.io/component": "gateway"}


def deployment(replicas: int) -> dict[str, Any]:
    container = {"name": "gateway", "image": "localhost/modelplane:test", "resources": {"requests": {"cpu": "100m"}}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "gateway", "namespace": NAMESPACE},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": LABELS},
            "template": {"metadata": {"labels": LABELS}, "spec": {"containers": [container]}},
        },
    }


def service() -> dict[str, Any]:
    ports = [{"name": "grpc", "port": 9000}, {"name": "http", "port": 8080}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "gateway", "namespace": NAMESPACE},
        "spec": {"clusterIP": "None", "selector": LABELS, "ports": ports},
    }


def ready_addresses(plane: ControlPlane) -> int:
    slices = plane.get("endpointslices", "--namespace", NAMESPACE)["items"]
    return sum(
        len(endpoint["addresses"])
        for one in slices
        for endpoint in one.get("endpoints") or ()
        if endpoint["conditions"].get("ready")
    )


@pytest.fixture(scope="module")
def fleet(played: ControlPlane) -> Iterator[ControlPlane]:
    """A thousand ready pods."""
    played.namespace(NAMESPACE)
    started = time.monotonic()
    played.apply(service(), deployment(PODS))
    wait_until(f"{PODS} pods are ready", lambda: ready_addresses(played) == PODS, timeout_s=240)
    print(f"[fleet] {PODS} pods ready in {time.monotonic() - started:.0f} s; MiB resident: {played.memory_mib()}")
    yield played
    played.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def test_every_pod_is_in_a_slice_with_its_zone(fleet: ControlPlane) -> None:
    slices = fleet.get("endpointslices", "--namespace", NAMESPACE)["items"]
    zones = {endpoint.get("zone") for one in slices for endpoint in one["endpoints"]}
    print(f"[fleet] {len(slices)} slices, zones {sorted(zones)}")
    assert zones == {"a", "b", "c"}


class Followed:
    """What `follow` gave last, how often it gave something, and what that took of the processor."""

    def __init__(self) -> None:
        self.now: frozenset[Address] = frozenset()
        self.states = 0

    async def keep(self, states: AsyncIterator[frozenset[Address]]) -> None:
        async for self.now in states:
            self.states += 1

    async def until(self, what: str, plane: ControlPlane, killed: Collection[str] = ()) -> None:
        """Waits for the state that the API server tells kubectl, of a full fleet without these pods."""
        started, processor_s, states = time.monotonic(), time.process_time(), self.states
        async with asyncio.timeout(240):
            while True:
                truth = await asyncio.to_thread(ready_pods, plane)
                if len(truth) == PODS and not truth.keys() & set(killed):
                    reached_s = time.monotonic()
                    break
        async with asyncio.timeout(60):
            while {one.ip for one in self.now if one.ready} != set(truth.values()):
                await asyncio.sleep(0.01)
        print(
            f"[fleet] {what}: {len(self.now)} addresses in {time.monotonic() - started:.1f} s, "
            f"{(time.monotonic() - reached_s) * 1000:.0f} ms behind the API server; {self.states - states} states, "
            f"{(time.process_time() - processor_s) * 1000:.0f} ms of processor"
        )


def ready_pods(plane: ControlPlane) -> dict[str, str]:
    """The truth, from the pods themselves: the address of each by its name. Addresses are used again."""
    pods = plane.get("pods", "--namespace", NAMESPACE, "--field-selector", "status.phase=Running")["items"]
    return {
        pod["metadata"]["name"]: pod["status"]["podIP"] for pod in pods if "deletionTimestamp" not in pod["metadata"]
    }


@asynccontextmanager
async def followed(plane: ControlPlane) -> AsyncIterator[Followed]:
    found = Followed()
    settings = ClusterSettings(kubeconfig=plane.kubeconfig)
    async with aclosing(follow(NAMESPACE, "gateway", "http", settings)) as states:  # type: ignore[type-var]
        task = asyncio.create_task(found.keep(states))
        try:
            yield found
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def churn(plane: ControlPlane, pods: int) -> set[str]:
    """Kills so many, which are replaced; their names."""
    names = list(await asyncio.to_thread(ready_pods, plane))[:pods]
    command = ("delete", "pods", "--namespace", NAMESPACE, "--now", "--wait=false", *names)
    await asyncio.to_thread(plane.kubectl, *command)
    return set(names)


async def test_the_fleet_is_followed_through_churn_and_an_upgrade_of_the_api_server(fleet: ControlPlane) -> None:
    async with followed(fleet) as found:
        await found.until("the first look", fleet)
        assert {one.port for one in found.now} == {8080}
        assert {one.zone for one in found.now} == {"a", "b", "c"}
        gone = await churn(fleet, 100)
        await found.until("100 killed and 100 added", fleet, gone)
        before = found.now
        await asyncio.to_thread(fleet.stop_apiserver)
        await asyncio.sleep(3)
        assert found.now == before
        # In this thread: what is started ends with the thread that started it.
        fleet.start_apiserver()
        gone = await churn(fleet, 100)
        await found.until("100 more after the API server was away", fleet, gone)


class Replicas:
    """Register with a router, and send a heartbeat a second each, as many as there are pods."""

    def __init__(self, router: RouterService) -> None:
        self._router = router
        self._beating: dict[str, asyncio.Task[None]] = {}

    async def become(self, names: Collection[str]) -> None:
        """Who is not among them ends without a word."""
        for name in self._beating.keys() - set(names):
            self._beating.pop(name).cancel()
        for name in set(names) - self._beating.keys():
            self._beating[name] = asyncio.create_task(self._beat(name))

    async def _beat(self, name: str) -> None:
        replica = pb.Replica(id=name, model="m", address=f"{name}:9000", slots=8)
        load = pb.Load(healthy=True)
        await asyncio.sleep(hash(name) % 1000 / 1000)
        while True:
            if not (await self._router.heartbeat(pb.HeartbeatRequest(replica_id=name, load=load))).registered:
                await self._router.register(pb.RegisterRequest(replica=replica))
            await asyncio.sleep(1)


async def known(router: RouterService) -> set[str]:
    pools = (await router.list_pools(pb.ListPoolsRequest())).pools
    return {replica.id for pool in pools for replica in pool.replicas}


async def told(replicas: Replicas, router: Router, remote: RouterService, pods: set[str]) -> None:
    """Waits until the router knows one replica in each pod and no other."""
    started, processor_s = time.monotonic(), time.process_time()
    await replicas.become(pods)
    async with asyncio.timeout(60):
        while await known(remote) != pods:
            router.sweep()
            await asyncio.sleep(0.25)
    took_s, used_s = time.monotonic() - started, time.process_time() - processor_s
    print(f"[fleet] {len(pods)} replicas known after {took_s:.1f} s; {used_s / took_s:.0%} of a processor, both sides")


async def test_a_router_knows_a_replica_in_each_pod_and_forgets_those_that_went(fleet: ControlPlane) -> None:
    settings = Settings()
    server = RpcServer(RpcSettings(), {"router": descriptor_of(RouterService)})
    router = Router(settings)
    await server.start()
    server.place("router", router)
    await server.serving(True)
    pods = set(ready_pods(fleet))
    try:
        async with connect(RouterService, server.address, RpcSettings()) as remote:
            await remote.put_pool(pb.PutPoolRequest(pool=pb.Pool(model="m")))
            replicas = Replicas(remote)
            await told(replicas, router, remote, pods)
            gone = await churn(fleet, 100)
            while len(pods := set(await asyncio.to_thread(ready_pods, fleet))) != PODS or pods & gone:
                pass
            await told(replicas, router, remote, pods)
            placing = time.monotonic()
            for number in range(1000):
                request = pb.PlaceRequest(request_id=str(number), model="m", prefix_hash=number)
                assert (await remote.place(request)).placement.replica_id not in gone
            print(f"[fleet] a placement among {PODS} takes {time.monotonic() - placing:.2f} ms, with both its ends")
            await replicas.become(())
    finally:
        await server.stop(0)
        router.close()


def test_half_of_the_fleet_goes_away(fleet: ControlPlane) -> None:
    started = time.monotonic()
    fleet.kubectl("scale", "deployment/gateway", "--namespace", NAMESPACE, f"--replicas={PODS // 2}")
    wait_until("half are left", lambda: ready_addresses(fleet) == PODS // 2, timeout_s=240)
    print(f"[fleet] {PODS // 2} pods left the slices within {time.monotonic() - started:.0f} s")
