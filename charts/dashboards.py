"""Makes the Grafana dashboards of the chart, so that they stay short to write and alike to read.

A panel is a line: what it shows, its query, its unit. Run by `python -m charts.dashboards`; a test fails when a file in
the tree is not what this makes.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent / "modelplane" / "files" / "dashboards"
COLUMNS = 24
HEIGHT = 7

# What every query is held to: the namespace that is chosen above.
HERE = 'namespace=~"$namespace"'
MODELS = f'{HERE},model=~"$model"'
EDGE = f'{HERE},modelplane_release!=""'
HIT = f'{EDGE},envoy_http_conn_manager_prefix!="admin"'


class Query(NamedTuple):
    """`name` is the legend, with labels in double braces."""

    expression: str
    name: str = ""


class Panel(NamedTuple):
    """`unit` is one of Grafana's; `stat` shows the last number alone."""

    title: str
    queries: Sequence[Query]
    unit: str = "short"
    stat: bool = False
    width: int = 8
    words: str = ""


class Dashboard(NamedTuple):
    """Rows of panels by their titles. `metric` is one that every namespace of the dashboard has."""

    title: str
    metric: str
    rows: Mapping[str, Sequence[Panel]]
    by_model: bool = False
    priced: bool = False


def rate(metric: str, by: str, labels: str = HERE) -> str:
    return f"sum by ({by}) (rate({metric}{{{labels}}}[$__rate_interval]))"


def total(metric: str, labels: str = HERE) -> str:
    return f"sum({metric}{{{labels}}})"


def quantile(share: float, metric: str, by: str, labels: str = HERE) -> str:
    return f"histogram_quantile({share}, {rate(f'{metric}_bucket', f'{by}, le' if by else 'le', labels)})"


def quantiles(metric: str, by: str, labels: str = HERE) -> list[Query]:
    legend = f"{{{{{by}}}}} " if by else ""
    return [Query(quantile(share, metric, by, labels), f"{legend}p{share * 100:g}") for share in (0.5, 0.99)]


def one(title: str, expression: str, unit: str = "short", name: str = "", words: str = "") -> Panel:
    return Panel(title, [Query(expression, name)], unit, words=words)


def stat(title: str, expression: str, unit: str = "short", words: str = "") -> Panel:
    return Panel(title, [Query(expression)], unit, stat=True, width=4, words=words)


FAILED = f'sum(rate(modelplane_requests_total{{{HERE},status=~"5.."}}[$__rate_interval]))'
ANSWERED = f"sum(rate(modelplane_requests_total{{{HERE}}}[$__rate_interval]))"
OUTPUT = f'sum(rate(modelplane_tokens_total{{{HERE},kind="output"}}[$__rate_interval]))'
COST = f"{total('modelplane_pools_replicas')} * $replica_hour_price"
PRICED = "With the price of a replica's hour that is set above"

OVERVIEW = Dashboard(
    "Modelplane / Overview",
    "modelplane_tasks",
    {
        "Now": (
            stat("Requests", ANSWERED, "reqps"),
            stat("Failed by our fault", f"({FAILED} or vector(0)) / {ANSWERED}", "percentunit"),
            stat("First token, 99 of 100", quantile(0.99, "modelplane_time_to_first_token_seconds", ""), "s"),
            stat("Output tokens a second", OUTPUT),
            stat("In flight", total("modelplane_requests_in_flight")),
            stat("Cost of an hour", COST, "currencyUSD", PRICED),
        ),
        "Requests": (
            one("Answers by status", rate("modelplane_requests_total", "status"), "reqps", "{{status}}"),
            one("Answers by model", rate("modelplane_requests_total", "model"), "reqps", "{{model}}"),
            one("In flight by gateway", f"sum by (pod) (modelplane_requests_in_flight{{{HERE}}})", name="{{pod}}"),
            Panel("Duration", quantiles("modelplane_request_duration_seconds", "operation"), "s"),
            Panel("Time to the first token", quantiles("modelplane_time_to_first_token_seconds", "model"), "s"),
            one(
                "Failed by our fault",
                f"namespace:modelplane_request_failures:ratio_rate5m{{{HERE}}}",
                "percentunit",
                "{{namespace}}",
            ),
        ),
        "Tokens and cost": (
            one("Tokens a second", rate("modelplane_tokens_total", "model, kind"), name="{{model}} {{kind}}"),
            one(
                "Cost of an hour",
                f"sum by (model) (modelplane_pools_replicas{{{HERE}}}) * $replica_hour_price",
                "currencyUSD",
                "{{model}}",
                PRICED,
            ),
            one("Cost of a million output tokens", f"{COST} / ({OUTPUT} * 3600) * 1e6", "currencyUSD", words=PRICED),
        ),
        "Processes": (
            one("Processor", rate("process_cpu_seconds_total", "component"), "short", "{{component}}"),
            one(
                "Memory",
                f"sum by (component) (process_resident_memory_bytes{{{HERE}}})",
                "bytes",
                "{{component}}",
            ),
            one("Tasks", f"max by (component) (modelplane_tasks{{{HERE}}})", name="{{component}}"),
            one(
                "Event loop late by",
                f"max by (component) (modelplane_event_loop_lag_seconds{{{HERE}}})",
                "s",
                "{{component}}",
            ),
        ),
    },
    priced=True,
)

POOLS = Dashboard(
    "Modelplane / Pools",
    "modelplane_pools_replicas",
    {
        "Replicas": (
            one(
                "Replicas by what they do",
                f"sum by (model, state) (modelplane_pools_replicas{{{MODELS}}})",
                name="{{model}} {{state}}",
            ),
            Panel(
                "Wanted and taking requests",
                [
                    Query(f"max by (model) (modelplane_pools_wanted_replicas{{{MODELS}}})", "{{model}} wanted"),
                    Query(f"max by (model) (modelplane_router_replicas{{{MODELS}}})", "{{model}} there"),
                ],
            ),
            one(
                "Of a former configuration",
                f"max by (model) (modelplane_pools_outdated_replicas{{{MODELS}}})",
                name="{{model}}",
            ),
            Panel("Time to start", quantiles("modelplane_pools_replica_start_seconds", "model", MODELS), "s"),
            one(
                "Ended by themselves",
                f"sum by (model) (increase(modelplane_pools_replicas_ended_total{{{MODELS}}}[1h]))",
                name="{{model}}",
                words="In an hour",
            ),
            one("Cache in use", f"max by (model) (modelplane_engine_cache_used_ratio{{{MODELS}}})", "percentunit"),
        ),
        "Queue": (
            one("Waiting", f"sum by (model) (modelplane_router_queued_requests{{{MODELS}}})", name="{{model}}"),
            one("Running", f"sum by (model) (modelplane_router_running_requests{{{MODELS}}})", name="{{model}}"),
            Panel("Time in the queue", quantiles("modelplane_router_queue_wait_seconds", "model", MODELS), "s"),
            one(
                "Held back for fairness",
                rate("modelplane_router_held_back_requests_total", "model, share", MODELS),
                "reqps",
                "{{model}} {{share}}",
            ),
        ),
        "Throughput": (
            one("Tokens made a second", rate("modelplane_generated_tokens_total", "model", MODELS), name="{{model}}"),
            Panel(
                "First token in the engine", quantiles("modelplane_engine_first_token_seconds", "model", MODELS), "s"
            ),
            Panel("From token to token", quantiles("modelplane_engine_step_seconds", "model", MODELS), "s"),
            one(
                "Tokens a second of one replica",
                f"{rate('modelplane_generated_tokens_total', 'model', MODELS)}"
                f" / max by (model) (modelplane_router_replicas{{{MODELS}}} > 0)",
                name="{{model}}",
            ),
        ),
    },
    by_model=True,
)

LIMITS = Dashboard(
    "Modelplane / Limits and money",
    "modelplane_holds_total",
    {
        "Rate limits": (
            one("Reservations", rate("modelplane_reservations_total", "outcome"), "reqps", "{{outcome}}"),
            one(
                "Decided without Valkey",
                rate("modelplane_ratelimit_local_decisions_total", "reason"),
                "reqps",
                "{{reason}}",
            ),
            one("Open reservations", total("modelplane_reservations_open")),
            one("Buckets in memory", f"sum by (pod) (modelplane_ratelimit_entries{{{HERE}}})", name="{{pod}}"),
            one("Valkey is there", f"min by (pod) (modelplane_ratelimit_shared{{{HERE}}})", name="{{pod}}"),
        ),
        "Money": (
            one("Holds", rate("modelplane_holds_total", "outcome"), "reqps", "{{outcome}}"),
            one("On hold", f"{total('modelplane_held_nanodollars')} / 1e9", "currencyUSD"),
            one("Leases renewed", rate("modelplane_leases_renewed_total", "pod"), "ops", "{{pod}}"),
            one("Checkpoints failed", rate("modelplane_checkpoints_failed_total", "pod"), "ops", "{{pod}}"),
            one("Spend alerts", rate("modelplane_spend_alerts_total", "channel, outcome"), "ops"),
        ),
        "Usage on its way to the ledger": (
            one("Age of the oldest", f"max by (pod) (modelplane_spool_oldest_seconds{{{HERE}}})", "s", "{{pod}}"),
            one("Records that wait", f"sum by (pod) (modelplane_spool_records{{{HERE}}})", name="{{pod}}"),
            one("Size of the spools", f"sum by (pod) (modelplane_spool_bytes{{{HERE}}})", "bytes", "{{pod}}"),
            Panel(
                "Drained a second",
                [
                    Query(rate("modelplane_usage_drained_records_total", "namespace"), "drained"),
                    Query(rate("modelplane_usage_duplicate_records_total", "namespace"), "had already"),
                ],
            ),
            one("Without a price", rate("modelplane_usage_unpriced_batches_total", "model"), name="{{model}}"),
            one("Set aside", f"sum by (pod) (modelplane_spool_set_aside_bytes_total{{{HERE}}})", "bytes", "{{pod}}"),
            Panel(
                "Usage events",
                [
                    Query(rate("modelplane_usage_events_total", "namespace"), "taken"),
                    Query(rate("modelplane_usage_event_failures_total", "namespace"), "batches refused"),
                ],
            ),
        ),
    },
)

ENVOY = Dashboard(
    "Modelplane / Edge",
    "envoy_server_days_until_first_cert_expiring",
    {
        "Clients": (
            one(
                "Answers by class",
                rate("envoy_http_downstream_rq_xx", "envoy_response_code_class", HIT),
                "reqps",
                "{{envoy_response_code_class}}xx",
            ),
            one("Requests in flight", f"sum by (pod) (envoy_http_downstream_rq_active{{{HIT}}})", name="{{pod}}"),
            one("Connections", f"sum by (pod) (envoy_http_downstream_cx_active{{{HIT}}})", name="{{pod}}"),
        ),
        "Gateways": (
            one(
                "Answers by class",
                rate("envoy_cluster_upstream_rq_xx", "envoy_cluster_name, envoy_response_code_class", EDGE),
                "reqps",
                "{{envoy_cluster_name}} {{envoy_response_code_class}}xx",
            ),
            Panel("Duration", quantiles("envoy_cluster_upstream_rq_time", "envoy_cluster_name", EDGE), "ms"),
            Panel(
                "Retries",
                [
                    Query(rate("envoy_cluster_upstream_rq_retry", "envoy_cluster_name", EDGE), "tried"),
                    Query(rate("envoy_cluster_upstream_rq_retry_success", "envoy_cluster_name", EDGE), "that helped"),
                ],
                "reqps",
            ),
            Panel(
                "Hosts",
                [
                    Query(f"max by (envoy_cluster_name) (envoy_cluster_membership_total{{{EDGE}}})", "all"),
                    Query(f"min by (envoy_cluster_name) (envoy_cluster_membership_healthy{{{EDGE}}})", "healthy"),
                    Query(
                        f"max by (envoy_cluster_name) (envoy_cluster_outlier_detection_ejections_active{{{EDGE}}})",
                        "ejected",
                    ),
                ],
            ),
            one(
                "Refused because full",
                rate("envoy_cluster_upstream_rq_pending_overflow", "envoy_cluster_name", EDGE),
                "reqps",
                "{{envoy_cluster_name}}",
            ),
            one(
                "Connections that failed",
                rate("envoy_cluster_upstream_cx_connect_fail", "envoy_cluster_name", EDGE),
                "cps",
                "{{envoy_cluster_name}}",
            ),
        ),
        "Envoy itself": (
            one(
                "Has its control plane", f"min by (pod) (envoy_control_plane_connected_state{{{EDGE}}})", name="{{pod}}"
            ),
            Panel(
                "Configurations refused",
                [
                    Query(rate("envoy_cluster_manager_cds_update_rejected", "pod", EDGE), "clusters {{pod}}"),
                    Query(rate("envoy_listener_manager_lds_update_rejected", "pod", EDGE), "listeners {{pod}}"),
                ],
            ),
            one(
                "Days until a certificate ends",
                f"min by (pod) (envoy_server_days_until_first_cert_expiring{{{EDGE}}})",
                name="{{pod}}",
            ),
            one("Memory", f"sum by (pod) (envoy_server_memory_allocated{{{EDGE}}})", "bytes", "{{pod}}"),
        ),
    },
)

DASHBOARDS: Mapping[str, Dashboard] = {
    "overview": OVERVIEW,
    "pools": POOLS,
    "limits-and-money": LIMITS,
    "edge": ENVOY,
}


def document(name: str, dashboard: Dashboard) -> dict[str, Any]:
    """As Grafana reads it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in dashboard.rows.items():
        panels.append({"type": "row", "title": title, "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1}, "panels": []})
        x, y = 0, y + 1
        for panel in row:
            if x + panel.width > COLUMNS:
                x, y = 0, y + HEIGHT
            panels.append({**drawn(panel), "gridPos": {"x": x, "y": y, "w": panel.width, "h": HEIGHT}})
            x += panel.width
        y += HEIGHT
    return {
        "uid": f"modelplane-{name}",
        "title": dashboard.title,
        "tags": ["modelplane"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": variables(dashboard)},
        "panels": [{"id": number, **panel} for number, panel in enumerate(panels, 1)],
    }


def variables(dashboard: Dashboard) -> list[dict[str, Any]]:
    """What is chosen above the panels."""
    found = [{"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}]
    found.append(chosen("namespace", f"label_values({dashboard.metric}, namespace)"))
    if dashboard.by_model:
        found.append(chosen("model", f"label_values({dashboard.metric}{{{HERE}}}, model)"))
    if dashboard.priced:
        price = {"name": "replica_hour_price", "type": "textbox", "label": "Price of a replica's hour, USD"}
        found.append({**price, "query": "1"})
    return found


def chosen(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "label": name.capitalize(),
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "sort": 1,
    }


def drawn(panel: Panel) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    targets = [
        {"refId": chr(ord("A") + number), "datasource": source, "expr": query.expression, "legendFormat": query.name}
        for number, query in enumerate(panel.queries)
    ]
    return {
        "type": "stat" if panel.stat else "timeseries",
        "title": panel.title,
        **({"description": panel.words} if panel.words else {}),
        "datasource": source,
        "targets": targets,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
    }


def made() -> dict[str, str]:
    """The text of every file by its name."""
    texts = {name: json.dumps(document(name, dashboard), indent=1) for name, dashboard in DASHBOARDS.items()}
    return {f"{name}.json": f"{text}\n" for name, text in sorted(texts.items())}


if __name__ == "__main__":
    for file, text in made().items():
        (FOLDER / file).write_text(text)
