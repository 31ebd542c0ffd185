"""The chart's whole life with the real helm: installed, upgraded, rolled back, removed, and nothing left behind.

Nodes are played, so pods are ready whatever they contain: what is proved here is that the API server takes every
object in a restricted namespace, that hooks run, and that changes of the chart can be made and taken back.
"""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from services.cluster.settings import ClusterSettings
from services.cluster.slices import follow
from tests.cluster.control_plane import CommandError, ControlPlane

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "modelplane"
CRDS = ROOT / "charts" / "modelplane-crds"
VALUES = Path(__file__).parent / "values" / "control-plane.yaml"
NAMESPACE = "chart"
RELEASE = "modelplane"
OURS = f"app.kubernetes.io/instance={RELEASE}"
# What may be there after a release has gone: what people would miss.
KEPT = {"PersistentVolumeClaim", f"Secret/{RELEASE}-secrets"}
TIMEOUT = ("--wait", "--timeout", "5m")


def helm(plane: ControlPlane, *arguments: str) -> str:
    return plane.helm(*arguments, "--namespace", NAMESPACE)


def deployments(plane: ControlPlane) -> dict[str, Any]:
    listed = plane.get("deployments", "--namespace", NAMESPACE, "--selector", OURS)["items"]
    return {one["metadata"]["name"]: one for one in listed}


def image_tags(plane: ControlPlane) -> set[str]:
    """Of the platform's own containers."""
    containers = [
        container
        for one in deployments(plane).values()
        for container in one["spec"]["template"]["spec"]["containers"]
        if "/modelplane" in container["image"]
    ]
    return {container["image"].rsplit(":", 1)[-1] for container in containers}


@pytest.fixture(scope="module")
def installed(played: ControlPlane) -> Iterator[ControlPlane]:
    """The cluster with a release of the chart."""
    if not (CHART / "Chart.yaml").exists():
        pytest.skip("there is no chart")
    played.namespace(NAMESPACE, restricted=True)
    if (CRDS / "Chart.yaml").exists():
        helm(played, "install", f"{RELEASE}-crds", str(CRDS), *TIMEOUT)
    said = helm(played, "install", RELEASE, str(CHART), "--values", str(VALUES), *TIMEOUT)
    print(said)
    yield played
    played.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def test_every_deployment_is_available(installed: ControlPlane) -> None:
    found = deployments(installed)
    for name, one in found.items():
        wanted = one["spec"]["replicas"]
        assert one["status"].get("availableReplicas", 0) == wanted, name
    print(f"[chart] {len(found)} deployments: {', '.join(sorted(found))}")
    assert f"{RELEASE}-gateway" in found


async def test_xds_follows_gateways_and_envoys_and_may_do_nothing_else(installed: ControlPlane) -> None:
    account = installed.service_account(NAMESPACE, f"{RELEASE}-xds")
    for service, port in (("gateway", "http"), ("envoy", "https")):
        settings = ClusterSettings(kubeconfig=account)
        async with aclosing(follow(NAMESPACE, f"{RELEASE}-{service}", port, settings)) as states:  # type: ignore[type-var]
            async with asyncio.timeout(30):
                pods = await anext(states)
        assert [pod.ready for pod in pods] == [True, True], service
    for refused in (("pods", NAMESPACE), ("secrets", NAMESPACE), ("endpointslices", "default")):
        with pytest.raises(CommandError, match="forbidden"):
            installed.kubectl("get", refused[0], "--namespace", refused[1], kubeconfig=account)


def test_an_upgrade_and_its_rollback_change_the_images_and_change_them_back(installed: ControlPlane) -> None:
    before = image_tags(installed)
    values = ("--values", str(VALUES))
    helm(installed, "upgrade", RELEASE, str(CHART), *values, "--set", "image.tag=next", *TIMEOUT)
    assert image_tags(installed) == {"next"}
    helm(installed, "rollback", RELEASE, "1", *TIMEOUT)
    assert image_tags(installed) == before


def test_scaling_by_others_survives_an_upgrade(installed: ControlPlane) -> None:
    """Where an autoscaler is on, the chart says nothing about replicas, or each upgrade would undo it."""
    scalers = installed.get("hpa", "--namespace", NAMESPACE, "--selector", OURS)["items"]
    if not scalers:
        pytest.skip("these values have no autoscaler")
    name = scalers[0]["spec"]["scaleTargetRef"]["name"]
    most = scalers[0]["spec"]["maxReplicas"]
    installed.kubectl("scale", f"deployment/{name}", "--namespace", NAMESPACE, f"--replicas={most}")
    helm(installed, "upgrade", RELEASE, str(CHART), "--values", str(VALUES), *TIMEOUT)
    assert deployments(installed)[name]["spec"]["replicas"] == most


def test_nothing_is_left_of_a_release_that_was_removed(installed: ControlPlane) -> None:
    helm(installed, "uninstall", RELEASE, *TIMEOUT)
    kinds = installed.kubectl("api-resources", "--namespaced", "--verbs=list,delete", "--output=name").split()
    # Pods end in their own time, and what is computed from others is not the chart's.
    mortal = {"pods", "events", "events.events.k8s.io", "endpoints", "endpointslices.discovery.k8s.io"}
    listed = ",".join(kind for kind in kinds if kind not in mortal and "metrics" not in kind)
    left = installed.get(listed, "--namespace", NAMESPACE, "--selector", OURS)["items"]
    names = [f"{one['kind']}/{one['metadata']['name']}" for one in left]
    assert [name for name in names if name not in KEPT and name.split("/")[0] not in KEPT] == []
