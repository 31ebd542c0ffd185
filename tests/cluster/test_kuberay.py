"""KubeRay's own definitions, where they are given: what our operator writes is what they take.

KubeRay's operator cannot be downloaded as a program: where KUBERAY_OPERATOR names one, it makes the pods, and they are
those that are played for other tests.
"""

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from operators.model_pool.workers import Platform, group_document
from tests.cluster.control_plane import CommandError, ControlPlane
from tests.cluster.operated import rendered
from tests.cluster.played_kuberay import (
    CLUSTER,
    KIND,
    Document,
    define,
    head_pod,
    head_service,
    real_kuberay,
    worker_pod,
)
from tests.cluster.processes import Process, wait_until


@pytest.fixture(scope="module")
def kuberay(played: ControlPlane) -> ControlPlane:
    """The cluster with the definitions of RayCluster and RayService."""
    names = define(played)
    if not names:
        pytest.skip("no definitions of KubeRay: set KUBERAY_CRDS to a folder with them")
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
    kuberay.apply(ray_cluster(scaleStrategy={"workersToDelete": ["pools-worker-0"]}))
    spec = kuberay.get("raycluster", "pools")["spec"]
    assert spec["workerGroupSpecs"][0]["scaleStrategy"]["workersToDelete"] == ["pools-worker-0"]
    kuberay.kubectl("delete", "raycluster", "pools", "--wait=false")


def test_a_ray_cluster_with_a_wrong_number_is_refused(kuberay: ControlPlane) -> None:
    with pytest.raises(CommandError, match="replicas"):
        kuberay.apply(ray_cluster(replicas="many"))


@pytest.fixture(scope="module")
def operator(kuberay: ControlPlane) -> Iterator[Process]:
    program = os.environ.get("KUBERAY_OPERATOR")
    if not program:
        pytest.skip("KubeRay's operator is not given: set KUBERAY_OPERATOR to the program")
    with real_kuberay(kuberay, program) as process:
        yield process


def pods_of(plane: ControlPlane, name: str) -> list[Document]:
    listed: list[Document] = plane.get("pods", "--selector", f"{CLUSTER}={name}")["items"]
    return [pod for pod in listed if "deletionTimestamp" not in pod["metadata"]]


def test_its_operator_makes_the_pods_of_a_group(kuberay: ControlPlane, operator: Process) -> None:
    """And ends those that it is told to, as our operator tells it."""

    def workers() -> list[str]:
        return [pod["metadata"]["name"] for pod in pods_of(kuberay, "pools") if "-worker-" in pod["metadata"]["name"]]

    kuberay.apply(ray_cluster(replicas=2))
    wait_until("two workers", lambda: len(workers()) == 2, process=operator, timeout_s=120)
    gone = workers()[0]
    kuberay.apply(ray_cluster(replicas=1, scaleStrategy={"workersToDelete": [gone]}))
    wait_until("the named one is gone", lambda: len(workers()) == 1 and gone not in workers(), timeout_s=120)
    kuberay.kubectl("delete", "raycluster", "pools", "--wait=false")


def test_its_operator_makes_what_is_played(kuberay: ControlPlane, operator: Process) -> None:
    """Of the chart's own RayCluster, with a group of our operator's."""
    [cluster] = rendered(kuberay, "kuberay", "raycluster")
    name = cluster["metadata"]["name"]
    cluster["metadata"]["namespace"] = "default"
    spec = {"model": "big", "resources": {"cpu": "1", "memory": "2Gi"}}
    group = group_document("big", spec, Platform(name, "localhost/modelplane-worker:1", tls_secret="inside"))
    cluster["spec"]["workerGroupSpecs"] = [group | {"replicas": 1}]
    kuberay.kubectl("create", "--filename", "-", stdin=json.dumps(cluster))
    wait_until("there is a head and a worker", lambda: len(pods_of(kuberay, name)) == 2, process=operator)
    there = kuberay.get("raycluster", name)
    expected = {"head": head_pod(there), "worker": worker_pod(there, there["spec"]["workerGroupSpecs"][0])}
    for pod in pods_of(kuberay, name):
        kind = pod["metadata"]["labels"][KIND]
        assert comparable(pod) == comparable(dry(kuberay, expected[kind])), kind
    service, played = kuberay.get("service", f"{name}-head-svc"), dry(kuberay, head_service(there), "renamed")
    for part in ("selector", "ports", "clusterIP", "publishNotReadyAddresses"):
        assert service["spec"][part] == played["spec"][part]
    kuberay.kubectl("delete", "raycluster", name)


def dry(plane: ControlPlane, document: Document, name: str = "") -> Document:
    """As the API server would complete it."""
    if name:
        document["metadata"]["name"] = name
    made = plane.kubectl("create", "--dry-run=server", "--output=json", "--filename=-", stdin=json.dumps(document))
    found: Document = json.loads(made)
    return found


def comparable(pod: Document) -> Document:
    """A pod without its random name and its number, where it runs, and what its operator says of itself."""
    spec, metadata = pod["spec"], pod["metadata"]
    passing = ("ray.io/worker-group-replica-index", "topology.kubernetes.io/")
    for container in spec["containers"]:
        variables = {one["name"]: one for one in container["env"] if one["name"] != "RAY_USAGE_STATS_EXTRA_TAGS"}
        container["env"] = [variables[name] for name in sorted(variables)]
    for container in spec.get("initContainers", ()):
        # Another script that waits for the same.
        assert "ray health-check --address" in container.pop("args")[0]
    spec.pop("nodeName", None)
    return {
        "spec": spec,
        "labels": {key: value for key, value in metadata["labels"].items() if not key.startswith(passing)},
        "prefix": metadata["generateName"],
        "owners": metadata["ownerReferences"],
    }
