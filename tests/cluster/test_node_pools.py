"""A ModelPool on a real node: its replicas are Ray actors in worker pods of a Ray cluster, and it grows, rolls, goes to
zero and away while the official SDK calls through Envoy.

Ray, the operator of model pools and every service are real; KubeRay's operator is, where KUBERAY_OPERATOR names it,
else it is played. Kept true: as long as a pool is to have a replica, nobody who calls loses a request.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest

from tests.cluster import releases
from tests.cluster.load import Result, load
from tests.cluster.node import Node
from tests.cluster.platform_images import WORKER
from tests.cluster.played_kuberay import CLUSTER, GROUP, KIND, define, kuberay
from tests.cluster.pods import ready
from tests.cluster.processes import wait_until
from tests.cluster.releases import HERE, MODEL, RELEASE, TIMEOUT, Installed

CRDS = releases.CHART.parent / "modelplane-crds"
VALUES = HERE / "values" / "pools.yaml"
NAMESPACE = "pools"
POOL = "small"
NEXT_WORKER = f"{WORKER}-next"
RAY = f"{CLUSTER}={RELEASE}-pools"
# For a replica with a real engine on a machine that does other things too.
START_S = 900.0


def pool(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "modelplane.ai/v1alpha1",
        "kind": "ModelPool",
        "metadata": {"name": POOL, "namespace": NAMESPACE},
        "spec": {
            "model": MODEL,
            "slots": 4,
            "defaultOutputTokens": 64,
            "price": {"input": "0.15", "output": "0.60"},
            # What the kernel keeps of the image's files alone would fill that.
            "resources": {"cpu": "500m", "memory": "5Gi"},
            "replicas": {"min": 1, "max": 2},
            "autoscaling": {"scaleDownAfterSeconds": 5},
        }
        | spec,
    }


@pytest.fixture(scope="module")
def installed(real: Node) -> Iterator[Installed]:
    plane = real.plane
    if not define(plane):
        pytest.skip("no definitions of KubeRay: set KUBERAY_CRDS to a folder with them")
    plane.namespace(NAMESPACE, restricted=True)
    plane.helm("install", f"{RELEASE}-crds", str(CRDS), "--namespace", NAMESPACE, *TIMEOUT)
    real.ctr("images", "tag", "--force", WORKER, NEXT_WORKER)
    with kuberay(plane, NAMESPACE) as which:
        print(f"[pools] KubeRay: {which}")
        with releases.installed(real, NAMESPACE, VALUES) as found:
            yield found
            # Of a test that failed, there may be something left.
            found.kubectl("delete", "modelpools", "--all", "--timeout=180s")


class Watched:
    """The pool, as people see it."""

    def __init__(self, installed: Installed) -> None:
        self._installed = installed

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self._installed.get("modelpool", POOL).get("status") or {}
        return found

    def condition(self, kind: str) -> str:
        return next((one["reason"] for one in self.status().get("conditions", ()) if one["type"] == kind), "")

    def settled(self, ready: int) -> bool:
        """Whether it has so many replicas, and no work to do."""
        status = self.status()
        reasons = {one["type"]: one["reason"] for one in status.get("conditions", ())}
        return status.get("readyReplicas") == ready == len(self.workers()) and reasons.get("Progressing") == "Settled"

    def patch(self, **spec: Any) -> None:
        self._installed.kubectl("patch", "modelpool", POOL, "--type=merge", f"--patch={json.dumps({'spec': spec})}")

    def workers(self) -> dict[str, dict[str, Any]]:
        """The worker pods that there are, those that end too, by name."""
        listed = self._installed.get("pods", "--selector", f"{RAY},{KIND}=worker")["items"]
        return {pod["metadata"]["name"]: pod for pod in listed}

    def until(self, what: str, happened: Callable[[], bool], timeout_s: float = START_S) -> float:
        try:
            # Each look takes a part of the processors that replicas need.
            seconds = wait_until(what, happened, timeout_s=timeout_s, every_s=2)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self._told()}") from error
        print(f"[pools] {what}: {seconds:.0f} s", flush=True)
        return seconds

    def _told(self) -> str:
        """What everybody who takes part has to say."""
        ask = self._installed.kubectl
        told = [json.dumps(self.status(), indent=1), ask("get", "pods", "--output", "wide")]
        told += [ask("get", "events", "--sort-by=.lastTimestamp")]
        for part in ("operator", "pools"):
            told.append(ask("logs", f"deploy/{RELEASE}-{part}", "--tail=40"))
        return "\n".join(told)


@pytest.fixture(scope="module")
def watched(installed: Installed) -> Watched:
    return Watched(installed)


def replicas_in(installed: Installed, pod: str) -> list[str]:
    """The processes of a pod that are Ray actors of ours."""
    script = (
        "import psutil\nfor process in psutil.process_iter(['cmdline']):\n    print(*process.info['cmdline'][:1])\n"
    )
    said = installed.kubectl("exec", pod, "--", "python", "-c", script)
    return [line for line in said.splitlines() if line.startswith("ray::Replica")]


@contextmanager
def called(installed: Installed, number: int = 2) -> Iterator[Result]:
    """Clients that ask the real model before, during and after what happens inside.

    They pause, since an engine that has just worked waits for more with all it has of a processor.
    """
    with load(installed.edge, MODEL, clients=number, pause_s=4) as clients:
        clients.wait_for(2 * number, timeout_s=180)
        yield clients.result
        clients.wait_for(4 * number, timeout_s=180)
    installed.results.append(clients.result)
    assert not clients.result.failures and not clients.result.broken


def test_a_pool_becomes_ready(installed: Installed, watched: Watched) -> None:
    installed.plane.apply(pool())
    watched.until("it has a worker's pod", lambda: len(watched.workers()) == 1)
    watched.until("its pod is ready", lambda: all(map(ready, watched.workers().values())))
    watched.until("it is ready", lambda: watched.condition("Ready") == "Serving")
    watched.until("it is settled", lambda: watched.settled(1))
    status = watched.status()
    print(f"[pools] {json.dumps({key: status[key] for key in status if key != 'conditions'})}")
    selected = installed.get("pods", "--selector", status["selector"])["items"]
    assert [pod["metadata"]["name"] for pod in selected] == list(watched.workers())
    (worker,) = watched.workers()
    assert len(replicas_in(installed, worker)) == 1


def test_the_official_sdk_gets_an_answer_through_envoy_and_tls(installed: Installed) -> None:
    took_s, said = installed.first_answer()
    print(f"[pools] {MODEL}, after {took_s:.0f} s: {said!r}")
    assert "Paris" in said
    with installed.edge.client() as client:
        assert MODEL in [model.id for model in client.models.list()]


def test_it_grows_and_shrinks(installed: Installed, watched: Watched) -> None:
    (first,) = watched.workers()
    with called(installed):
        installed.kubectl("scale", "modelpool", POOL, "--replicas=2")
        watched.until("two replicas are ready", lambda: watched.settled(2))
        assert all(len(replicas_in(installed, worker)) == 1 for worker in watched.workers())
    installed.kubectl("scale", "modelpool", POOL, "--replicas=1")
    with called(installed, 1):
        watched.until("one is left", lambda: watched.settled(1))
    print(f"[pools] it began with {first}, and ended with {', '.join(watched.workers())}")


@pytest.mark.parametrize("change", [{"revision": "next"}, {"image": NEXT_WORKER}], ids=["weights", "image"])
def test_a_rolling_update_loses_no_request(installed: Installed, watched: Watched, change: dict[str, str]) -> None:
    before, generation = watched.workers(), watched.status()["generation"]
    with called(installed) as clients:
        watched.patch(**change)
        watched.until("it is replaced", lambda: not before.keys() & watched.workers().keys() and watched.settled(1))
    (after,) = watched.workers().values()
    print(f"[pools] {change}: {', '.join(before)} -> {after['metadata']['name']}; {clients}")
    assert watched.status()["generation"] != generation
    groups = {pod["metadata"]["labels"][GROUP] for pod in (*before.values(), after)}
    cluster = installed.get("raycluster", f"{RELEASE}-pools")["spec"]["workerGroupSpecs"]
    assert len(groups) == (2 if "image" in change else 1)
    assert [group["groupName"] for group in cluster] == [after["metadata"]["labels"][GROUP]]
    assert after["spec"]["containers"][0]["image"] == change.get("image", WORKER)


def test_replicas_outlive_the_pools(installed: Installed, watched: Watched) -> None:
    """Whose next process takes them over."""
    before = watched.workers()
    name = installed.pods("pools")[0]["metadata"]["name"]
    with called(installed):
        installed.kubectl("delete", "pod", name, "--timeout=180s")
        installed.all_ready()
        watched.until("it is settled", lambda: watched.settled(1))
    assert watched.workers().keys() == before.keys()


def test_it_goes_to_zero_and_comes_back_with_the_first_request(installed: Installed, watched: Watched) -> None:
    watched.patch(replicas={"min": 0})
    watched.until("it is at zero", lambda: watched.condition("Ready") == "ScaledToZero" and watched.settled(0))
    began, refused = time.monotonic(), 0
    with installed.edge.client() as client:
        patient = client.with_options(timeout=600, max_retries=0)
        while True:
            try:
                answer = patient.chat.completions.create(
                    model=MODEL, messages=[{"role": "user", "content": "What is the capital of France?"}], max_tokens=20
                )
                break
            except openai.InternalServerError as error:
                # Who has waited in vain for as long as the platform lets anybody wait is told to come again.
                assert error.status_code == 503 and time.monotonic() - began < START_S, error
                refused += 1
    print(f"[pools] the first answer after {time.monotonic() - began:.0f} s, {refused} times told to come again")
    assert answer.usage and answer.usage.completion_tokens > 0
    watched.patch(replicas={"min": 1})
    watched.until("it is settled", lambda: watched.settled(1))


def test_what_was_used_is_what_was_billed(installed: Installed) -> None:
    assert installed.audited()["records"] >= sum(result.answered for result in installed.results)


def test_nothing_is_left_of_a_pool_that_was_deleted(installed: Installed, watched: Watched) -> None:
    installed.kubectl("delete", "modelpool", POOL, "--wait=false")
    with installed.edge.client() as client:

        def unknown() -> bool:
            try:
                client.with_options(max_retries=0).chat.completions.create(
                    model=MODEL, messages=[{"role": "user", "content": "Hello"}], max_tokens=1
                )
            except openai.NotFoundError:
                return True
            except openai.InternalServerError:
                return False
            return False

        wait_until("the model is unknown", unknown, timeout_s=120)
        wait_until(
            "the object is gone", lambda: not installed.kubectl("get", "modelpools", "--output=name"), timeout_s=300
        )
        wait_until("its pods are gone", lambda: not watched.workers(), timeout_s=300)
        assert unknown()
    assert not installed.get("raycluster", f"{RELEASE}-pools")["spec"].get("workerGroupSpecs")
    assert not installed.get("configmap", f"{RELEASE}-models").get("data")
    installed.audited()
