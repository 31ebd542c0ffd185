"""An autoscaler of the real controller manager follows our own figures up and down, and stands still without them.

Nodes and pods are played; what answers for the pods' addresses is one small server, which shares a load among as many
pods as are asked. The external metrics run as they ship: by the chart's objects, with the rights that these give.
"""

import base64
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from operators.metrics.figures import FIGURES as FIGURE_NAMES
from tests.cluster.certificates import Authority
from tests.cluster.control_plane import CommandError, ControlPlane
from tests.cluster.network import free_port, ip
from tests.cluster.processes import Process, wait_until

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "modelplane"
NAMESPACE = "scaled"
RELEASE = "modelplane"
FIGURES = f"/apis/external.metrics.k8s.io/v1beta1/namespaces/{NAMESPACE}"
IN_FLIGHT = f"{FIGURES}/modelplane_requests_in_flight?labelSelector=group%3Dgateway"
# The policies that ship take minutes to go down.
AT_ONCE = {"stabilizationWindowSeconds": 3, "policies": [{"type": "Percent", "value": 100, "periodSeconds": 1}]}


class PlayedGateways:
    """Answers for every pod's address: `load` requests are in flight, shared by the pods that were asked lately."""

    def __init__(self) -> None:
        self.load = 0
        self.silent = False
        self._asked: dict[str, float] = {}
        outer = self

        class Page(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                address = self.connection.getsockname()[0]
                now = time.monotonic()
                outer._asked[address] = now
                pods = sum(now - asked < 1.5 for asked in list(outer._asked.values()))
                text = (
                    f"# TYPE modelplane_requests_in_flight gauge\nmodelplane_requests_in_flight {outer.load / pods}\n"
                )
                self.send_response(500 if outer.silent else 200)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("", 0), Page)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def rendered(plane: ControlPlane, authority: Authority) -> list[dict[str, Any]]:
    """The chart's objects for autoscaling."""
    values = {
        "postgresql": {"bundled": True},
        "valkey": {"bundled": True},
        "autoscaling": {
            "gateway": {
                "enabled": True,
                "min": 1,
                "max": 8,
                "target": 10,
                "behavior": {"scaleUp": AT_ONCE | {"stabilizationWindowSeconds": 0}, "scaleDown": AT_ONCE},
            }
        },
    }
    file = plane.folder / "autoscaling-values.yaml"
    file.write_text(json.dumps(values))
    text = plane.helm(
        *("template", RELEASE, str(CHART), "--namespace", NAMESPACE, "--values", str(file)),
        *(f"--show-only=templates/autoscaling/{name}.yaml" for name in ("hpa", "metrics", "rbac")),
    )
    found: list[dict[str, Any]] = [one for one in yaml.safe_load_all(text) if one]
    for one in found:
        if one["kind"] == "APIService":
            # The certificate is not the chart's here.
            one["spec"]["caBundle"] = base64.b64encode(authority.pair.certificate.read_bytes()).decode()
        else:
            one["metadata"].setdefault("namespace", NAMESPACE)
    return found


def gateway() -> list[dict[str, Any]]:
    """A Deployment of one container and its Service, named as the chart names them."""
    labels = {"app": "gateway"}
    pod = {"containers": [{"name": "a", "image": "localhost/none:1"}]}
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": f"{RELEASE}-gateway", "namespace": NAMESPACE},
            "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": f"{RELEASE}-gateway", "namespace": NAMESPACE},
            "spec": {"clusterIP": "None", "selector": labels, "ports": [{"port": 9000}]},
        },
    ]


@contextmanager
def external_metrics(plane: ControlPlane, authority: Authority, gateways: PlayedGateways) -> Iterator[Process]:
    """The program of the chart's Deployment, in the place of its played pod."""
    folder = plane.folder / "external-metrics"
    (folder / "tls").mkdir(parents=True, exist_ok=True)
    pair = authority.issue("metrics", "metrics", names=(f"{RELEASE}-metrics.{NAMESPACE}.svc",))
    (folder / "tls" / "tls.crt").write_bytes(pair.certificate.read_bytes())
    (folder / "tls" / "tls.key").write_bytes(pair.key.read_bytes())
    token = plane.kubectl("create", "token", f"{RELEASE}-metrics", "--namespace", NAMESPACE, "--duration", "1h")
    (folder / "token").write_text(token)
    (folder / "namespace").write_text(NAMESPACE)
    (folder / "ca.crt").write_bytes(plane.authority.pair.certificate.read_bytes())
    settings = {
        "LISTEN": ":443",
        "HEALTH_LISTEN": f"127.0.0.1:{free_port()}",
        "TLS_FOLDER": str(folder / "tls"),
        "ACCOUNT": str(folder),
        "SERVER": plane.url,
        "GROUPS": f"gateway={RELEASE}-gateway",
        "PODS_PORT": str(gateways.port),
        "INTERVAL_S": "0.5",
        "WINDOW_S": "1",
        "STALE_S": "3",
    }
    variables = [f"MODELPLANE_EXTERNAL_METRICS_{name}={value}" for name, value in settings.items()]
    command = ("env", f"--chdir={ROOT}", *variables, sys.executable, "-m", "operators.metrics")
    process = Process("external-metrics", command, plane.folder / "external-metrics.log")
    try:
        yield process
    finally:
        process.stop()


@pytest.fixture(scope="module")
def gateways(played: ControlPlane) -> Iterator[PlayedGateways]:
    """A Deployment that an autoscaler of the chart scales, with everything that belongs to that."""
    authority = Authority(played.folder / "internal", "internal")
    played.namespace(NAMESPACE)
    played.apply(*rendered(played, authority), *gateway())
    address = played.get("service", f"{RELEASE}-metrics", "--namespace", NAMESPACE)["spec"]["clusterIP"]
    # There is no kube-proxy: whoever calls the Service's address reaches this machine.
    ip("route", "add", "local", f"{address}/32", "dev", "lo")
    answering = PlayedGateways()
    try:
        with external_metrics(played, authority, answering) as process:
            seconds = wait_until("the API is there", lambda: available(played), process=process)
            print(f"[cluster] external metrics available in {seconds:.1f} s, {process.resident_mib()} MiB resident")
            yield answering
    finally:
        answering.close()
        played.kubectl("delete", "apiservice", "v1beta1.external.metrics.k8s.io")
        played.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def available(plane: ControlPlane) -> bool:
    conditions = plane.get("apiservice", "v1beta1.external.metrics.k8s.io").get("status", {}).get("conditions", ())
    return any(one["type"] == "Available" and one["status"] == "True" for one in conditions)


def pods(plane: ControlPlane) -> int:
    status = plane.get("deployment", f"{RELEASE}-gateway", "--namespace", NAMESPACE)["status"]
    return int(status.get("readyReplicas", 0)) if status.get("replicas") == status.get("readyReplicas") else -1


def asked(plane: ControlPlane) -> dict[str, Any]:
    item: dict[str, Any] = json.loads(plane.kubectl("get", "--raw", IN_FLIGHT))["items"][0]
    return item


def figure(plane: ControlPlane) -> float:
    """Requests in flight, as the autoscaler reads them; 0 when nobody knows."""
    try:
        value = asked(plane)["value"]
    except CommandError:
        return 0
    return float(value.removesuffix("m")) / (1000 if value.endswith("m") else 1)


def scaled(plane: ControlPlane, replicas: int) -> float:
    return wait_until(f"{replicas} pods", lambda: pods(plane) == replicas, timeout_s=120)


def test_one_to_many_to_one(played: ControlPlane, gateways: PlayedGateways) -> None:
    scaled(played, 1)
    seconds = []
    # 35 in flight at 10 each want 4; more than everything wants 8, the most there may be.
    for load, replicas in ((35, 4), (500, 8), (5, 1)):
        gateways.load = load
        seconds.append(scaled(played, replicas))
    print(f"[cluster] 1 -> 4 -> 8 -> 1 in {', '.join(f'{s:.1f}' for s in seconds)} s")


def test_without_figures_the_scale_stays_and_says_why(played: ControlPlane, gateways: PlayedGateways) -> None:
    gateways.load = 35
    # While pods come, the older figures of those that were there before say too much, and so it may go beyond 4 first.
    wait_until("4 pods stay", lambda: (figure(played), pods(played)) == (35, 4), timeout_s=120)
    gateways.silent = True
    # Less load, of which nobody can know.
    gateways.load = 5

    def condition() -> dict[str, Any]:
        status = played.get("hpa", f"{RELEASE}-gateway", "--namespace", NAMESPACE)["status"]
        return next(one for one in status["conditions"] if one["type"] == "ScalingActive")

    wait_until("the autoscaler is blind", lambda: condition()["status"] == "False", timeout_s=60)
    assert "of 4 pods of gateway have no new figure yet" in condition()["message"]
    time.sleep(5)
    assert pods(played) == 4
    gateways.silent = False
    print(f"[cluster] 4 -> 1 in {scaled(played, 1):.1f} s after the figures came back")


def test_who_may_ask_is_decided_by_the_cluster(played: ControlPlane, gateways: PlayedGateways) -> None:
    assert asked(played)["metricLabels"] == {"group": "gateway"}
    stranger = played.user("stranger", "stranger")
    with pytest.raises(CommandError, match="Forbidden"):
        played.kubectl("get", "--raw", IN_FLIGHT, kubeconfig=stranger)
    with pytest.raises(CommandError, match="only the figures of namespace scaled"):
        played.kubectl("get", "--raw", IN_FLIGHT.replace(NAMESPACE, "default"))


def test_its_account_may_do_two_things(played: ControlPlane, gateways: PlayedGateways) -> None:
    account = played.service_account(NAMESPACE, f"{RELEASE}-metrics")
    played.kubectl("get", "endpointslices", "--namespace", NAMESPACE, kubeconfig=account)
    place = ("--namespace", "kube-system", "configmap")
    played.kubectl("get", *place, "extension-apiserver-authentication", kubeconfig=account)
    for refused in (
        ("get", "endpointslices", "--namespace", "default"),
        ("get", "pods", "--namespace", NAMESPACE),
        ("get", "secrets", "--namespace", NAMESPACE),
        ("get", "configmaps", "--namespace", "kube-system"),
        ("delete", "endpointslices", "--all", "--namespace", NAMESPACE),
    ):
        with pytest.raises(CommandError, match="forbidden"):
            played.kubectl(*refused, kubeconfig=account)


def test_the_cluster_lists_the_figures(played: ControlPlane, gateways: PlayedGateways) -> None:
    listed = played.kubectl("api-resources", "--api-group", "external.metrics.k8s.io", "--output", "name")
    assert set(listed.split()) == {f"{name}.external.metrics.k8s.io" for name in FIGURE_NAMES}
