"""KubeRay's own definitions, where they are given: what our operator writes is what they take.

They are not copied into this project: KUBERAY_CRDS names a folder with them, else the one beside this checkout is used.
"""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.control_plane import CommandError, ControlPlane
from tests.cluster.processes import wait_until

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
