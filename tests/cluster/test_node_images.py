"""The worker's image runs the whole platform in one pod that may do nothing: restricted, on a read-only root."""

import re
from typing import Any

import openai
import pytest

from tests.cluster.load import Edge, load
from tests.cluster.node import Node
from tests.cluster.platform_images import WORKER
from tests.cluster.pods import wait_for_pods

NAMESPACE = "alone"
MODELS = """
[[models]]
name = "scripted"
engine = "scripted"
script = { tokens = 20 }
free = true

[[models]]
name = "smollm2-135m-instruct"
context_tokens = 2048
slots = 4
default_output_tokens = 64
free = true
"""
WRITABLE = ("/var/lib/modelplane", "/var/cache/modelplane", "/tmp", "/dev/shm")


def pod() -> dict[str, Any]:
    volumes = [{"name": f"v{n}", "emptyDir": {}} for n in range(len(WRITABLE))]
    mounts = [{"name": f"v{n}", "mountPath": path} for n, path in enumerate(WRITABLE)]
    container = {
        "name": "modelplane",
        "image": WORKER,
        "imagePullPolicy": "Never",
        "args": ["up"],
        "env": [
            {"name": "MODELPLANE_HOST", "value": "0.0.0.0"},
            {"name": "MODELPLANE_CONFIG", "value": "/etc/modelplane/models.toml"},
        ],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": 8080}, "periodSeconds": 2},
        "volumeMounts": [*mounts, {"name": "config", "mountPath": "/etc/modelplane"}],
        "securityContext": {
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "modelplane", "namespace": NAMESPACE},
        "spec": {
            "enableServiceLinks": False,
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [*volumes, {"name": "config", "configMap": {"name": "models"}}],
        },
    }


@pytest.fixture(scope="module")
def client(real: Node) -> openai.OpenAI:
    """The official SDK, on a platform that is ready."""
    plane = real.plane
    plane.namespace(NAMESPACE, restricted=True)
    plane.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "models", "namespace": NAMESPACE},
            "data": {"models.toml": MODELS},
        },
    )
    plane.apply(pod())
    seconds = wait_for_pods(plane, NAMESPACE, timeout_s=420)
    print(f"[images] the pod was ready after {seconds:.0f} s")
    said = plane.kubectl("logs", "modelplane", "--namespace", NAMESPACE)
    key = re.search(r"API key\s+(\S+)", said)
    assert key, said
    address = plane.get("pod", "modelplane", "--namespace", NAMESPACE)["status"]["podIP"]
    return openai.OpenAI(base_url=f"http://{address}:8080/v1", api_key=key[1], max_retries=0, timeout=120)


@pytest.mark.parametrize("model", ["scripted", "smollm2-135m-instruct"])
def test_the_official_sdk_gets_an_answer(client: openai.OpenAI, model: str) -> None:
    question = [{"role": "user", "content": "What is the capital of France?"}]
    answer = client.chat.completions.create(model=model, messages=question, max_tokens=20, temperature=0)  # type: ignore[arg-type]
    said = answer.choices[0].message.content
    print(f"[images] {model}: {said!r}")
    assert said and answer.usage and answer.usage.completion_tokens > 0
    if model != "scripted":
        assert "Paris" in said


def test_many_clients_are_answered(client: openai.OpenAI) -> None:
    with load(Edge(str(client.base_url), client.api_key), "scripted") as clients:
        clients.wait_for(200)
    assert not clients.result.failures and not clients.result.broken


def test_the_pod_ends_in_order(real: Node, client: openai.OpenAI) -> None:
    client.close()
    real.plane.kubectl("delete", "pod", "modelplane", "--namespace", NAMESPACE, "--grace-period=60", "--timeout=70s")
