"""What an Envoy of the edge is started with: where its control plane is, who it is, and how it is watched.

Everything else comes from `xds`. What has to be there without it is here: readiness and metrics.
"""

from typing import Any, Final, NamedTuple

from services.rpc.certificates import PEER_NAME
from services.xds.documents import (
    ADS,
    EDGE,
    TYPE,
    Document,
    assignment,
    grpc_cluster,
    inside_tls,
    typed,
)

CONTROL: Final = "xds"
ADMIN: Final = "admin"
# An Envoy that finds a control plane which is frozen takes another connection after so long.
PING_S: Final = 10
CONNECTIONS: Final = 20_000


class ControlPlane(NamedTuple):
    """How `xds` is reached: `host:port`, with the token between services. The two files are SDS secrets in Envoy's own
    file system, `inside` and `authority`; without them there is no TLS."""

    address: str
    token: str
    inside_certificate: str = ""
    inside_authority: str = ""


def bootstrap(
    control: ControlPlane,
    *,
    node: str,
    admin: Document,
    zone: str = "",
    watch: Document | None = None,
    connections: int = CONNECTIONS,
) -> Document:
    """Envoy's configuration. `node` is its name among the Envoys, `admin` the address of its administration, which
    nobody else must reach, and `watch` the address that offers /ready and /stats/prometheus to others. It holds so many
    `connections` of clients; more are refused."""
    host, _, port = control.address.rpartition(":")
    cluster = grpc_cluster(CONTROL, host.strip("[]"), int(port))
    for options in cluster["typed_extension_protocol_options"].values():
        keepalive = {"interval": f"{PING_S}s", "timeout": f"{PING_S}s"}
        options["explicit_http_config"]["http2_protocol_options"]["connection_keepalive"] = keepalive
    if control.inside_certificate:
        cluster["transport_socket"] = inside_tls(control.inside_certificate, control.inside_authority, "h2")
    made: dict[str, Any] = {
        "node": {"id": node, "cluster": EDGE, "locality": {"zone": zone}},
        "admin": {"address": admin},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [
                    {
                        "envoy_grpc": {"cluster_name": CONTROL},
                        "initial_metadata": [{"key": "modelplane-token", "value": control.token}],
                    }
                ],
            },
            "cds_config": ADS,
            "lds_config": ADS,
        },
        "overload_manager": {
            "refresh_interval": "0.25s",
            "resource_monitors": [
                typed(
                    "envoy.resource_monitors.global_downstream_max_connections",
                    "extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                    max_active_downstream_connections=connections,
                )
            ],
        },
        # The Envoys themselves, by zone: how many requests a zone may keep depends on how many arrive in it.
        "cluster_manager": {"local_cluster_name": EDGE},
        "static_resources": {
            "clusters": [
                cluster,
                {"name": EDGE, "type": "EDS", "connect_timeout": "1s", "eds_cluster_config": {"eds_config": ADS}},
            ]
        },
    }
    if watch:
        endpoint = {"lb_endpoints": [{"endpoint": {"address": admin}}]}
        made["static_resources"]["clusters"].append(
            {"name": ADMIN, "type": "STATIC", "load_assignment": assignment(ADMIN, [endpoint])}
        )
        made["static_resources"]["listeners"] = [_watched(watch)]
    return made


def _watched(address: Document) -> Document:
    """Of everything that the administration can do, the two paths that change nothing."""
    routes = [{"match": {"path": path}, "route": {"cluster": ADMIN}} for path in ("/ready", "/stats/prometheus")]
    manager = typed(
        "http",
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="watch",
        route_config={"name": "watch", "virtual_hosts": [{"name": "watch", "domains": ["*"], "routes": routes}]},
        http_filters=[typed("router", "extensions.filters.http.router.v3.Router")],
    )
    return {
        "name": "watch",
        "address": address,
        "ignore_global_conn_limit": True,
        "filter_chains": [{"filters": [manager]}],
    }


def inside_secrets(folder: str) -> dict[str, Document]:
    """The two SDS files, by the names of their secrets, for a folder with `tls.crt`, `tls.key` and `ca.crt`; Envoy
    follows it."""

    def file(name: str) -> Document:
        return {"filename": f"{folder}/{name}"}

    watched = {"watched_directory": {"path": folder}}
    own = {"certificate_chain": file("tls.crt"), "private_key": file("tls.key"), **watched}
    # Processes are called by addresses, which come and go: the name is the same for all.
    names = [{"san_type": "DNS", "matcher": {"exact": PEER_NAME}}]
    theirs = {"trusted_ca": file("ca.crt"), "match_typed_subject_alt_names": names, **watched}
    secret = f"{TYPE}extensions.transport_sockets.tls.v3.Secret"
    return {
        "inside": {"resources": [{"@type": secret, "name": "inside", "tls_certificate": own}]},
        "authority": {"resources": [{"@type": secret, "name": "authority", "validation_context": theirs}]},
    }
