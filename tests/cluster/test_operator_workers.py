"""The operator of model pools with a RayCluster of KubeRay's real kind, whose pods a played KubeRay makes."""

import json
from collections.abc import Iterator

import pytest

from modelplane.pools.v1 import pools_pb2
from operators.model_pool.workers import is_group_of
from tests.cluster.operated import (
    DRAINING,
    NAMESPACE,
    READY,
    RELEASE,
    SCRIPTED,
    STARTING,
    World,
    forgotten,
    rendered,
    until,
    works,
    world,
)
from tests.cluster.played_kuberay import CLUSTER, GROUP, PlayedKubeRay, define
from tests.cluster.processes import wait_until

__all__ = ("forgotten", "world")


@pytest.fixture
def kuberay(world: World) -> Iterator[World]:
    """The world with a RayCluster of KubeRay's real kind."""
    if not define(world.plane, "rayclusters"):
        pytest.skip("no definitions of KubeRay: set KUBERAY_CRDS to a folder with them")
    world.plane.apply(*rendered(world.plane, "kuberay"))
    [cluster] = rendered(world.plane, "kuberay", "raycluster")
    # Strictly: a field that KubeRay does not know is an error.
    world.kubectl("create", "--validate=strict", "--filename", "-", stdin=json.dumps(cluster))
    yield world
    world.kubectl("delete", "raycluster", f"{RELEASE}-pools")
    world.kubectl("delete", "pods", "--all", "--grace-period=0", "--force")
    world.plane.apply(*rendered(world.plane, "local"))


def reconcile(world: World) -> dict[str, list[str]]:
    """What KubeRay does with pods: the names of those of each group."""
    PlayedKubeRay(world.plane, NAMESPACE, orderly=False).turn()
    found: dict[str, list[str]] = {name: [] for name in world.groups()}
    for pod in world.get("pods", "--selector", f"{CLUSTER}={RELEASE}-pools,ray.io/node-type=worker")["items"]:
        found[pod["metadata"]["labels"][GROUP]].append(pod["metadata"]["name"])
    return found


RAY = {"RAY_CLUSTER": f"{RELEASE}-pools", "IMAGE": "localhost/modelplane-worker:1"}


def test_worker_groups_of_a_ray_cluster(kuberay: World) -> None:
    world = kuberay
    world.put("big", **SCRIPTED, replicas={"min": 2, "max": 3}, resources={"cpu": "10m", "memory": "10Mi"})
    with world.operator(**RAY) as process:
        until("a group with room for two", lambda: [g["replicas"] for g in world.groups().values()] == [2], process)
        ((name, group),) = world.groups().items()
        assert f'"pool-{name}" = 1.0' in world.entry("big")
        assert json.loads(json.loads(group["rayStartParams"]["resources"])) == {f"pool-{name}": 1}
        one, two = reconcile(world)[name]
        world.serves("big", 2, ("r1", READY, one), ("r2", READY, two))
        until("both serve", lambda: world.status("big").get("readyReplicas") == 2, process)
        selector = world.status("big")["selector"]
        assert len(world.get("pods", "--selector", selector)["items"]) == 2

        # Less is asked for: the pod whose replica has drained goes, and no other.
        world.put("big", **SCRIPTED, replicas={"min": 1, "max": 3}, resources={"cpu": "10m", "memory": "10Mi"})
        until("the entry is changed", lambda: '"min_replicas" = 1' in world.entry("big"), process)
        world.serves("big", 1, ("r1", READY, one), ("r2", DRAINING, two))
        until("a replica drains", lambda: world.condition("big", "Progressing")[1] == "Shrinking", process)
        assert world.groups()[name]["replicas"] == 2
        world.serves("big", 1, ("r1", READY, one))
        until("its pod goes", lambda: world.groups()[name]["replicas"] == 1, process)
        assert world.groups()[name]["scaleStrategy"]["workersToDelete"] == [two]
        assert reconcile(world)[name] == [one]
        until("its name is forgotten", lambda: not world.groups()[name]["scaleStrategy"]["workersToDelete"], process)

        # Another image: a second group fills, and the first one goes when its last replica has.
        world.put("big", **SCRIPTED, image="localhost/modelplane-worker:2", replicas={"min": 1, "max": 3})
        until("there are two groups", lambda: len(world.groups()) == 2, process)
        other = next(group for group in world.groups() if group != name)
        until("the entry names the new one", lambda: f"pool-{other}" in world.entry("big"), process)
        world.serves("big", 2, ("r3", STARTING, ""))
        world.pools.pools["big"].replicas.append(
            pools_pb2.ReplicaInfo(id="r1", model="big", state=READY, node_name=one, generation="older")
        )
        until("there is room for a successor", lambda: world.groups()[other]["replicas"] == 1, process)
        until("it is rolling", lambda: world.condition("big", "Progressing") == ("True", "Replacing"), process)
        assert world.groups()[name]["replicas"] == 1
        (three,) = reconcile(world)[other]
        world.serves("big", 1, ("r3", READY, three))
        until("the old pod goes", lambda: world.groups()[name]["scaleStrategy"]["workersToDelete"] == [one], process)
        reconcile(world)
        until("the old group goes", lambda: set(world.groups()) == {other}, process)

        world.kubectl("delete", "modelpool", "big", "--wait=false")
        until("the entry is gone", lambda: "big.toml" not in world.entries(), process)
        assert world.groups()[other]["replicas"] == 1
        world.pools.pools.clear()
        until("its pod goes", lambda: world.groups()[other]["replicas"] == 0, process)
        reconcile(world)
        until("nothing is left", lambda: not world.exists("big") and not world.groups(), process)


def test_two_pools_and_somebody_else_write_one_ray_cluster(kuberay: World) -> None:
    world = kuberay
    names = ("left", "right")
    with world.operator(**RAY) as process:
        until("it works", lambda: works(process), process)
        for name in names:
            world.put(name, **SCRIPTED)
        for turn in range(12):
            # As KubeRay and people do: the version that the operator has read is no more.
            world.kubectl("annotate", "--overwrite", "raycluster", f"{RELEASE}-pools", f"turn={turn}")
            world.put(names[turn % 2], **SCRIPTED, image=f"localhost/modelplane-worker:{turn}")
        pairs = {f"{name}.toml" for name in names}
        until("both have entries", lambda: world.entries() == pairs, process)
        until("each has its last group", lambda: images(world) == {"left": "10", "right": "11"}, process)
        for group in world.groups():
            assert is_group_of(group.rpartition("-")[0], group)
        cluster = world.get("raycluster", f"{RELEASE}-pools")
        assert cluster["metadata"]["annotations"]["turn"] == "11"
        world.kubectl("delete", "modelpool", *names)
        assert (world.groups(), world.entries()) == ({}, set())


def images(world: World) -> dict[str, str]:
    """The tag of the image that each pool's entry leads to."""
    groups, found = world.groups(), {}
    for name in ("left", "right"):
        current = next((group for group in groups if f"pool-{group}" in world.entry(name)), None)
        if current:
            image = groups[current]["template"]["spec"]["containers"][0]["image"]
            found[name] = image.rpartition(":")[2]
    return found


def test_an_api_server_that_is_killed_between_two_writes(kuberay: World) -> None:
    world = kuberay
    with world.operator(**RAY) as process:
        until("it works", lambda: works(process), process)
        for number in range(3):
            world.put("cut", **SCRIPTED, image=f"localhost/modelplane-worker:{number}")
            wait_until("it acts", lambda n=number: process.log.read_text().count("adds the group") > n)  # type: ignore[misc]
            world.plane.processes["apiserver"].kill()
            world.plane.start_apiserver()
        until("the entry and its group agree", lambda: agree(world), process)
        until("one group is left", lambda: len(world.groups()) == 1, process)
        world.kubectl("delete", "modelpool", "cut")
        assert (world.groups(), world.entries()) == ({}, set())
        assert "Traceback" not in process.log.read_text()


def agree(world: World) -> bool:
    groups, entry = world.groups(), world.entry("cut")
    last = [name for name, group in groups.items() if "worker:2" in json.dumps(group["template"])]
    return len(last) == 1 and f"pool-{last[0]}" in entry


def test_a_missing_ray_cluster_is_said(world: World) -> None:
    world.plane.apply(*rendered(world.plane, "kuberay"))
    world.put("alone", **SCRIPTED)
    with world.operator(**RAY | {"RAY_CLUSTER": f"{RELEASE}-pools"}) as process:
        until("it is said", lambda: world.condition("alone", "Degraded") == ("True", "OperatorStuck"), process)
        assert "There is no RayCluster" in json.dumps(world.status("alone"))
    with world.operator() as process:
        world.kubectl("delete", "modelpool", "alone")
    world.plane.apply(*rendered(world.plane, "local"))
