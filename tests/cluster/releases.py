"""A release of the chart on a real node: installed with one command, ready, and removed afterwards; and what tests do
with it."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import openai

from tests.cluster.control_plane import ControlPlane
from tests.cluster.load import Edge, Result, load
from tests.cluster.node import Node
from tests.cluster.pods import wait_for_pods
from tests.cluster.processes import wait_until

HERE = Path(__file__).parent
CHART = HERE.parents[1] / "charts" / "modelplane"
VALUES = HERE / "values" / "node.yaml"
RELEASE = "modelplane"
MODEL = "smollm2-135m-instruct"
# Of helm, for a machine that does other things too.
TIMEOUT = ("--wait", "--timeout", "15m")
CLIENTS = 6


class Installed(NamedTuple):
    """A release that is ready, and how to call it."""

    node: Node
    namespace: str
    edge: Edge
    results: list[Result]
    """Of everybody who has called so far."""

    @property
    def plane(self) -> ControlPlane:
        return self.node.plane

    def helm(self, *arguments: str) -> str:
        return self.plane.helm(*arguments, "--namespace", self.namespace)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        # First, since what follows `--` is a pod's.
        return self.plane.kubectl("--namespace", self.namespace, *arguments, stdin=stdin)

    def get(self, *arguments: str) -> Any:
        return self.plane.get(*arguments, "--namespace", self.namespace)

    def pods(self, component: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("pods", "--selector", of(component))["items"]
        return found

    def modelplane(self, *arguments: str) -> str:
        """A command in a gateway's pod, as an administrator runs it."""
        return run(self.plane, self.namespace, *arguments)

    def all_ready(self) -> float:
        """Seconds until every pod was."""
        return wait_for_pods(self.plane, self.namespace, timeout_s=300)

    @contextmanager
    def shaken(self, model: str = "scripted", number: int = CLIENTS) -> Iterator[Result]:
        """Clients that call before, during and after what happens inside, and until every pod is ready again."""
        with load(self.edge, model, clients=number) as clients:
            clients.wait_for(5 * number)
            yield clients.result
            clients.wait_for(15 * number, timeout_s=180)
            self.all_ready()
        self.results.append(clients.result)

    def kill(self, pod: dict[str, Any]) -> None:
        """SIGKILL for the process of a pod's first container."""
        container = pod["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
        self.node.ctr("tasks", "kill", "--signal", "SIGKILL", container)

    def first_answer(self) -> tuple[float, str]:
        """Seconds until the real model answers, and what it says."""
        question = [{"role": "user", "content": "What is the capital of France?"}]
        said: list[str] = []

        def answers() -> bool:
            with self.edge.client() as client:
                try:
                    answer = client.chat.completions.create(
                        model=MODEL,
                        messages=question,  # type: ignore[arg-type]
                        max_tokens=20,
                        temperature=0,
                    )
                except (openai.InternalServerError, openai.NotFoundError, openai.APITimeoutError):
                    return False
            assert answer.usage and answer.usage.completion_tokens > 0
            said.append(answer.choices[0].message.content or "")
            return True

        return wait_until("the model answers", answers, timeout_s=600), said[0]

    def audited(self) -> dict[str, Any]:
        """What `modelplane audit` found: nothing."""
        found: dict[str, Any] = json.loads(self.modelplane("audit", "--json"))
        print(f"[chart] audit: {found}")
        assert found["findings_total"] == 0 and found["usage_dollars"] == found["billed_dollars"]
        return found


def of(component: str) -> str:
    return f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component={component}"


def run(plane: ControlPlane, namespace: str, *arguments: str) -> str:
    where = ("exec", f"deploy/{RELEASE}-gateway", "--namespace", namespace)
    return plane.kubectl(*where, "--", "modelplane", *arguments)


def offer_storage(plane: ControlPlane, namespace: str) -> None:
    """A volume for the claim of prepared models, as a provisioner would make it."""
    folder = plane.folder / f"prepared-{namespace}"
    folder.mkdir()
    folder.chmod(0o777)
    plane.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"prepared-{namespace}"},
            "spec": {
                "capacity": {"storage": "2Gi"},
                "accessModes": ["ReadWriteOnce"],
                "hostPath": {"path": str(folder)},
                "claimRef": {"namespace": namespace, "name": f"{RELEASE}-cache"},
            },
        }
    )


def edge(plane: ControlPlane, namespace: str) -> Edge:
    """Envoy's Service and the certificate that it shows."""
    address = plane.get("service", f"{RELEASE}-envoy", "--namespace", namespace)["spec"]["clusterIP"]
    certificate = plane.get("secret", f"{RELEASE}-edge-tls", "--namespace", namespace)["data"]["tls.crt"]
    key = json.loads(run(plane, namespace, "keys", "create", "--json"))["secret"]
    return Edge(f"https://{address}/v1", key, base64.b64decode(certificate).decode(), "modelplane.local")


@contextmanager
def installed(node: Node, namespace: str, *more: Path) -> Iterator[Installed]:
    """A release in a namespace that there is; `more` are files of values that go over those of every node."""
    plane = node.plane
    offer_storage(plane, namespace)
    values = [word for file in (VALUES, *more) for word in ("--values", str(file))]
    try:
        install = ("install", RELEASE, str(CHART), *values, "--namespace", namespace, *TIMEOUT)
        took_s = wait_until("helm installs", lambda: bool(plane.helm(*install)))
        print(f"[chart] installed in {took_s:.0f} s")
    finally:
        # Says what is wrong where something is.
        wait_for_pods(plane, namespace, timeout_s=10)
    yield Installed(node, namespace, edge(plane, namespace), [])
    plane.helm("uninstall", RELEASE, "--namespace", namespace, *TIMEOUT)
