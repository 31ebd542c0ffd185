"""KubeRay's own definitions, where they are given: what our operator writes is what they take.

They are not copied into this project: KUBERAY_CRDS names a folder with them, else the one beside this checkout is used.
KubeRay's operator cannot be downloaded as a program: where KUBERAY_OPERATOR names one, it makes the pods.
"""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.control_plane import CommandError, ControlPlane
from tests.cluster.processes import Process, wait_until

BESIDE = Path(__file__).parents[3] / "shared" / "cluster" / "kuberay"


@pytest.fixture(scope="module")
def kuberay(played: ControlPlane) -> ControlPlane:
    """The cluster with the definitions of RayCluster and RayService."""
    folder = Path(os.environ.get("KUBERAY_CRDS") or BESIDE)
    files = sorted(folder.glob("*.yaml"))
    if not files:
        pytest.skip("no definitions of KubeRay: set KUBERAY_CRDS to a folder with them")
    for file in files:
        # They are too big for what `apply` keeps beside an object.
        played.kubectl("create", "--filename", str(file))
    names = [line for line in played.kubectl("get", "crd", "--output", "name").split() if line.endswith("ray.io")]
    played.kubectl("wait", "--for=condition=Established", "--timeout=60s", *names)
    print(f"[kuberay] {', '.join(names)}; MiB resident: {played.memory_mib()}")
    return played


def ray_cluster(**group: Any) -> dict[str, Any]:
    template = {"spec": {"containers": [{"name": "ray", "image": "localhost/modelplane-worker:test"}]}}
    worker = {"groupName": "pool-a", "replicas": 1, "minReplicas": 0, "maxReplicas": 4, "rayStartParams": {}}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": "pools", "namespace": "default"},
        "spec": {
            "headGroupSpec": {"rayStartParams": {}, "template": template},
            "workerGroupSpecs": [worker | {"template": template} | group],
        },
    }


def test_a_ray_cluster_with_a_group_for_a_pool_is_taken(kuberay: ControlPlane) -> None:
    wait_until("the kind is served", lambda: "rayclusters" in kuberay.kubectl("api-resources", "--api-group=ray.io"))
    kuberay.apply(ray_cluster(scaleStrategy={"workersToDelete": ["pools-worker-0"]}))
    spec = kuberay.get("raycluster", "pools")["spec"]
    assert spec["workerGroupSpecs"][0]["scaleStrategy"]["workersToDelete"] == ["pools-worker-0"]
    kuberay.kubectl("delete", "raycluster", "pools", "--wait=false")


def test_a_ray_cluster_with_a_wrong_number_is_refused(kuberay: ControlPlane) -> None:
    with pytest.raises(CommandError, match="replicas"):
        kuberay.apply(ray_cluster(replicas="many"))


def test_its_operator_makes_the_pods_of_a_group(kuberay: ControlPlane) -> None:
    """And ends those that it is told to, as our operator tells it."""
    program = os.environ.get("KUBERAY_OPERATOR")
    if not program:
        pytest.skip("KubeRay's operator is not given: set KUBERAY_OPERATOR to the program")

    def workers() -> list[str]:
        pods = kuberay.get("pods", "--selector", "ray.io/cluster=pools,ray.io/group=pool-a")["items"]
        return [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    command = (program, f"--kubeconfig={kuberay.kubeconfig}", "--enable-leader-election=false", "--metrics-addr=:0")
    operator = Process("kuberay", command, kuberay.folder / "kuberay.log")
    try:
        kuberay.apply(ray_cluster(replicas=2))
        wait_until("two workers", lambda: len(workers()) == 2, process=operator, timeout_s=120)
        gone = workers()[0]
        kuberay.apply(ray_cluster(replicas=1, scaleStrategy={"workersToDelete": [gone]}))
        wait_until("the named one is gone", lambda: len(workers()) == 1 and gone not in workers(), timeout_s=120)
    finally:
        print(operator.tail())
        operator.stop()
        kuberay.kubectl("delete", "raycluster", "pools", "--wait=false")
