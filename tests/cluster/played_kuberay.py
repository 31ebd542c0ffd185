"""KubeRay's operator, played: it makes the pods of a RayCluster out of its templates as the real one does, and takes
them away again.

The real one cannot be downloaded as a program. Kept true: names, labels, variables, commands and what is added to a pod
are the real one's, for as much of a RayCluster as this project uses (`test_kuberay` compares the two where there is
one); a pod that ends counts until it is gone, and pods of a group that is no more stay. Not played: autoscaling,
suspension, a head that outlives its process, replicas of several hosts.
"""

import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.cluster.control_plane import CommandError, ControlPlane
from tests.cluster.processes import Process, wait_until

Document = dict[str, Any]

BESIDE: Final = Path(__file__).parents[3] / "shared" / "cluster" / "kuberay"
CLUSTER: Final = "ray.io/cluster"
GROUP: Final = "ray.io/group"
KIND: Final = "ray.io/node-type"
SHELL: Final = ("/bin/bash", "-c", "--")
HEAD_PORT: Final = "6379"
METRICS_PORT: Final = 8080
UNITS: Final = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
WAIT: Final = """
    until ray health-check --address {address} > /dev/null 2>&1; do
        echo "GCS does not answer yet."
        sleep 5
    done
"""


def define(plane: ControlPlane, *only: str) -> list[str]:
    """Brings KubeRay's own definitions into the cluster, and gives their names; none where there are none.

    They are not copied into this project: KUBERAY_CRDS names a folder with them, else the one beside this checkout is
    used. `only`: kinds such as `rayclusters`.
    """
    folder = Path(os.environ.get("KUBERAY_CRDS") or BESIDE)
    files = {f"{path.stem.removeprefix('ray.io_')}.ray.io": path for path in sorted(folder.glob("ray.io_*.yaml"))}
    names = [name for name in files if not only or name.partition(".")[0] in only]
    there = plane.kubectl("get", "crd", "--output", "name")
    for name in names:
        if f"/{name}\n" not in there:
            # They are too big for what `apply` keeps beside an object.
            plane.kubectl("create", "--filename", str(files[name]))

    def served() -> bool:
        return set(names) <= set(plane.kubectl("api-resources", "--api-group=ray.io", "--output=name").split())

    wait_until("KubeRay's kinds are served", served)
    return names


def head_service(cluster: Document) -> Document:
    """By which nodes find the head, also while it is not ready."""
    head = cluster["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in head.get("ports", ())} | {"metrics": METRICS_PORT}
    selector = {key: value for key, value in _labels(cluster, "head", {}).items() if key != "ray.io/is-ray-node"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(cluster) | {"name": _service(cluster), "labels": selector},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": selector,
            "ports": [{"name": name, "port": port, "appProtocol": "tcp"} for name, port in sorted(ports.items())],
        },
    }


def head_pod(cluster: Document) -> Document:
    group = cluster["spec"]["headGroupSpec"]
    found = _pod(cluster, group, {"dashboard-host": "0.0.0.0"} | group["rayStartParams"], "headgroup")
    found["metadata"]["generateName"] = f"{cluster['metadata']['name'][:50]}-head-"
    return found


def worker_pod(cluster: Document, group: Document) -> Document:
    """One more pod of a group."""
    found = _pod(cluster, group, {"address": _address(cluster)} | group["rayStartParams"], group["groupName"])
    prefix = f"{cluster['metadata']['name']}-{group['groupName']}"[:50]
    found["metadata"]["generateName"] = f"{prefix}-worker-"
    container = group["template"]["spec"]["containers"][0]
    amounts = {"cpu": "200m", "memory": "256Mi"}
    waiting = {
        "name": "wait-gcs-ready",
        "command": list(SHELL),
        "args": [WAIT.format(address=_address(cluster))],
        "env": [*container.get("env", ()), *_head_variables(cluster)],
        "resources": {"limits": amounts, "requests": amounts},
    }
    for key in ("image", "imagePullPolicy", "securityContext", "volumeMounts"):
        if key in container:
            waiting[key] = container[key]
    found["spec"]["initContainers"] = [*found["spec"].get("initContainers", ()), waiting]
    return found


def _pod(cluster: Document, group: Document, start: Mapping[str, str], name: str) -> Document:
    """What a head's pod and a worker's have in common."""
    kind = "head" if name == "headgroup" else "worker"
    template = json.loads(json.dumps(group["template"]))
    metadata, spec = template.get("metadata", {}), template["spec"]
    ray = spec["containers"][0]
    resources = ray.get("resources", {})
    start = {"metrics-export-port": str(METRICS_PORT), "dashboard-agent-listen-port": "52365"} | dict(start)
    start |= {"block": "true"}
    if "memory" in resources.get("limits", {}):
        start["memory"] = str(_bytes(resources["limits"]["memory"]))
    command = f"ray start {'--head ' if kind == 'head' else ''}{''.join(map(_option, sorted(start.items())))}"
    ray |= {
        "command": list(SHELL),
        "args": [f"ulimit -n 65536; {command}"],
        "env": [*ray.get("env", ()), *_variables(cluster, kind, command)],
        "ports": [*ray.get("ports", ()), {"name": "metrics", "containerPort": METRICS_PORT}],
        "volumeMounts": [*ray.get("volumeMounts", ()), {"name": "shared-mem", "mountPath": "/dev/shm"}],
    }
    # As large as the pod may be.
    sizes = {**resources.get("requests", {}), **resources.get("limits", {})}
    size = {"sizeLimit": sizes["memory"]} if "memory" in sizes else {}
    spec["volumes"] = [*spec.get("volumes", ()), {"name": "shared-mem", "emptyDir": {"medium": "Memory"} | size}]
    labels = _labels(cluster, kind, metadata.get("labels", {})) | {GROUP: name}
    annotations = {"annotations": metadata["annotations"]} if "annotations" in metadata else {}
    owned = _metadata(cluster) | {"labels": labels} | annotations
    return {"apiVersion": "v1", "kind": "Pod", "metadata": owned, "spec": spec}


def _option(option: tuple[str, str]) -> str:
    """An option of `ray start`; but for one, those that are true or false have no value."""
    name, value = option
    if value in ("true", "false") and name != "include-dashboard":
        return f" --{name} " if value == "true" else ""
    return f" --{name}={value} "


def _bytes(amount: str) -> int:
    return int(amount[:-2]) * UNITS[amount[-2:]] if amount[-2:] in UNITS else int(amount)


def _service(cluster: Document) -> str:
    return f"{cluster['metadata']['name']}-head-svc"


def _host(cluster: Document) -> str:
    return f"{_service(cluster)}.{cluster['metadata']['namespace']}.svc.cluster.local"


def _address(cluster: Document) -> str:
    return f"{_host(cluster)}:{HEAD_PORT}"


def _labels(cluster: Document, kind: str, own: Mapping[str, str]) -> dict[str, str]:
    name = cluster["metadata"]["name"]
    ours = {CLUSTER: name, KIND: kind}
    theirs = {
        "ray.io/is-ray-node": "yes",
        "ray.io/identifier": f"{name}-{kind}"[:63],
        "app.kubernetes.io/name": "kuberay",
        "app.kubernetes.io/created-by": "kuberay-operator",
    }
    return {**theirs, **own, **ours}


def _metadata(cluster: Document) -> Document:
    """Of what goes with its RayCluster."""
    metadata = cluster["metadata"]
    owner = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "name": metadata["name"], "uid": metadata["uid"]}
    owner |= {"controller": True, "blockOwnerDeletion": True}
    return {"namespace": metadata["namespace"], "ownerReferences": [owner]}


def _head_variables(cluster: Document) -> list[Document]:
    return [{"name": "FQ_RAY_IP", "value": _host(cluster)}, {"name": "RAY_IP", "value": _service(cluster)}]


def _variables(cluster: Document, kind: str, command: str) -> list[Document]:
    fields = {
        "RAY_CLUSTER_NAME": f"metadata.labels['{CLUSTER}']",
        "RAY_CLUSTER_NAMESPACE": "metadata.namespace",
        "RAY_CLOUD_INSTANCE_ID": "metadata.name",
        "RAY_NODE_TYPE_NAME": f"metadata.labels['{GROUP}']",
    }
    texts = {
        "KUBERAY_GEN_RAY_START_CMD": command,
        "RAY_PORT": HEAD_PORT,
        "RAY_ADDRESS": f"127.0.0.1:{HEAD_PORT}" if kind == "head" else _address(cluster),
        "RAY_USAGE_STATS_KUBERAY_IN_USE": "1",
        "RAY_DASHBOARD_ENABLE_K8S_DISK_USAGE": "1",
    }
    return [
        *(_head_variables(cluster) if kind == "worker" else ()),
        *({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()),
        *({"name": name, "value": text} for name, text in texts.items()),
    ]


class PlayedKubeRay:
    """Plays for the RayClusters of one namespace. `orderly`: pods end in their own time, as on a real node."""

    def __init__(self, plane: ControlPlane, namespace: str, *, orderly: bool = True) -> None:
        self._plane = plane
        self._namespace = namespace
        self._at_once = () if orderly else ("--grace-period=0", "--force")

    def turn(self) -> None:
        """Looks at everything once, and acts. Raises CommandError."""
        seen = self._plane.get("rayclusters,services,pods", "--namespace", self._namespace)["items"]
        services = {one["metadata"]["name"] for one in seen if one["kind"] == "Service"}
        for cluster in [one for one in seen if one["kind"] == "RayCluster"]:
            if "deletionTimestamp" in cluster["metadata"]:
                continue
            name = cluster["metadata"]["name"]
            pods = [one for one in seen if one["kind"] == "Pod" and _label(one, CLUSTER) == name]
            if _service(cluster) not in services:
                self._create(head_service(cluster))
            heads = [pod for pod in pods if _label(pod, KIND) == "head"]
            if not heads:
                self._create(head_pod(cluster))
            self._delete([pod for pod in heads if _has_ended(pod)])
            for group in cluster["spec"].get("workerGroupSpecs") or ():
                self._keep(cluster, group, [pod for pod in pods if _label(pod, GROUP) == group["groupName"]])
            self._tell(cluster, pods)

    def _keep(self, cluster: Document, group: Document, pods: Sequence[Document]) -> None:
        """One group. Nothing is made while something of it ends by the player's own hand."""
        if ended := [pod for pod in pods if _has_ended(pod)]:
            self._delete(ended)
            return
        named = (group.get("scaleStrategy") or {}).get("workersToDelete") or ()
        leaving = [pod for pod in pods if pod["metadata"]["name"] in named]
        self._delete(leaving)
        staying = [pod for pod in pods if pod not in leaving]
        missing = group["replicas"] - len(staying)
        if missing > 0 and (not leaving or self._at_once):
            self._create(*[worker_pod(cluster, group) for _ in range(missing)])
        # Whichever: who wants others to stay must name those that go.
        self._delete(staying[: max(0, -missing)])

    def _create(self, *documents: Document) -> None:
        # Not `apply`: names are made by the API server.
        listed = {"apiVersion": "v1", "kind": "List", "items": documents}
        self._plane.kubectl("create", "--filename", "-", stdin=json.dumps(listed))

    def _delete(self, pods: Sequence[Document]) -> None:
        if names := [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]:
            place = ("--namespace", self._namespace, "--ignore-not-found", "--wait=false")
            self._plane.kubectl("delete", "pod", *names, *place, *self._at_once)

    def _tell(self, cluster: Document, pods: Sequence[Document]) -> None:
        groups = cluster["spec"].get("workerGroupSpecs") or ()
        wanted = sum(group["replicas"] for group in groups)
        ready = [pod for pod in pods if _is_ready(pod)]
        workers = [pod for pod in pods if _label(pod, KIND) == "worker"]
        status = {
            "observedGeneration": cluster["metadata"]["generation"],
            "desiredWorkerReplicas": wanted,
            "availableWorkerReplicas": sum(pod["status"].get("phase") == "Running" for pod in workers),
            "readyWorkerReplicas": sum(pod in ready for pod in workers),
        }
        if len(pods) == len(ready) == wanted + 1:
            status["state"] = "ready"
        before = cluster.get("status") or {}
        if any(before.get(key, 0) != value for key, value in status.items()):
            place = ("--namespace", self._namespace, "--subresource=status", "--type=merge")
            patch = f"--patch={json.dumps({'status': status})}"
            self._plane.kubectl("patch", "raycluster", cluster["metadata"]["name"], *place, patch)


def _label(document: Document, label: str) -> str:
    return str((document["metadata"].get("labels") or {}).get(label, ""))


def _has_ended(pod: Document) -> bool:
    return pod["status"].get("phase") in ("Failed", "Succeeded")


def _is_ready(pod: Document) -> bool:
    conditions = pod["status"].get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


@contextmanager
def real_kuberay(plane: ControlPlane, program: str) -> Iterator[Process]:
    """KubeRay's own operator, for the whole cluster."""
    command = (program, f"--kubeconfig={plane.kubeconfig}", "--enable-leader-election=false", "--metrics-addr=0")
    process = Process("kuberay", (*command, "--health-probe-bind-address=0"), plane.folder / "kuberay.log")
    try:
        yield process
    finally:
        process.stop()


@contextmanager
def kuberay(plane: ControlPlane, namespace: str) -> Iterator[str]:
    """KubeRay's operator works inside: the one that KUBERAY_OPERATOR names, else the played one. Gives which it is."""
    if program := os.environ.get("KUBERAY_OPERATOR"):
        with real_kuberay(plane, program):
            yield "KubeRay's operator"
        return
    ending = threading.Event()
    player = PlayedKubeRay(plane, namespace)

    def play() -> None:
        while not ending.wait(1.0):
            try:
                player.turn()
            except CommandError as error:
                # As when somebody else was faster; the next turn begins from what is.
                print(f"[kuberay] a turn failed: {error}", flush=True)

    thread = threading.Thread(target=play, daemon=True)
    thread.start()
    try:
        yield "played"
    finally:
        ending.set()
        thread.join(timeout=60)
