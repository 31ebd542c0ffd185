"""The cluster itself: it comes up, it survives its API server, it holds pods to what we rely on."""

import pytest

from tests.cluster.control_plane import CommandError, ControlPlane
from tests.cluster.processes import wait_until


def test_nodes_of_three_zones_are_ready(played: ControlPlane) -> None:
    def ready() -> bool:
        conditions = [
            condition
            for node in played.get("nodes")["items"]
            for condition in node["status"].get("conditions", ())
            if condition["type"] == "Ready" and condition["status"] == "True"
        ]
        return len(conditions) == 20

    seconds = wait_until("all nodes are ready", ready)
    print(f"[cluster] 20 nodes ready in {seconds:.1f} s; MiB resident: {played.memory_mib()}")


def test_objects_survive_an_api_server_that_goes_away(played: ControlPlane) -> None:
    played.kubectl("create", "configmap", "kept", "--from-literal=a=b")
    played.stop_apiserver()
    with pytest.raises(CommandError, match="refused"):
        played.get("configmap", "kept")
    seconds = played.start_apiserver()
    print(f"[cluster] the API server is back in {seconds:.1f} s")
    assert played.get("configmap", "kept")["data"] == {"a": "b"}
    played.kubectl("delete", "configmap", "kept")


def test_a_restricted_namespace_refuses_a_pod_that_may_be_root(played: ControlPlane) -> None:
    played.namespace("strict", restricted=True)
    pod = ("run", "rooted", "--namespace", "strict", "--image", "localhost/none:1")
    with pytest.raises(CommandError, match="violates PodSecurity"):
        wait_until("the pod is refused", lambda: bool(played.kubectl(*pod)), timeout_s=5)
    played.kubectl("delete", "namespace", "strict", "--wait=false")
