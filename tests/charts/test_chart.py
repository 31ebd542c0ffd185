"""What the chart makes: valid for the API server's own schemas, safe in a restricted namespace, and wired as the
table of services says, whatever the values."""

import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from charts import generate
from services.graph import SERVICES
from tests.cluster import tools

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "modelplane"
TRIAL = ("postgresql.bundled=true", "valkey.bundled=true")
EXTERNAL = ("postgresql.url=postgresql://db/x?sslmode=verify-full", "valkey.url=valkeys://v")
LEAVES = "{" + ",".join(name for name in SERVICES if name not in ("chat_inference", "pools")) + "}"
WORLDS: Mapping[str, tuple[str, ...]] = {
    "a trial": TRIAL,
    "everything outside": (
        *EXTERNAL,
        *("secrets.existing=ours", "tls.mode=cert-manager", "tls.issuer.name=inside", "edge.tls.secret=certificate"),
        *("autoscaling.gateway.enabled=true", "autoscaling.gateway.min=2", "autoscaling.gateway.max=9"),
        *("autoscaling.gateway.target=100", "edge.addresses={10.0.0.0/8}", "otlpEndpoint=http://collector:4317"),
        *("cache.claim=weights", "monitoring.podMonitors.enabled=true", "monitoring.rules.enabled=true"),
        *("edge.autoscaling.enabled=true", "priorityClasses.create=true", "networkPolicies.egress.enabled=true"),
        "networkPolicies.egress.database[0].ports[0].port=5432",
        "state.storage=1Gi",
        "ray.mode=kuberay",
        "ray.address=ray-head:6379",
    ),
    "no TLS, no policies": (*TRIAL, "tls.mode=off", "edge.tls.enabled=false", "networkPolicies.enabled=false"),
    "every service alone": (*TRIAL, "groups.gateway={gateway}"),
    "all in one pod": (*TRIAL, f"groups.gateway={LEAVES}"),
    "no edge": (*TRIAL, "edge.enabled=false"),
    "model pools": (*TRIAL, "operator.enabled=true", "ray.mode=kuberay"),
    "prepared models": (*TRIAL, "cache.storage=10Gi", "cache.accessMode=ReadWriteMany", "cache.storageClass=shared"),
}
# Kinds of others, whose schemas are not Kubernetes' own.
FOREIGN = {"Certificate", "PodMonitor", "PrometheusRule", "ModelPool", "RayCluster"}
WORKLOADS = {"Deployment", "StatefulSet"}
Object = dict[str, Any]


def rendered(*values: str) -> list[Object]:
    done = helm("template", "modelplane", str(CHART), "--namespace", "place", *(f"--set={value}" for value in values))
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([tools.helm(), *arguments], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module", params=WORLDS, ids=[name.replace(" ", "-") for name in WORLDS])
def world(request: pytest.FixtureRequest) -> list[Object]:
    return rendered(*WORLDS[request.param])


def pods(objects: list[Object]) -> Iterator[tuple[str, Object, Mapping[str, str]]]:
    """Name, spec and labels of each pod that is made."""
    for one in objects:
        name = f"{one['kind']}/{one['metadata']['name']}"
        if one["kind"] == "Pod":
            yield name, one["spec"], one["metadata"]["labels"]
        elif template := one.get("spec", {}).get("template", {}):
            yield name, template["spec"], template["metadata"]["labels"]


def component(labels: Mapping[str, str]) -> str:
    return labels["app.kubernetes.io/component"]


def groups(objects: list[Object]) -> dict[str, list[str]]:
    """The services of each group."""
    return {
        component(one["metadata"]["labels"]): one["metadata"]["annotations"]["modelplane.ai/services"].split(",")
        for one in objects
        if one["kind"] in WORKLOADS and "modelplane.ai/services" in one["metadata"].get("annotations", {})
    }


def test_the_table_of_services_is_current() -> None:
    assert generate.PATH.read_text() == generate.text()


def test_helm_has_no_complaint() -> None:
    done = helm("lint", "--strict", str(CHART), *(f"--set={value}" for value in TRIAL))
    assert done.returncode == 0, done.stdout


def test_the_api_server_takes_every_object(world: list[Object]) -> None:
    checked = 0
    for one in world:
        if one["kind"] not in FOREIGN:
            kubernetes_validate.validate(one, "1.35", strict=True)
            checked += 1
    assert checked > 20
    names = [(one["kind"], one["metadata"]["name"]) for one in world]
    assert len(names) == len(set(names))


def test_pods_are_restricted(world: list[Object]) -> None:
    for name, spec, _ in pods(world):
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["enableServiceLinks"] is False, name
        talks_to_the_api_server = component_of(name) in {"metrics", "operator", *group_of(world, "xds")}
        assert spec["automountServiceAccountToken"] is talks_to_the_api_server, name
        for container in spec["containers"]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["readOnlyRootFilesystem"] is True, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["requests"] and container["resources"]["limits"]["memory"], name
            assert not container["image"].endswith((":", ":latest")), name


def group_of(objects: list[Object], service: str) -> list[str]:
    return [group for group, members in groups(objects).items() if service in members]


def component_of(name: str) -> str:
    return name.rpartition("-")[2]


def test_everything_that_serves_is_probed_and_ends_slowly(world: list[Object]) -> None:
    for one in world:
        if one["kind"] in WORKLOADS:
            spec = one["spec"]["template"]["spec"]
            [container] = spec["containers"]
            assert {"readinessProbe", "livenessProbe"} <= container.keys(), one["metadata"]["name"]
    for group in groups(world):
        [spec] = [spec for name, spec, _ in pods(world) if name.partition("/")[2] == f"modelplane-{group}"]
        variables = environment(spec)
        stops_s = float(variables["MODELPLANE_GRACE_S"]) + float(variables["MODELPLANE_DRAIN_DELAY_S"])
        assert spec["terminationGracePeriodSeconds"] > stops_s


def environment(spec: Object) -> dict[str, str]:
    [container] = spec["containers"]
    return {one["name"]: one.get("value", "(secret)") for one in container["env"]}


def test_rights_are_few(world: list[Object]) -> None:
    for one in world:
        assert one["kind"] not in {"ClusterRole", "ClusterRoleBinding"} or "operator" in one["metadata"]["name"]
        for rule in one.get("rules") or ():
            assert "*" not in [*rule["verbs"], *rule["resources"], *rule["apiGroups"]], one["metadata"]["name"]


def test_every_service_is_in_one_group_and_has_a_name(world: list[Object]) -> None:
    found = [service for members in groups(world).values() for service in members]
    edge = any(one["metadata"]["name"] == "modelplane-envoy" for one in world)
    assert sorted(found) == sorted(SERVICES.keys() - {"chat_inference"} - (set() if edge else {"xds"}))
    selected = {
        one["metadata"]["name"]: component(one["spec"]["selector"]) for one in world if one["kind"] == "Service"
    }
    for group, members in groups(world).items():
        for service in members:
            assert selected[f"modelplane-{service.replace('_', '-')}"] == group


def test_every_need_has_an_address_and_what_its_service_asks_for(world: list[Object]) -> None:
    specs = {component(labels): spec for name, spec, labels in pods(world) if name.partition("/")[0] in WORKLOADS}
    for group, members in groups(world).items():
        variables = environment(specs[group])
        for service in members:
            for need in SERVICES[service].needs:
                assert f"modelplane-{need.replace('_', '-')}:9000" in variables[f"MODELPLANE_{need.upper()}_ADDRESS"]
            assert not SERVICES[service].database or variables["MODELPLANE_DATABASE_URL"] == "(secret)"
        assert variables["MODELPLANE_RPC_TOKEN"] == "(secret)"


def test_nobody_is_let_in_but_who_needs_to(world: list[Object]) -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in world if one["kind"] == "NetworkPolicy"}
    if not policies:
        pytest.skip("these values have no policies")
    assert policies["modelplane-deny"].get("ingress") is None
    of = groups(world)
    for group, members in of.items():
        needed = {
            caller for caller, theirs in of.items() for one in theirs for need in SERVICES[one].needs if need in members
        }
        if "gateway" in members:
            needed |= {group}
        if "xds" in members and "modelplane-envoy" in policies:
            needed |= {"envoy"}
        allowed = set()
        for rule in policies[f"modelplane-{group}"].get("ingress") or ():
            if rule.get("ports") == [{"port": "grpc"}]:
                allowed |= {component(one["podSelector"]["matchLabels"]) for one in rule["from"] if is_ours(one)}
        assert allowed == needed, group
        told_by_replicas = bool(set(members) & set(SERVICES["chat_inference"].needs))
        text = yaml.safe_dump(policies[f"modelplane-{group}"])
        assert ("modelplane.ai/replicas" in text) is told_by_replicas, group


def is_ours(peer: Object) -> bool:
    return "app.kubernetes.io/component" in peer["podSelector"]["matchLabels"]


def test_an_autoscaled_group_does_not_say_how_many_it_is(world: list[Object]) -> None:
    targets = [one["spec"]["scaleTargetRef"] for one in world if one["kind"] == "HorizontalPodAutoscaler"]
    scaled = {(target["kind"], target["name"]) for target in targets}
    for one in world:
        if one["kind"] in WORKLOADS:
            assert ("replicas" not in one["spec"]) is ((one["kind"], one["metadata"]["name"]) in scaled)


def test_what_the_database_does_not_have_yet_is_on_a_volume_when_there_is_one() -> None:
    for storage, expected in (("", set()), ("1Gi", {"gateway", "keys"})):
        workloads = [one for one in rendered(*EXTERNAL, f"state.storage={storage}") if one["kind"] in WORKLOADS]
        kept = {component(one["metadata"]["labels"]) for one in workloads if "volumeClaimTemplates" in one["spec"]}
        assert kept == expected


def test_envoy_takes_its_configuration(world: list[Object], tmp_path: Path) -> None:
    found = [one for one in world if one["kind"] == "ConfigMap" and one["metadata"]["name"] == "modelplane-envoy"]
    if not found:
        pytest.skip("these values have no edge")
    for name, text in found[0]["data"].items():
        (tmp_path / name).write_text(text.replace("/etc/envoy/config", str(tmp_path)))
    envoy = Path(sys.executable).parent / "envoy"
    command = [str(envoy), "--mode", "validate", "-c", str(tmp_path / "envoy.yaml")]
    command += ["--service-node", "a", "--service-cluster", "b"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_what_is_given_as_models_is_what_the_platform_reads() -> None:
    [config] = [
        one
        for one in rendered(*TRIAL, 'config=[[models]]\nname = "a"')
        if one["kind"] == "ConfigMap" and one["metadata"]["name"] == "modelplane-config"
    ]
    assert tomllib.loads(config["data"]["platform.toml"]) == {"models": [{"name": "a"}]}


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ((), "postgresql.url: the database, or postgresql.bundled=true"),
        ((*TRIAL, "replica=3"), "replica"),
        ((*TRIAL, "tls.mode=none"), "tls"),
        ((*TRIAL, "groups.gateway={gateway,nobody}"), "there is no service nobody"),
        ((*TRIAL, "groups.gateway={gateway}", "groups.other={gateway}"), "is in another group too"),
        ((*TRIAL, "overrides.router.replicas=2"), "runs once"),
        ((*TRIAL, "ray.mode=kuberay"), "ray.address"),
        ((*TRIAL, "settings.PATH=x"), "PATH"),
    ],
)
def test_nonsense_is_refused_with_what_is_wrong(values: tuple[str, ...], complaint: str) -> None:
    done = helm("template", "modelplane", str(CHART), *(f"--set={value}" for value in values))
    assert done.returncode != 0
    assert complaint in done.stderr
