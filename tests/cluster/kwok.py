"""Nodes that are played: kwok answers for them, and says of every pod on them that it runs and is ready.

Nothing runs on them, so a thousand pods cost nothing but what the control plane does with them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.cluster import tools
from tests.cluster.control_plane import ControlPlane
from tests.cluster.network import free_port
from tests.cluster.processes import Process

ANNOTATION = "kwok.x-k8s.io/node"
INFO = (
    *("machineID", "systemUUID", "bootID", "kernelVersion", "osImage"),
    *("containerRuntimeVersion", "kubeletVersion", "kubeProxyVersion"),
)


@contextmanager
def played_nodes(plane: ControlPlane) -> Iterator[Process]:
    """kwok runs inside; it plays the nodes that `node` describes once they are created."""
    kwok = tools.kwok()
    process = Process(
        "kwok",
        (
            str(kwok.program),
            f"--kubeconfig={plane.kubeconfig}",
            "--manage-all-nodes=false",
            f"--manage-nodes-with-annotation-selector={ANNOTATION}=fake",
            "--cidr=10.245.0.1/16",
            "--node-ip=127.0.0.1",
            f"--server-address=127.0.0.1:{free_port()}",
            "--node-lease-duration-seconds=40",
            *(f"--config={stage}" for stage in kwok.stages),
        ),
        plane.folder / "kwok.log",
    )
    try:
        yield process
    finally:
        process.stop()


def node(name: str, *, pods: int = 200, zone: str = "a", gpus: int = 8) -> dict[str, Any]:
    """A node of 32 processors and 256 GiB."""
    amounts = {"cpu": "32", "memory": "256Gi", "pods": str(pods), "nvidia.com/gpu": str(gpus)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {ANNOTATION: "fake", "node.alpha.kubernetes.io/ttl": "0"},
            "labels": {
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
                "topology.kubernetes.io/zone": zone,
            },
        },
        "status": {
            "allocatable": amounts,
            "capacity": amounts,
            "nodeInfo": dict.fromkeys(INFO, "played") | {"architecture": "amd64", "operatingSystem": "linux"},
            "phase": "Running",
        },
    }
