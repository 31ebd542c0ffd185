"""For every alert the series that make it fire, and such that come close and do not.

Series are in promtool's notation, one sample a minute: `0+6x90` begins with 0 and grows by 6 ninety times.
"""

from collections.abc import Mapping
from typing import NamedTuple

Series = Mapping[str, str]


class Case(NamedTuple):
    """`fires` and `silent` are the series of two worlds, seen at `minutes`."""

    minutes: int
    fires: Series
    silent: Series


ENVOY = 'namespace="n",pod="p",modelplane_release="r"'
POD = 'namespace="n",pod="p",component="gateway",modelplane_release="r"'


def requests(failed: str, done: str) -> Series:
    return {
        'modelplane_requests_total{namespace="n",status="200",model="m",operation="chat"}': done,
        'modelplane_requests_total{namespace="n",status="503",model="m",operation="chat"}': failed,
    }


def first_tokens(late: str, all_of_them: str) -> Series:
    return {
        'modelplane_time_to_first_token_seconds_bucket{namespace="n",model="m",le="2.5"}': late,
        'modelplane_time_to_first_token_seconds_count{namespace="n",model="m"}': all_of_them,
    }


def waits(within_10s: str, within_30s: str) -> Series:
    name = 'modelplane_router_queue_wait_seconds_bucket{namespace="n",model="m",service_tier="default"'
    return {
        f'{name},le="10.0"}}': within_10s,
        f'{name},le="30.0"}}': within_30s,
        f'{name},le="+Inf"}}': within_30s,
    }


def replicas(wanted: str, there: str) -> Series:
    return {
        'modelplane_pools_wanted_replicas{namespace="n",model="m"}': wanted,
        'modelplane_router_replicas{namespace="n",model="m"}': there,
    }


def counted(series: str, minutes: int, fires: str, silent: str = "5x60") -> Case:
    return Case(minutes, {series: fires}, {series: silent})


CASES: Mapping[str, Case] = {
    # 2 % fail, 20 times the budget; in the other world as many did, until half an hour ago.
    "ModelplaneRequestsFail": Case(75, requests("0+20x90", "0+980x90"), requests("0+20x40 800x50", "0+980x90")),
    # 0.7 % fail; in the other world 0.5 %.
    "ModelplaneRequestsFailSlowly": Case(400, requests("0+7x420", "0+993x420"), requests("0+5x420", "0+995x420")),
    "ModelplaneFirstTokensLate": Case(75, first_tokens("0+80x90", "0+100x90"), first_tokens("0+90x90", "0+100x90")),
    "ModelplaneFirstTokensLateSlowly": Case(
        400, first_tokens("0+93x420", "0+100x420"), first_tokens("0+95x420", "0+100x420")
    ),
    "ModelplanePodSilent": Case(
        8, {f"up{{{POD}}}": "0x20"}, {f"up{{{POD}}}": "1 1 1 1 0 1 0 0 0", 'up{pod="x"}': "0x9"}
    ),
    "ModelplaneProcessRestarts": counted(f"process_start_time_seconds{{{POD}}}", 16, "1x4 2x4 3x4 4x4", "1x7 2x7 3x7"),
    "ModelplaneEventLoopLate": counted(f"modelplane_event_loop_lag_seconds{{{POD}}}", 15, "0.5x30", "0.5x9 0.1 0.5x30"),
    "ModelplaneTasksGrow": Case(
        540, {f"modelplane_tasks{{{POD}}}": "600+10x600"}, {f"modelplane_tasks{{{POD}}}": "6000+10x600"}
    ),
    "ModelplaneCatalogueRefused": Case(
        20,
        {f'modelplane_catalog_changes_total{{{POD},taken="no"}}': "0x10 1x20"},
        {f'modelplane_catalog_changes_total{{{POD},taken="yes"}}': "0x10 1x20"},
    ),
    "ModelplaneModelWithoutReplicas": Case(10, replicas("2x20", "0x20"), replicas("2x20", "0x4 1 0 0 1x20")),
    "ModelplaneReplicasMissing": Case(20, replicas("2x30", "1x30"), replicas("2x30", "1x9 2 1x20")),
    "ModelplaneReplicasCrash": counted(
        'modelplane_pools_replicas_ended_total{namespace="n",model="m"}', 15, "0x5 1x3 2x3 4x9", "0x5 1x3 2x9"
    ),
    "ModelplaneQueueStays": counted(
        'modelplane_router_queued_requests{namespace="n",model="m"}', 25, "3x40", "3x13 0 3x20"
    ),
    "ModelplaneQueueSlow": Case(20, waits("0+8x30", "0+10x30"), waits("0+95x30", "0+100x30")),
    "ModelplaneReplicasOutdated": counted(
        'modelplane_pools_outdated_replicas{namespace="n",model="m"}', 70, "1x90", "1x40 0 1x60"
    ),
    "ModelplaneSpoolOld": counted(f"modelplane_spool_oldest_seconds{{{POD}}}", 12, "0+60x30", "290x30"),
    "ModelplaneSpoolVeryOld": counted(f"modelplane_spool_oldest_seconds{{{POD}}}", 70, "0+60x90", "0+40x90"),
    "ModelplaneLedgerBehind": counted(f"modelplane_spool_records{{{POD}}}", 45, "10000+500x60", "90000-500x60"),
    "ModelplaneUsageSetAside": counted(f"modelplane_spool_set_aside_bytes_total{{{POD}}}", 30, "0x20 300x20"),
    "ModelplaneUsageUnpriced": counted(
        'modelplane_usage_unpriced_batches_total{namespace="n",model="m"}', 30, "0x20 1x20"
    ),
    "ModelplaneCheckpointsFail": counted(f"modelplane_checkpoints_failed_total{{{POD}}}", 20, "0+4x30", "0x10 3x30"),
    "ModelplaneHoldsFail": Case(
        15,
        {f'modelplane_holds_total{{{POD},outcome="unavailable"}}': "0+5x30"},
        {f'modelplane_holds_total{{{POD},outcome="refused"}}': "0+5x30"},
    ),
    "ModelplaneUsageEventsFail": counted(f"modelplane_usage_event_failures_total{{{POD}}}", 45, "0+1x60", "0x10 3x60"),
    "ModelplaneSpendAlertsFail": Case(
        40,
        {f'modelplane_spend_alerts_total{{{POD},channel="email",outcome="failed"}}': "0x9 9x60"},
        {f'modelplane_spend_alerts_total{{{POD},channel="email",outcome="sent"}}': "0x9 9x60"},
    ),
    "ModelplaneLimitsNotShared": Case(
        12,
        {f'modelplane_ratelimit_local_decisions_total{{{POD},reason="outage"}}': "0x5 5+50x30"},
        {f'modelplane_ratelimit_local_decisions_total{{{POD},reason="lease"}}': "0x5 5+50x30"},
    ),
    "ModelplaneMostRequestsRefused": Case(
        30,
        {
            f'modelplane_reservations_total{{{POD},outcome="granted"}}': "0+10x40",
            f'modelplane_reservations_total{{{POD},outcome="rate_limit_exceeded"}}': "0+11x40",
        },
        {
            f'modelplane_reservations_total{{{POD},outcome="granted"}}': "0+11x40",
            f'modelplane_reservations_total{{{POD},outcome="rate_limit_exceeded"}}': "0+10x40",
        },
    ),
    "ModelplaneEdgeConfigurationRejected": counted(
        f"envoy_listener_manager_lds_update_rejected{{{ENVOY}}}", 12, "0x9 1x20"
    ),
    "ModelplaneEdgeUncontrolled": counted(
        f"envoy_control_plane_connected_state{{{ENVOY}}}", 12, "1x3 0x30", "1x3 0 0 0 1x30"
    ),
    "ModelplaneEdgeCertificateEnds": counted(
        f"envoy_server_days_until_first_cert_expiring{{{ENVOY}}}", 5, "13x9", "4294967295x9"
    ),
    "ModelplaneEdgeCertificateEndsSoon": counted(
        f"envoy_server_days_until_first_cert_expiring{{{ENVOY}}}", 5, "2x9", "3x9"
    ),
    "ModelplaneEdgeGatewaysUnhealthy": Case(
        5,
        {
            f'envoy_cluster_membership_healthy{{{ENVOY},envoy_cluster_name="c"}}': "1x9",
            f'envoy_cluster_membership_total{{{ENVOY},envoy_cluster_name="c"}}': "3x9",
        },
        {
            f'envoy_cluster_membership_healthy{{{ENVOY},envoy_cluster_name="c"}}': "2x9",
            f'envoy_cluster_membership_total{{{ENVOY},envoy_cluster_name="c"}}': "3x9",
            f'envoy_cluster_membership_healthy{{{ENVOY},envoy_cluster_name="none"}}': "0x9",
            f'envoy_cluster_membership_total{{{ENVOY},envoy_cluster_name="none"}}': "0x9",
        },
    ),
    "ModelplaneEdgeOverflows": counted(
        f'envoy_cluster_upstream_rq_pending_overflow{{{ENVOY},envoy_cluster_name="c"}}', 15, "0+9x30"
    ),
    "ModelplaneEdgeConnectFails": counted(
        f'envoy_cluster_upstream_cx_connect_fail{{{ENVOY},envoy_cluster_name="c"}}', 15, "0+90x30", "0+30x30"
    ),
    "ModelplaneAutoscalingBlind": Case(
        20,
        {'modelplane_external_metrics_answers_total{namespace="n",metric="x",outcome="withheld"}': "0+4x40"},
        {
            'modelplane_external_metrics_answers_total{namespace="n",metric="x",outcome="withheld"}': "0+4x40",
            'modelplane_external_metrics_answers_total{namespace="n",metric="x",outcome="given"}': "0+1x40",
        },
    ),
    "ModelplaneAutoscalingCertificateEnds": counted(
        f"modelplane_external_metrics_certificate_expires_timestamp_seconds{{{POD}}}", 5, "400000x9", "500000x9"
    ),
}
