"""What tests of the operator of model pools have: a namespace of a real API server, and the operator as a process of
its own, with the rights that the chart gives it.

`pools` is a small service that says what a test tells it to; with KubeRay's definitions the RayCluster is real too,
and the test makes the pods that KubeRay would.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelplane.pools.v1 import pools_pb2
from operators.model_pool.entry import generation_of
from tests.cluster.control_plane import ControlPlane
from tests.cluster.network import free_port
from tests.cluster.processes import Process, wait_until
from tests.fakes.pools import FakePools, served

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "modelplane"
CRD = ROOT / "charts" / "modelplane-crds" / "templates" / "modelpools.yaml"
RELEASE = "modelplane"
NAMESPACE = "operated"
POOL = {"apiVersion": "modelplane.ai/v1alpha1", "kind": "ModelPool"}
SCRIPTED = {"engine": "scripted", "free": True}
READY, STARTING, DRAINING = (
    pools_pb2.REPLICA_STATE_READY,
    pools_pb2.REPLICA_STATE_STARTING,
    pools_pb2.REPLICA_STATE_DRAINING,
)


class World:
    """A namespace with the operator's account, and what tests do in it."""

    def __init__(self, plane: ControlPlane, pools: FakePools) -> None:
        self.plane = plane
        self.pools = pools
        self.account = plane.folder / "operator-account"
        self.started = 0

    def kubectl(self, *arguments: str, **more: Any) -> str:
        return self.plane.kubectl(*arguments, "--namespace", NAMESPACE, **more)

    def get(self, *arguments: str) -> Any:
        return self.plane.get(*arguments, "--namespace", NAMESPACE)

    def put(self, name: str, **spec: Any) -> None:
        document = {**POOL, "metadata": {"name": name, "namespace": NAMESPACE}, "spec": {"model": name} | spec}
        self.kubectl("apply", "--filename", "-", stdin=json.dumps(document))

    def entry(self, name: str) -> str:
        return str((self.get("configmap", f"{RELEASE}-models").get("data") or {}).get(f"{name}.toml", ""))

    def entries(self) -> set[str]:
        return set(self.get("configmap", f"{RELEASE}-models").get("data") or {})

    def status(self, name: str) -> dict[str, Any]:
        return self.get("modelpool", name).get("status") or {}

    def condition(self, name: str, kind: str) -> tuple[str, str]:
        found = {one["type"]: one for one in self.status(name).get("conditions", ())}
        return (found[kind]["status"], found[kind]["reason"]) if kind in found else ("", "")

    def exists(self, name: str) -> bool:
        return bool(self.kubectl("get", "modelpool", name, "--ignore-not-found"))

    def holder(self) -> str:
        lease = self.kubectl("get", "lease", f"{RELEASE}-operator", "--ignore-not-found", "--output", "json")
        return str(json.loads(lease)["spec"].get("holderIdentity", "")) if lease else ""

    def groups(self) -> dict[str, Any]:
        listed = self.get("raycluster", f"{RELEASE}-pools")["spec"].get("workerGroupSpecs") or ()
        return {group["groupName"]: group for group in listed}

    def serves(self, name: str, wanted: int, *replicas: tuple[str, Any, str], entry: str = "", **more: Any) -> None:
        """What `pools` says from now on: each replica is its id, its state and its pod."""
        generation = generation_of(self.entry(entry or name))
        self.pools.pools[name] = pools_pb2.PoolInfo(
            model=name,
            generation=generation,
            wanted=wanted,
            replicas=[
                pools_pb2.ReplicaInfo(id=one, model=name, state=state, node_name=pod, generation=generation)
                for one, state, pod in replicas
            ],
            **more,
        )

    @contextmanager
    def operator(self, name: str = "operator", **settings: str) -> Iterator[Process]:
        """The program of the chart's Deployment."""
        token = self.kubectl("create", "token", f"{RELEASE}-operator", "--duration", "1h")
        self.account.mkdir(exist_ok=True)
        (self.account / "token").write_text(token)
        (self.account / "namespace").write_text(NAMESPACE)
        (self.account / "ca.crt").write_bytes(self.plane.authority.pair.certificate.read_bytes())
        own = {
            "RELEASE": RELEASE,
            "ACCOUNT": str(self.account),
            "SERVER": self.plane.url,
            "HEALTH_LISTEN": f"127.0.0.1:{free_port()}",
            "INTERVAL_S": "0.3",
            "FIGURES_S": "0.5",
            "LEASE_S": "3",
            "REFUSED_S": "4",
            **settings,
        }
        variables = [f"MODELPLANE_MODEL_POOLS_{key}={value}" for key, value in own.items()]
        variables += [f"MODELPLANE_POOLS_ADDRESS={self.pools.address}", f"MODELPLANE_HOME={self.plane.folder}"]
        # The program takes the place of `env`: signals reach it.
        command = ("env", f"--chdir={ROOT}", *variables, sys.executable, "-m", "operators.model_pool")
        self.started += 1
        process = Process(name, command, self.plane.folder / f"{name}-{self.started}.log")
        try:
            yield process
        finally:
            orderly = process.stop()
        assert orderly, process.tail(50)


def until(what: str, happened: Callable[[], bool], process: Process | None = None, timeout_s: float = 60) -> float:
    seconds = wait_until(what, happened, process=process, timeout_s=timeout_s)
    print(f"[operator] {what}: {seconds:.1f} s")
    return seconds


def works(process: Process) -> bool:
    """Whether this process has said that it has the lease."""
    return '"event":"works"' in process.log.read_text()


def rendered(plane: ControlPlane, mode: str, part: str = "rbac") -> list[dict[str, Any]]:
    """The chart's objects of one part, of which `rbac` gives the operator its rights."""
    values = ("postgresql.bundled=true", "valkey.bundled=true", "operator.enabled=true", f"ray.mode={mode}")
    text = plane.helm(
        *("template", RELEASE, str(CHART), "--namespace", NAMESPACE, f"--show-only=templates/operator/{part}.yaml"),
        *(f"--set={value}" for value in values),
    )
    found: list[dict[str, Any]] = [one for one in yaml.safe_load_all(text) if one]
    for one in found:
        one["metadata"].setdefault("namespace", NAMESPACE)
    return found


@pytest.fixture(scope="module")
def world(played: ControlPlane) -> Iterator[World]:
    played.namespace(NAMESPACE)
    # It may be there already, from the chart that another test has installed.
    played.kubectl("apply", "--server-side", "--force-conflicts", "--filename", str(CRD))
    played.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd/modelpools.modelplane.ai")
    played.apply(*rendered(played, "local"))
    pools = FakePools()
    with served(pools):
        yield World(played, pools)
    for name in json.loads(played.kubectl("get", "mp", "--namespace", NAMESPACE, "--output", "json"))["items"]:
        # Nobody is there any more who would.
        released = json.dumps({"metadata": {"finalizers": None}})
        place = ("--namespace", NAMESPACE, "--type=merge", f"--patch={released}")
        played.kubectl("patch", "modelpool", name["metadata"]["name"], *place)
    played.kubectl("delete", "namespace", NAMESPACE, "--timeout=90s")


@pytest.fixture(autouse=True)
def forgotten(world: World) -> Iterator[None]:
    world.pools.pools.clear()
    yield
    world.pools.pools.clear()
