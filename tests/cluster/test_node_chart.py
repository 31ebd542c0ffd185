"""The chart on a real node: installed with one command, asked through Envoy and TLS by the official SDK, upgraded and
shaken under load, and audited at the end.

Kept true: whoever calls loses nothing but streams that were in progress on a process that was killed; and what was
used is what was billed, whatever happened in between.
"""

import ssl
from collections.abc import Iterator

import httpx2
import pytest

from tests.cluster import releases
from tests.cluster.node import Node
from tests.cluster.pods import ready
from tests.cluster.processes import wait_until
from tests.cluster.releases import CHART, MODEL, RELEASE, TIMEOUT, VALUES, Installed

NAMESPACE = "chart"


@pytest.fixture(scope="module")
def installed(real: Node) -> Iterator[Installed]:
    real.plane.namespace(NAMESPACE, restricted=True)
    with releases.installed(real, NAMESPACE) as found:
        yield found


def test_every_pod_passes_its_probes(installed: Installed) -> None:
    pods = installed.get("pods")["items"]
    restarts = {
        pod["metadata"]["name"]: status["restartCount"]
        for pod in pods
        for status in pod["status"]["containerStatuses"]
        if status["restartCount"]
    }
    print(f"[chart] {len(pods)} pods are ready; started more than once: {restarts or 'none'}")
    assert not {name for name in restarts if "-postgresql-" in name or "-valkey-" in name or "-envoy-" in name}


def test_the_official_sdk_gets_an_answer_of_the_real_model_through_envoy_and_tls(installed: Installed) -> None:
    took_s, said = installed.first_answer()
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
    with installed.shaken() as clients, installed.shaken(MODEL, number=2) as models:
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
    with installed.shaken() as clients:
        installed.kubectl("delete", "pod", name, "--timeout=120s")
    assert not clients.failures and not clients.broken


@pytest.mark.parametrize("component", ["gateway", "envoy", "xds", "router", "keys", "valkey", "postgresql"])
def test_a_killed_process_loses_no_request(installed: Installed, component: str) -> None:
    with installed.shaken() as clients:
        installed.kill(installed.pods(component)[0])
    assert not clients.failures


def test_the_model_comes_back_after_all_its_replicas_were_killed(installed: Installed) -> None:
    """In a trial they live in the pod of the pools."""
    installed.kill(installed.pods("pools")[0])
    wait_until("they are gone", lambda: not all(map(ready, installed.pods("pools"))))
    print(f"[chart] {MODEL} answered {installed.first_answer()[0]:.0f} s after its replica was killed")
    installed.all_ready()


def test_what_was_used_is_what_was_billed(installed: Installed) -> None:
    """Every answer too that somebody got, since no disk was lost."""
    assert installed.audited()["records"] >= sum(result.answered for result in installed.results)


@pytest.mark.parametrize("component", ["gateway", "envoy"])
def test_a_pod_that_vanishes_loses_no_request(installed: Installed, component: str) -> None:
    name = installed.pods(component)[0]["metadata"]["name"]
    with installed.shaken() as clients:
        installed.kubectl("delete", "pod", name, "--grace-period=0", "--force")
    assert not clients.failures


def test_the_ledger_is_right_after_all_that(installed: Installed) -> None:
    installed.audited()
