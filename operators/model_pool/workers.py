"""The worker group of a pool: which pods KubeRay makes, each of which has room for one replica.

Pure. What it keeps true: a pod offers the Ray resource of its group, and no other group's; whatever a pod depends on is
in the mark of its group, so that a group never holds pods of two kinds: another image is another group, to which the
replicas move. A group's name is its pool's and eight digits more, so that no pool takes another's for its own.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from operators.model_pool.entry import WEIGHTS_FOLDER

POOL_LABEL: Final = "modelplane.ai/pool"
MODEL_ANNOTATION: Final = "modelplane.ai/model"
CLUSTER_LABEL: Final = "ray.io/cluster"
GROUP_LABEL: Final = "ray.io/group"
NODE_PORT: Final = 6380
UNBOUNDED: Final = 2**31 - 1

Document = dict[str, Any]


@dataclass(frozen=True)
class Platform:
    """What the pods of all pools have in common. Empty names: there is none."""

    ray_cluster: str
    image: str
    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()
    service_account: str = ""
    labels: Mapping[str, str] | None = None
    tls_secret: str = ""
    tls_folder: str = "/etc/modelplane/tls"
    cache_claim: str = ""
    priority_class: str = ""
    grace_s: int = 60


def group_name(pool: str, mark: str) -> str:
    return f"{pool}-{mark}"


def is_group_of(pool: str, group: str) -> bool:
    return re.fullmatch(rf"{re.escape(pool)}-[0-9a-f]{{8}}", group) is not None


def resource_of(group: str) -> str:
    """The Ray resource that the pods of a group offer, 1 each, and that each replica takes."""
    return f"pool-{group}"


def group_document(pool: str, spec: Mapping[str, Any], platform: Platform) -> Document:
    """The group with no pods yet. Its `groupName` follows from everything else in it."""
    template = _template(pool, spec, platform)
    gpus = str(spec.get("resources", {}).get("gpu", 0))
    start = {"node-manager-port": str(NODE_PORT), "object-store-memory": "100000000"}
    start |= {"num-cpus": "1", "num-gpus": gpus}
    described = json.dumps([template, start], sort_keys=True).encode()
    name = group_name(pool, sha256(described).hexdigest()[:8])
    return {
        "groupName": name,
        "replicas": 0,
        "minReplicas": 0,
        "maxReplicas": UNBOUNDED,
        # Into a shell's word goes JSON, in the quotes that KubeRay wants.
        "rayStartParams": start | {"resources": json.dumps(json.dumps({resource_of(name): 1}))},
        "scaleStrategy": {"workersToDelete": []},
        "template": template,
    }


def _template(pool: str, spec: Mapping[str, Any], platform: Platform) -> Document:
    resources = spec.get("resources", {})
    pod: Document = {
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": platform.grace_s,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(spec, platform)],
        "volumes": [volume for volume, _ in _volumes(spec, platform)],
    }
    if spec.get("spreadZones", True):
        pod["topologySpreadConstraints"] = [
            {
                "maxSkew": 1,
                "topologyKey": "topology.kubernetes.io/zone",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {POOL_LABEL: pool}},
            }
        ]
    for key, value in (
        ("nodeSelector", resources.get("accelerator")),
        ("tolerations", resources.get("tolerations")),
        ("serviceAccountName", platform.service_account),
        ("priorityClassName", platform.priority_class),
        ("imagePullSecrets", [{"name": name} for name in platform.pull_secrets]),
    ):
        if value:
            pod[key] = value
    # What removes machines that have little to do would end requests: a pod goes when its replica has finished.
    kept = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true"}
    labels = {**(platform.labels or {}), POOL_LABEL: pool}
    return {"metadata": {"labels": labels, "annotations": kept | {MODEL_ANNOTATION: spec["model"]}}, "spec": pod}


def _container(spec: Mapping[str, Any], platform: Platform) -> Document:
    resources = spec.get("resources", {})
    requests: Document = {name: str(resources[name]) for name in ("cpu", "memory") if name in resources}
    # Who takes more memory than it asked for ends its neighbours; processors are only shared.
    limits: Document = {name: amount for name, amount in requests.items() if name != "cpu"}
    if gpu := resources.get("gpu", 0):
        name = resources.get("gpuResource", "nvidia.com/gpu")
        requests[name] = limits[name] = str(gpu)
    # Ray answers there as long as it works; its own probes want a program that the image has not.
    probe: Document = {"tcpSocket": {"port": NODE_PORT}, "timeoutSeconds": 5}
    return {
        "name": "replica",
        "image": spec.get("image") or platform.image,
        "imagePullPolicy": platform.pull_policy,
        # Ray lowers the priority of what it runs, but a replica is what its pod is for.
        "env": [{"name": "RAY_worker_niceness", "value": "0"}],
        "resources": {"requests": requests, "limits": limits},
        "readinessProbe": probe | {"periodSeconds": 5, "failureThreshold": 10},
        "livenessProbe": probe | {"periodSeconds": 10, "initialDelaySeconds": 30, "failureThreshold": 12},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [mount for _, mount in _volumes(spec, platform)],
    }


def _volumes(spec: Mapping[str, Any], platform: Platform) -> list[tuple[Document, Document]]:
    """Each volume, and where it is mounted."""
    found: list[tuple[Document, Document]] = [
        ({"name": name, "emptyDir": {}}, {"name": name, "mountPath": path})
        for name, path in (("home", "/var/lib/modelplane"), ("tmp", "/tmp"))  # noqa: S108
    ]
    claim = {"persistentVolumeClaim": {"claimName": platform.cache_claim}} if platform.cache_claim else {"emptyDir": {}}
    found.append(({"name": "cache"} | claim, {"name": "cache", "mountPath": "/var/cache/modelplane"}))
    if platform.tls_secret:
        secret = {"secretName": platform.tls_secret, "defaultMode": 0o440}
        mount = {"name": "tls", "mountPath": platform.tls_folder, "readOnly": True}
        found.append(({"name": "tls", "secret": secret}, mount))
    weights = spec.get("weights", {})
    if weights.get("source") == "claim":
        name = weights["claimName"]
        volume = {"name": "weights", "persistentVolumeClaim": {"claimName": name, "readOnly": True}}
        found.append((volume, {"name": "weights", "mountPath": f"{WEIGHTS_FOLDER}/{name}", "readOnly": True}))
    return found
