"""What the chart makes for model pools: the operator, its rights, the catalogue's second file, and Ray's cluster."""

from typing import Any

import pytest

from operators.model_pool import crd
from operators.model_pool.settings import Settings
from services.settings import Environment
from tests.charts.test_chart import CHART, TRIAL, Object, component, environment, group_of, helm, pods, rendered

ON = (*TRIAL, "operator.enabled=true", "priorityClasses.create=true", "cache.storage=1Gi")
NAME = "modelplane-operator"


@pytest.fixture(scope="module", params=("local", "kuberay"))
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def objects(mode: str) -> list[Object]:
    return rendered(*ON, f"ray.mode={mode}")


def one(objects: list[Object], kind: str, name: str) -> Object:
    [found] = [one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


def settings_of(objects: list[Object]) -> tuple[Settings, dict[str, str]]:
    [spec] = [spec for name, spec, _ in pods(objects) if name == f"Deployment/{NAME}"]
    variables = environment(spec)
    return Environment(variables).group(Settings), variables


def test_without_it_nothing_of_it_is_there() -> None:
    assert not [one for one in rendered(*TRIAL) if component(one["metadata"]["labels"]) == "operator"]


def test_the_operator_is_told_where_everything_is(mode: str, objects: list[Object]) -> None:
    settings, variables = settings_of(objects)
    one(objects, "ConfigMap", f"{settings.release}-models")
    assert variables["MODELPLANE_POOLS_ADDRESS"] == "dns:///modelplane-pools:9000"
    platform = settings.platform()
    assert (platform is not None) is (mode == "kuberay")
    if platform:
        one(objects, "RayCluster", platform.ray_cluster)
        one(objects, "Secret", platform.tls_secret)
        one(objects, "PersistentVolumeClaim", platform.cache_claim)
        assert one(objects, "PriorityClass", platform.priority_class)["value"] == 10000
        assert platform.labels == {"modelplane.ai/replicas": "true"}


def test_its_rights_are_for_what_it_names(mode: str, objects: list[Object]) -> None:
    rules = one(objects, "Role", NAME)["rules"]
    found = {
        (resource, verb): rule.get("resourceNames", ["any"])
        for rule in rules
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    expected: dict[tuple[str, str], list[str]] = {("modelpools", verb): ["any"] for verb in ("list", "watch")}
    expected |= {
        ("modelpools", "patch"): ["any"],
        ("modelpools/status", "patch"): ["any"],
        ("events", "create"): ["any"],
    }
    expected |= {("configmaps", verb): ["modelplane-models"] for verb in ("get", "patch")}
    expected |= {("leases", "create"): ["any"], ("leases", "get"): [NAME], ("leases", "update"): [NAME]}
    if mode == "kuberay":
        expected |= {("rayclusters", verb): ["modelplane-pools"] for verb in ("get", "patch")} | {
            ("pods", "list"): ["any"]
        }
    assert found == expected


def test_every_service_sees_what_pools_say_beside_the_values_own_models(objects: list[Object]) -> None:
    own = one(objects, "ConfigMap", "modelplane-config")["data"].keys()
    # No pool's entry may take its place.
    assert own == {f"{crd.RESERVED}.toml"}
    for group in {group for service in ("gateway", "router", "pools") for group in group_of(objects, service)}:
        [spec] = [spec for name, spec, _ in pods(objects) if name.endswith(f"/modelplane-{group}")]
        [folder] = [volume["projected"]["sources"] for volume in spec["volumes"] if volume["name"] == "config"]
        assert [source["configMap"]["name"] for source in folder] == ["modelplane-config", "modelplane-models"]


def test_the_heads_pod_is_restricted_and_runs_no_replica() -> None:
    objects = rendered(*ON, "ray.mode=kuberay", "imagePullSecrets[0].name=registry")
    head: dict[str, Any] = one(objects, "RayCluster", "modelplane-pools")["spec"]["headGroupSpec"]
    start = head["rayStartParams"]
    assert start["num-cpus"] == "0"
    # Nothing that runs programs for others, and nothing that reports to Ray's makers.
    assert (start["include-dashboard"], start["disable-usage-stats"]) == ("false", "true")
    spec = head["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert (spec["enableServiceLinks"], spec["automountServiceAccountToken"]) == (False, False)
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    one(objects, "PriorityClass", spec["priorityClassName"])
    [container] = spec["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert {"readinessProbe", "livenessProbe"} <= container.keys()
    assert container["resources"]["requests"] and container["resources"]["limits"]["memory"]


def test_the_pools_join_the_cluster_that_the_chart_makes() -> None:
    objects = rendered(*ON, "ray.mode=kuberay")
    [group] = group_of(objects, "pools")
    [spec] = [spec for name, spec, _ in pods(objects) if name.endswith(f"/modelplane-{group}")]
    assert environment(spec)["MODELPLANE_POOLS_RAY_ADDRESS"] == "modelplane-pools-head-svc:6379"


def test_the_chart_of_the_kinds_has_nothing_to_complain_of() -> None:
    done = helm("lint", "--strict", str(CHART.parent / "modelplane-crds"))
    assert done.returncode == 0, done.stdout
