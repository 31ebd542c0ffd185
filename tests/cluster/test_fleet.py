"""A thousand pods behind one Service, as the fleet of a big installation, followed through its EndpointSlices."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.cluster.processes import wait_until

NAMESPACE = "fleet"
PODS = 1000
LABELS = {"app.kubernetes.io/name": "modelplane", "app.kubernetes.io/component": "gateway"}


def deployment(replicas: int) -> dict[str, Any]:
    container = {"name": "gateway", "image": "localhost/modelplane:test", "resources": {"requests": {"cpu": "100m"}}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "gateway", "namespace": NAMESPACE},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": LABELS},
            "template": {"metadata": {"labels": LABELS}, "spec": {"containers": [container]}},
        },
    }


def service() -> dict[str, Any]:
    ports = [{"name": "grpc", "port": 9000}, {"name": "http", "port": 8080}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "gateway", "namespace": NAMESPACE},
        "spec": {"clusterIP": "None", "selector": LABELS, "ports": ports},
    }


def ready_addresses(plane: ControlPlane) -> int:
    slices = plane.get("endpointslices", "--namespace", NAMESPACE)["items"]
    return sum(
        len(endpoint["addresses"])
        for one in slices
        for endpoint in one.get("endpoints") or ()
        if endpoint["conditions"].get("ready")
    )


@pytest.fixture(scope="module")
def fleet(played: ControlPlane) -> Iterator[ControlPlane]:
    """A thousand ready pods."""
    played.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    started = time.monotonic()
    played.apply(service(), deployment(PODS))
    wait_until(f"{PODS} pods are ready", lambda: ready_addresses(played) == PODS, timeout_s=240)
    print(f"[fleet] {PODS} pods ready in {time.monotonic() - started:.0f} s; MiB resident: {played.memory_mib()}")
    yield played
    played.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def test_every_pod_is_in_a_slice_with_its_zone(fleet: ControlPlane) -> None:
    slices = fleet.get("endpointslices", "--namespace", NAMESPACE)["items"]
    zones = {endpoint.get("zone") for one in slices for endpoint in one["endpoints"]}
    print(f"[fleet] {len(slices)} slices, zones {sorted(zones)}")
    assert zones == {"a", "b", "c"}


def test_half_of_the_fleet_goes_away(fleet: ControlPlane) -> None:
    started = time.monotonic()
    fleet.kubectl("scale", "deployment/gateway", "--namespace", NAMESPACE, f"--replicas={PODS // 2}")
    wait_until("half are left", lambda: ready_addresses(fleet) == PODS // 2, timeout_s=240)
    print(f"[fleet] {PODS // 2} pods left the slices within {time.monotonic() - started:.0f} s")
