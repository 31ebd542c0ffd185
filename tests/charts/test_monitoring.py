"""Alert rules, dashboards: Prometheus understands them, every alert fires when it should and only then, and nothing in
them names a metric that does not exist."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs.generate import metric_calls
from operators.metrics.figures import FIGURES
from operators.metrics.settings import Settings
from tests.charts.alert_cases import CASES
from tests.cluster import tools

ROOT = Path(__file__).parents[2]
CHART_FILES = ROOT / "charts" / "modelplane" / "files"
RULES = CHART_FILES / "alerts" / "modelplane.yaml"
PAGE = ROOT / "docs" / "kubernetes" / "monitoring.md"


def rules(kind: str) -> dict[str, dict[str, Any]]:
    """Alerts or records by their names."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule[kind]: rule for group in groups for rule in group["rules"] if kind in rule}


def promtool(*arguments: str) -> str:
    done = subprocess.run((str(tools.promtool()), *arguments), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_understands_the_rules() -> None:
    assert f"{len(rules('alert')) + len(rules('record'))} rules found" in promtool("check", "rules", str(RULES))


@pytest.mark.parametrize("long", [False, True], ids=["minutes", "hours"])
def test_every_alert_fires_when_it_should_and_only_then(tmp_path: Path, long: bool) -> None:
    """All alerts in two worlds, each with series of a namespace of its own."""
    assert CASES.keys() == rules("alert").keys()
    cases = {name: case for name, case in CASES.items() if (case.minutes > 100) is long}
    worlds = [
        {
            "interval": "1m",
            "input_series": [
                {"series": series.replace('namespace="n"', f'namespace="{name}"'), "values": values}
                for name, case in cases.items()
                for series, values in (case.fires if fires else case.silent).items()
            ],
            "promql_expr_test": [
                {
                    "expr": f'count(ALERTS{{alertname="{name}",alertstate="firing",namespace="{name}"}})',
                    "eval_time": f"{case.minutes}m",
                    "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
                }
                for name, case in cases.items()
            ],
        }
        for fires in (True, False)
    ]
    check(tmp_path, worlds)


def check(folder: Path, worlds: list[dict[str, Any]]) -> None:
    file = folder / "worlds.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": worlds}))
    promtool("test", "rules", str(file))


def test_an_alert_says_what_and_how_much(tmp_path: Path) -> None:
    case = CASES["ModelplaneRequestsFail"]
    shown = {
        "eval_time": f"{case.minutes}m",
        "alertname": "ModelplaneRequestsFail",
        "exp_alerts": [
            {
                "exp_labels": {"severity": "critical", "namespace": "n"},
                "exp_annotations": {"summary": "2% of the last hour's requests in n failed by our fault"},
            }
        ],
    }
    series = [{"series": name, "values": values} for name, values in case.fires.items()]
    check(tmp_path, [{"interval": "1m", "input_series": series, "alert_rule_test": [shown]}])


def test_every_alert_has_a_severity_a_summary_and_a_remedy() -> None:
    remedies = re.findall(r"^\| `(Modelplane\w+)` \|", PAGE.read_text(), re.MULTILINE)
    assert sorted(remedies) == sorted(rules("alert"))
    for rule in rules("alert").values():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]


# What Prometheus and its client library make themselves.
OTHERS = frozenset(
    (
        *("up", "process_start_time_seconds", "process_cpu_seconds_total", "process_resident_memory_bytes"),
        *("process_open_fds", "process_max_fds"),
    )
)
# Envoy's, of which tests/charts/test_edge.py knows that its binary has them.
ENVOY = frozenset(
    (
        "envoy_cluster_circuit_breakers_default_rq_open",
        "envoy_cluster_manager_cds_update_rejected",
        "envoy_cluster_membership_healthy",
        "envoy_cluster_membership_total",
        "envoy_cluster_outlier_detection_ejections_active",
        "envoy_cluster_upstream_cx_active",
        "envoy_cluster_upstream_cx_connect_fail",
        "envoy_cluster_upstream_rq_active",
        "envoy_cluster_upstream_rq_pending_overflow",
        "envoy_cluster_upstream_rq_retry",
        "envoy_cluster_upstream_rq_retry_success",
        "envoy_cluster_upstream_rq_time_bucket",
        "envoy_cluster_upstream_rq_xx",
        "envoy_control_plane_connected_state",
        "envoy_http_downstream_cx_active",
        "envoy_http_downstream_rq_active",
        "envoy_http_downstream_rq_xx",
        "envoy_listener_manager_lds_update_rejected",
        "envoy_server_days_until_first_cert_expiring",
        "envoy_server_memory_allocated",
    )
)


@pytest.fixture(scope="module")
def existing() -> set[str]:
    """Every series that code, rules, Envoy and libraries make."""
    names = set(rules("record")) | OTHERS | ENVOY
    for metric in metric_calls():
        if metric.kind == "histogram":
            names |= {f"{metric.name}_{end}" for end in ("bucket", "sum", "count")}
        else:
            names.add(f"{metric.name}_total" if metric.kind == "counter" else metric.name)
    return names


def named(expression: str) -> set[str]:
    """The series that an expression names."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\{[^}]*\}|\b(by|on|ignoring|without|group_left|group_right)\s*\([^)]*\)", "", bare)
    return set(re.findall(r"\b((?:modelplane|envoy|process|namespace)[\w:]*|up)\b(?!\s*\()", bare))


def test_every_series_that_a_rule_names_exists(existing: set[str]) -> None:
    unknown = {
        name: missing
        for kind in ("alert", "record")
        for name, rule in rules(kind).items()
        if (missing := named(rule["expr"]) - existing) or not named(rule["expr"])
    }
    assert not unknown


def test_unknown_series_are_noticed(existing: set[str]) -> None:
    assert named('sum by (namespace) (rate(modelplane_x_total{a="modelplane_y"}[5m])) / up') == {
        "modelplane_x_total",
        "up",
    }
    assert "modelplane_requests" not in existing
    assert "modelplane_requests_total" in existing


DASHBOARDS = sorted((CHART_FILES / "dashboards").glob("*.json"))


def panels(dashboard: Path) -> list[dict[str, Any]]:
    document = json.loads(dashboard.read_text())
    return [panel for panel in document["panels"] if panel["type"] != "row"]


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_every_query_of_a_dashboard_is_understood_and_names_what_exists(
    dashboard: Path, existing: set[str], tmp_path: Path
) -> None:
    queries = [target["expr"] for panel in panels(dashboard) for target in panel["targets"]]
    assert queries
    for query in queries:
        missing = named(query) - existing
        assert not missing, query
        assert named(query), query
        assert 'namespace=~"$namespace"' in query, query
    # What Grafana puts in, as Prometheus gets it.
    filled = [re.sub(r"\$__rate_interval|\$__range", "5m", query) for query in queries]
    filled = [re.sub(r"\$\{?(replica_hour_price)\}?", "2.5", query) for query in filled]
    records = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(filled)]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": records}]}))
    promtool("check", "rules", str(file))


def test_dashboards_are_current_and_whole() -> None:
    from charts.dashboards import made

    assert {path.name: path.read_text() for path in DASHBOARDS} == made()
    assert [path.stem for path in DASHBOARDS] == ["edge", "limits-and-money", "overview", "pools"]
    documents = [json.loads(path.read_text()) for path in DASHBOARDS]
    assert len({document["uid"] for document in documents}) == len(documents)
    for document in documents:
        ids = [panel["id"] for panel in document["panels"]]
        assert len(ids) == len(set(ids))
        places = [panel["gridPos"] for panel in document["panels"]]
        cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
        assert len(cells) == len(set(cells)), "panels overlap"
        assert max(x for x, _ in cells) < 24


def rendered(*settings: str) -> list[dict[str, Any]]:
    """What the chart makes with these values on top of its own."""
    command = [
        str(tools.helm()),
        "template",
        "modelplane",
        str(ROOT / "charts" / "modelplane"),
        "--namespace",
        "models",
    ]
    trial = ("postgresql.bundled=true", "valkey.bundled=true")
    command += [part for setting in (*trial, *settings) for part in ("--set-json", setting)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(done.stderr)
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def of(kind: str, objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in objects if one["kind"] == kind]


MONITORING = ("PodMonitor", "PrometheusRule", "HorizontalPodAutoscaler", "APIService")


def test_nothing_is_there_until_it_is_asked_for() -> None:
    objects = rendered()
    assert not [one for kind in MONITORING for one in of(kind, objects)]
    assert not [one for one in of("ConfigMap", objects) if "dashboard" in one["metadata"]["name"]]


def test_the_operator_gets_the_rules_that_were_checked(tmp_path: Path) -> None:
    [rule] = of(
        "PrometheusRule",
        rendered('monitoring.rules={"enabled":true,"labels":{"a":"b"},"without":["ModelplaneTasksGrow"]}'),
    )
    assert rule["metadata"]["labels"]["a"] == "b"
    expected = yaml.safe_load(RULES.read_text())["groups"]
    for group in expected:
        group["rules"] = [one for one in group["rules"] if one.get("alert") != "ModelplaneTasksGrow"]
    assert rule["spec"]["groups"] == expected
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(rule["spec"]))
    promtool("check", "rules", str(file))


def test_grafana_gets_every_dashboard() -> None:
    maps = [
        one
        for one in of("ConfigMap", rendered("monitoring.dashboards.enabled=true"))
        if "dashboard" in str(one["metadata"])
    ]
    assert len(maps) == len(DASHBOARDS)
    for one in maps:
        assert one["metadata"]["labels"]["grafana_dashboard"] == "1"
        [text] = one["data"].values()
        assert json.loads(text)["uid"].startswith("modelplane-")


def test_pods_are_scraped_where_they_answer_and_known_by_what_rules_name() -> None:
    objects = rendered("monitoring.podMonitors.enabled=true", 'monitoring.from=[{"namespaceSelector":{}}]')
    monitors = {one["metadata"]["name"]: one["spec"] for one in of("PodMonitor", objects)}
    assert {name: spec["podMetricsEndpoints"][0]["path"] for name, spec in monitors.items()} == {
        "modelplane-services": "/metrics",
        "modelplane-edge": "/stats/prometheus",
    }
    for spec in monitors.values():
        [endpoint] = spec["podMetricsEndpoints"]
        assert {rule["targetLabel"] for rule in endpoint["relabelings"]} == {"component", "modelplane_release"}
    for deployment in of("Deployment", objects):
        template = deployment["spec"]["template"]
        ports = {
            port["name"]: port["containerPort"] for c in template["spec"]["containers"] for port in c.get("ports", ())
        }
        envoy = template["metadata"]["labels"]["app.kubernetes.io/component"] == "envoy"
        assert ports["metrics"] == (9003 if envoy else 9002), deployment["metadata"]["name"]
    assert "modelplane-monitoring" in {one["metadata"]["name"] for one in of("NetworkPolicy", objects)}


AUTOSCALED = 'autoscaling.gateway={"enabled":true,"min":2,"max":9,"target":50}'


def test_an_autoscaled_group_has_an_autoscaler_and_no_replicas() -> None:
    objects = rendered(AUTOSCALED)
    [scaler] = of("HorizontalPodAutoscaler", objects)
    spec = scaler["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 9)
    assert spec["metrics"] == [
        {
            "type": "External",
            "external": {
                "metric": {
                    "name": "modelplane_requests_in_flight",
                    "selector": {"matchLabels": {"group": "gateway"}},
                },
                "target": {"type": "AverageValue", "averageValue": "50"},
            },
        }
    ]
    assert spec["metrics"][0]["external"]["metric"]["name"] in FIGURES
    deployments = {one["metadata"]["name"]: one["spec"] for one in of("Deployment", objects)}
    assert "replicas" not in deployments[spec["scaleTargetRef"]["name"]]
    plain = {one["metadata"]["name"]: one["spec"] for one in of("Deployment", rendered())}
    assert plain["modelplane-gateway"]["replicas"] >= 1


def test_the_external_metrics_know_every_group_by_a_service_of_its_pods() -> None:
    objects = rendered(AUTOSCALED)
    deployments = {one["metadata"]["name"]: one["spec"]["template"] for one in of("Deployment", objects)}
    container = deployments["modelplane-metrics"]["spec"]["containers"][0]
    variables = {one["name"]: one.get("value", "") for one in container["env"]}
    prefix = "MODELPLANE_EXTERNAL_METRICS_"
    groups = Settings(groups=variables[f"{prefix}GROUPS"]).services()
    services = {one["metadata"]["name"]: one["spec"]["selector"] for one in of("Service", objects)}
    assert "gateway" in groups
    for group, service in groups.items():
        labels = deployments[f"modelplane-{group}"]["metadata"]["labels"]
        assert services[service].items() <= labels.items()
    fields = {f"{prefix}{name.upper()}" for name in Settings.__struct_fields__}
    assert {name for name in variables if name.startswith(prefix)} <= fields


@pytest.mark.parametrize("group", ["router", "pools"])
def test_what_runs_once_cannot_be_autoscaled(group: str) -> None:
    with pytest.raises(ValueError, match="runs once"):
        rendered(f'autoscaling.{group}={{"enabled":true,"min":1,"max":2,"target":1}}')
