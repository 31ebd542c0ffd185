"""The chart on a real node: installed with one command, asked through Envoy and TLS by the official SDK, upgraded and
shaken under load, and audited at the end.

Kept true: whoever calls loses nothing but streams that were in progress on a process that was killed; and what was
used is what was billed, whatever happened in between.
"""

import base64
import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import openai
import pytest

from tests.cluster.control_plane import ControlPlane
from tests.cluster.load import Edge, Result, load
from tests.cluster.node import Node
from tests.cluster.pods import ready, wait_for_pods
from tests.cluster.processes import wait_until

HERE = Path(__file__).parent
CHART = HERE.parents[1] / "charts" / "modelplane"
VALUES = HERE / "values" / "node.yaml"
NAMESPACE = "chart"
RELEASE = "modelplane"
MODEL = "smollm2-135m-instruct"
RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
# Of helm, for a machine that does other things too.
TIMEOUT = ("--wait", "--timeout", "15m")
CLIENTS = 6


class Installed(NamedTuple):
    """A release that is ready, and how to call it."""

    node: Node
    edge: Edge
    results: list[Result]
    """Of everybody who has called so far."""

    @property
    def plane(self) -> ControlPlane:
        return self.node.plane

    def helm(self, *arguments: str) -> str:
        return self.plane.helm(*arguments, "--namespace", NAMESPACE)

    def kubectl(self, *arguments: str) -> str:
        return self.plane.kubectl(*arguments, "--namespace", NAMESPACE)

    def pods(self, component: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.plane.get("pods", "--namespace", NAMESPACE, "--selector", of(component))[
            "items"
        ]
        return found

    def modelplane(self, *arguments: str) -> str:
        """A command in a gateway's pod, as an administrator runs it."""
        return run(self.plane, *arguments)

    def all_ready(self) -> float:
        """Seconds until every pod was."""
        return wait_for_pods(self.plane, NAMESPACE, timeout_s=300)


def of(component: str) -> str:
    return f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component={component}"


def run(plane: ControlPlane, *arguments: str) -> str:
    where = ("exec", f"deploy/{RELEASE}-gateway", "--namespace", NAMESPACE)
    return plane.kubectl(*where, "--", "modelplane", *arguments)


def offer_storage(plane: ControlPlane) -> None:
    """A volume for the claim of prepared models, as a provisioner would make it."""
    folder = plane.folder / "prepared"
    folder.mkdir()
    folder.chmod(0o777)
    plane.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": "prepared"},
            "spec": {
                "capacity": {"storage": "2Gi"},
                "accessModes": ["ReadWriteOnce"],
                "hostPath": {"path": str(folder)},
                "claimRef": {"namespace": NAMESPACE, "name": f"{RELEASE}-cache"},
            },
        }
    )


def edge(plane: ControlPlane) -> Edge:
    """Envoy's Service and the certificate that it shows."""
    address = plane.get("service", f"{RELEASE}-envoy", "--namespace", NAMESPACE)["spec"]["clusterIP"]
    certificate = plane.get("secret", f"{RELEASE}-edge-tls", "--namespace", NAMESPACE)["data"]["tls.crt"]
    key = json.loads(run(plane, "keys", "create", "--json"))["secret"]
    return Edge(f"https://{address}/v1", key, base64.b64decode(certificate).decode(), "modelplane.local")


@pytest.fixture(scope="module")
def installed(real: Node) -> Iterator[Installed]:
    plane = real.plane
    plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": RESTRICTED}})
    offer_storage(plane)
    try:
        install = ("install", RELEASE, str(CHART), "--values", str(VALUES), "--namespace", NAMESPACE, *TIMEOUT)
        took_s = wait_until("helm installs", lambda: bool(plane.helm(*install)))
        print(f"[chart] installed in {took_s:.0f} s")
    finally:
        # Says what is wrong where something is.
        wait_for_pods(plane, NAMESPACE, timeout_s=10)
    yield Installed(real, edge(plane), [])
    plane.helm("uninstall", RELEASE, "--namespace", NAMESPACE, *TIMEOUT)


def test_every_pod_passes_its_probes(installed: Installed) -> None:
    pods = installed.plane.get("pods", "--namespace", NAMESPACE)["items"]
    restarts = {
        pod["metadata"]["name"]: status["restartCount"]
        for pod in pods
        for status in pod["status"]["containerStatuses"]
        if status["restartCount"]
    }
    print(f"[chart] {len(pods)} pods are ready; started more than once: {restarts or 'none'}")
    assert not {name for name in restarts if "-postgresql-" in name or "-valkey-" in name or "-envoy-" in name}


def test_the_official_sdk_gets_an_answer_of_the_real_model_through_envoy_and_tls(installed: Installed) -> None:
    took_s, said = first_answer(installed)
    print(f"[chart] {MODEL}, {took_s:.0f} s after everything was ready: {said!r}")
    assert "Paris" in said


def test_what_envoy_shows_is_checked(installed: Installed) -> None:
    """Else the test before would prove nothing of TLS."""
    with pytest.raises(httpx2.ConnectError), httpx2.Client(verify=ssl.create_default_context()) as client:
        client.get(f"{installed.edge.url}/models")


def test_helm_test_passes(installed: Installed) -> None:
    said = installed.helm("test", RELEASE, "--timeout", "5m")
    assert "Phase:          Succeeded" in said, said


CHANGED = "overrides.gateway.resources.requests.memory=100Mi"
CHANGES = {
    "upgrade": ("upgrade", RELEASE, str(CHART), "--values", str(VALUES), "--set", CHANGED, *TIMEOUT),
    "rollback": ("rollback", RELEASE, "1", *TIMEOUT),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_release_loses_no_request(installed: Installed, change: str) -> None:
    before = {pod["metadata"]["uid"] for pod in installed.pods("gateway")}
    with shaken(installed) as clients, shaken(installed, MODEL, number=2) as models:
        installed.helm(*CHANGES[change])
        # Those that end still serve what they have.
        wait_until("the old pods are gone", lambda: len(installed.pods("gateway")) == len(before), timeout_s=180)
    assert not before & {pod["metadata"]["uid"] for pod in installed.pods("gateway")}
    for result in (clients, models):
        assert not result.failures and not result.broken


@pytest.mark.parametrize("component", ["gateway", "envoy", "router"])
def test_a_pod_that_is_told_to_end_loses_no_request(installed: Installed, component: str) -> None:
    """As when its node is drained."""
    name = installed.pods(component)[0]["metadata"]["name"]
    with shaken(installed) as clients:
        installed.kubectl("delete", "pod", name, "--timeout=120s")
    assert not clients.failures and not clients.broken


@pytest.mark.parametrize("component", ["gateway", "envoy", "xds", "router", "keys", "valkey", "postgresql"])
def test_a_killed_process_loses_no_request(installed: Installed, component: str) -> None:
    with shaken(installed) as clients:
        kill(installed, component)
    assert not clients.failures


def test_the_model_comes_back_after_all_its_replicas_were_killed(installed: Installed) -> None:
    """In a trial they live in the pod of the pools."""
    kill(installed, "pools")
    wait_until("they are gone", lambda: not all(map(ready, installed.pods("pools"))))
    print(f"[chart] {MODEL} answered {first_answer(installed)[0]:.0f} s after its replica was killed")
    installed.all_ready()


def test_what_was_used_is_what_was_billed(installed: Installed) -> None:
    """Every answer too that somebody got, since no disk was lost."""
    assert audited(installed)["records"] >= sum(result.answered for result in installed.results)


@pytest.mark.parametrize("component", ["gateway", "envoy"])
def test_a_pod_that_vanishes_loses_no_request(installed: Installed, component: str) -> None:
    name = installed.pods(component)[0]["metadata"]["name"]
    with shaken(installed) as clients:
        installed.kubectl("delete", "pod", name, "--grace-period=0", "--force")
    assert not clients.failures


def test_the_ledger_is_right_after_all_that(installed: Installed) -> None:
    audited(installed)


@contextmanager
def shaken(installed: Installed, model: str = "scripted", number: int = CLIENTS) -> Iterator[Result]:
    """Clients that call before, during and after what happens inside, and until every pod is ready again."""
    with load(installed.edge, model, clients=number) as clients:
        clients.wait_for(5 * number)
        yield clients.result
        clients.wait_for(15 * number, timeout_s=180)
        installed.all_ready()
    installed.results.append(clients.result)


def kill(installed: Installed, component: str) -> None:
    """SIGKILL for the process of one pod."""
    status = installed.pods(component)[0]["status"]["containerStatuses"][0]
    container = status["containerID"].removeprefix("containerd://")
    installed.node.ctr("tasks", "kill", "--signal", "SIGKILL", container)


def first_answer(installed: Installed) -> tuple[float, str]:
    """Seconds until the model answers, and what it says."""
    question = [{"role": "user", "content": "What is the capital of France?"}]
    said: list[str] = []

    def answers() -> bool:
        with installed.edge.client() as client:
            try:
                answer = client.chat.completions.create(model=MODEL, messages=question, max_tokens=20, temperature=0)  # type: ignore[arg-type]
            except (openai.InternalServerError, openai.NotFoundError, openai.APITimeoutError):
                return False
        assert answer.usage and answer.usage.completion_tokens > 0
        said.append(answer.choices[0].message.content or "")
        return True

    return wait_until("the model answers", answers, timeout_s=600), said[0]


def audited(installed: Installed) -> dict[str, Any]:
    """What `modelplane audit` found: nothing."""
    found: dict[str, Any] = json.loads(installed.modelplane("audit", "--json"))
    print(f"[chart] audit: {found}")
    assert found["findings_total"] == 0 and found["usage_dollars"] == found["billed_dollars"]
    return found
