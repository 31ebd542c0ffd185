"""What the edge is, as Envoy's own documents: listeners, routes, clusters, endpoints and secrets. Pure.

They are written as Envoy's documentation writes them; `snapshot` turns them into messages, which knows every field.
"""

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any, Final

from services.rpc.certificates import PEER_NAME
from services.xds.certificate import Pair
from services.xds.fleet import Gateway
from services.xds.settings import XdsSettings

Document = Mapping[str, Any]

# Names that the documents know one another by. Those of the bootstrap are EDGE, INSIDE and AUTHORITY.
API: Final = "api"
REDIRECT: Final = "redirect"
GATEWAY: Final = "gateway"
EDGE: Final = "edge"
CERTIFICATE: Final = "certificate"
INSIDE: Final = "inside"
AUTHORITY: Final = "authority"
ACCESS_LOGS: Final = "access_logs"
TRACES: Final = "traces"

TYPE: Final = "type.googleapis.com/envoy."
# Without an end to the waiting: Envoy would say that it is ready, and would answer without routes or endpoints.
ADS: Final[Document] = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
MOST_INT64: Final = 2**63 - 1
# A listener's and a cluster's part of a connection; what is in flight above it waits at the sender.
BUFFER_BYTES: Final = 1024 * 1024
# Gateways close a connection that was idle for 75 seconds; a request must not meet that.
UPSTREAM_IDLE_S: Final = 60
HEALTH_INTERVAL_S: Final = 2
# A gateway gives what it depends on two seconds to answer.
HEALTH_TIMEOUT_S: Final = 3

ACCESS_LOG: Final[Mapping[str, str]] = {
    "time": "%START_TIME%",
    "method": "%REQ(:METHOD)%",
    "path": "%PATH(NQ:PATH:4096)%",
    "protocol": "%PROTOCOL%",
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "duration_ms": "%DURATION%",
    "first_byte_ms": "%RESPONSE_DURATION%",
    "received_bytes": "%BYTES_RECEIVED%",
    "sent_bytes": "%BYTES_SENT%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "gateway": "%UPSTREAM_HOST%",
    "request_id": "%RESP(X-REQUEST-ID)%",
    "traceparent": "%REQ(TRACEPARENT)%",
}


def typed(name: str, message: str, **fields: Any) -> dict[str, Any]:
    """An extension of Envoy under the name of its message below `envoy.`."""
    return {"name": name, "typed_config": {"@type": TYPE + message, **fields}}


def listeners(settings: XdsSettings, *, tls: bool) -> list[Document]:
    """One with TLS and one that sends clients there; or one without."""
    made = []
    if tls and settings.https_port:
        made.append(_listener("https", settings, settings.https_port, API, tls=True))
    if settings.http_port:
        made.append(_listener("http", settings, settings.http_port, REDIRECT if tls else API, tls=False))
    return made


def _listener(name: str, settings: XdsSettings, port: int, routes: str, *, tls: bool) -> Document:
    filters = []
    if settings.max_connections:
        limit = "extensions.filters.network.connection_limit.v3.ConnectionLimit"
        filters.append(typed("connections", limit, stat_prefix=name, max_connections=settings.max_connections))
    filters.append(_manager(name, settings, routes))
    chain: dict[str, Any] = {"filters": filters}
    if tls:
        chain["transport_socket"] = typed(
            "tls",
            "extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            common_tls_context={
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                "tls_certificate_sds_secret_configs": [{"name": CERTIFICATE, "sds_config": ADS}],
            },
        )
    return {
        "name": name,
        "address": _address(settings.host, port),
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        "filter_chains": [chain],
    }


def _manager(name: str, settings: XdsSettings, routes: str) -> dict[str, Any]:
    """Of HTTP over one connection."""
    fields: dict[str, Any] = {
        "stat_prefix": name,
        "codec_type": "AUTO",
        # The client's own address is the last one that the gateway is told.
        "use_remote_address": True,
        "xff_num_trusted_hops": settings.trusted_hops,
        "server_header_transformation": "PASS_THROUGH",
        "request_headers_timeout": "10s",
        "stream_idle_timeout": f"{settings.idle_s}s",
        "common_http_protocol_options": {
            "idle_timeout": "3600s",
            # What a gateway takes for a header of Envoy's own must not come from outside.
            "headers_with_underscores_action": "REJECT_REQUEST",
        },
        "http2_protocol_options": {
            "max_concurrent_streams": 128,
            "initial_stream_window_size": 256 * 1024,
            "initial_connection_window_size": BUFFER_BYTES,
        },
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "access_log": [_access_log(settings)] if settings.access_log else [],
        "local_reply_config": _local_replies(),
        "rds": {"route_config_name": routes, "config_source": ADS},
        "http_filters": [
            *([_rate_limit(settings)] if settings.requests_per_s else []),
            typed("router", "extensions.filters.http.router.v3.Router"),
        ],
    }
    if settings.trace_collector:
        fields["tracing"] = {
            "random_sampling": {"value": settings.trace_percent},
            "provider": typed(
                "traces",
                "config.trace.v3.OpenTelemetryConfig",
                grpc_service=_grpc(TRACES),
                service_name="modelplane-edge",
            ),
        }
    message = "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    return typed("http", message, **fields)


def _access_log(settings: XdsSettings) -> dict[str, Any]:
    if not settings.access_log_collector:
        message = "extensions.access_loggers.stream.v3.StdoutAccessLog"
        return typed("stdout", message, log_format={"json_format": ACCESS_LOG})
    return typed(
        "collector",
        "extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig",
        common_config={
            "log_name": "modelplane-edge",
            "grpc_service": _grpc(ACCESS_LOGS),
            "transport_api_version": "V3",
        },
        resource_attributes={"values": [{"key": "service.name", "value": {"string_value": "modelplane-edge"}}]},
        body={"string_value": "%REQ(:METHOD)% %PATH(NQ:PATH:4096)% %RESPONSE_CODE%"},
        attributes={"values": [{"key": key, "value": {"string_value": value}} for key, value in ACCESS_LOG.items()]},
    )


def _local_replies() -> Document:
    """What Envoy answers by itself looks like the platform's own errors, and says whether a retry can help."""
    never, soon = {"x-should-retry": "false"}, {"retry-after": "1", "retry-after-ms": "1000"}
    many = "Too many requests from your address. Try again in a second."
    said, code = "%LOCAL_REPLY_BODY%", "edge_%RESPONSE_CODE%"
    mappers = []
    # The first that holds the status is taken.
    for least, most, headers, error in (
        (429, 429, soon, {"message": many, "type": "requests", "code": "rate_limit_exceeded"}),
        (413, 413, never, {"message": said, "type": "invalid_request_error", "code": "request_too_large"}),
        (400, 499, never, {"message": said, "type": "invalid_request_error", "code": code}),
        (500, 599, soon, {"message": f"The service cannot be reached: {said}", "type": "server_error", "code": code}),
    ):
        json_format = {"error": {**error, "param": None}}
        mappers.append(
            {
                "filter": {"and_filter": {"filters": [_status("GE", least), _status("LE", most)]}},
                "headers_to_add": [_header(key, value) for key, value in headers.items()],
                "body_format_override": {"content_type": "application/json", "json_format": json_format},
            }
        )
    return {"mappers": mappers}


def _status(op: str, status: int) -> Document:
    value = {"default_value": status, "runtime_key": "modelplane.edge.unset"}
    return {"status_code_filter": {"comparison": {"op": op, "value": value}}}


def _rate_limit(settings: XdsSettings) -> dict[str, Any]:
    """So many requests for each address, of which a bounded number is remembered."""
    rate = settings.requests_per_s
    all_of_them = {"default_value": {"numerator": 100}}
    return typed(
        "addresses",
        "extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        stat_prefix="addresses",
        filter_enabled=all_of_them,
        filter_enforced=all_of_them,
        max_dynamic_descriptors=settings.max_addresses,
        # Every request has an address, so that this is nobody's.
        token_bucket={"max_tokens": 2**32 - 1, "tokens_per_fill": 2**32 - 1, "fill_interval": "1s"},
        always_consume_default_token_bucket=False,
        rate_limits=[{"actions": [{"masked_remote_address": {"v6_prefix_mask_len": 64}}]}],
        descriptors=[
            {
                "entries": [{"key": "masked_remote_address"}],
                "token_bucket": {
                    "max_tokens": settings.burst or 2 * rate,
                    "tokens_per_fill": rate,
                    "fill_interval": "1s",
                },
            }
        ],
    )


def routes(settings: XdsSettings, *, tls: bool) -> list[Document]:
    """What the listeners' requests come to."""
    made = [_routes(API, [_hidden("/metrics"), _too_large(settings), *_to_gateways(settings)])]
    if tls and settings.http_port:
        there = {"https_redirect": True, "port_redirect": settings.https_port, "response_code": "PERMANENT_REDIRECT"}
        made.append(_routes(REDIRECT, [{"match": {"prefix": "/"}, "redirect": there}]))
    return made


def _routes(name: str, entries: list[Document]) -> Document:
    host: dict[str, Any] = {"name": name, "domains": ["*"], "routes": entries}
    if name == API:
        # Else only what fits into a connection's buffer could be sent to another gateway.
        host["request_body_buffer_limit"] = BUFFER_BYTES
    return {"name": name, "virtual_hosts": [host]}


def _hidden(path: str) -> Document:
    """What is told of the inside stays inside."""
    return {
        "match": {"path": path},
        "direct_response": {"status": 404, "body": {"inline_string": "There is nothing here."}},
    }


def _too_large(settings: XdsSettings) -> Document:
    # Envoy's own limit would hold the whole body back; this looks at what is announced.
    above = {"start": settings.max_body_bytes + 1, "end": MOST_INT64}
    return {
        "match": {"prefix": "/", "headers": [{"name": "content-length", "range_match": above}]},
        "direct_response": {"status": 413, "body": {"inline_string": "The body of the request is too large."}},
    }


def _to_gateways(settings: XdsSettings) -> list[Document]:
    """What changes nothing may be asked twice; anything else only while no gateway can have begun to read it."""
    unread = "connect-failure,refused-stream,reset-before-request"
    reading = {"name": ":method", "string_match": {"safe_regex": {"regex": "GET|HEAD"}}}
    previous = "extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"

    def to_gateway(match: Document, retry_on: str) -> Document:
        return {
            "match": match,
            "route": {
                "cluster": GATEWAY,
                # A stream may take long; it is ended when nothing comes any more.
                "timeout": "0s",
                "idle_timeout": f"{settings.idle_s}s",
                "retry_policy": {
                    "retry_on": retry_on,
                    "num_retries": 3,
                    "retry_host_predicate": [typed("previous_hosts", previous)],
                    # One that has just died has the fewest requests, and so is drawn again and again.
                    "host_selection_retry_max_attempts": 20,
                },
            },
        }

    return [
        to_gateway({"prefix": "/", "headers": [reading]}, f"{unread},reset"),
        to_gateway({"prefix": "/"}, unread),
    ]


def clusters(settings: XdsSettings) -> list[Document]:
    """The gateways, and the collectors that are set."""
    made = [_gateways(settings)]
    for name, collector in (
        (ACCESS_LOGS, settings.access_log and settings.access_log_collector),
        (TRACES, settings.trace_collector),
    ):
        if collector:
            host, _, port = collector.rpartition(":")
            made.append(grpc_cluster(name, host, int(port)))
    return made


def _gateways(settings: XdsSettings) -> Document:
    # Those that are not ready are asked only where none is: then the platform's own answer is better than Envoy's.
    balancing: dict[str, Any] = {"healthy_panic_threshold": {"value": 1}}
    if settings.edge_service:
        balancing["zone_aware_lb_config"] = {"min_cluster_size": "2"}
    http = "extensions.upstreams.http.v3.HttpProtocolOptions"
    made: dict[str, Any] = {
        "name": GATEWAY,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": ADS},
        "connect_timeout": "2s",
        "lb_policy": "LEAST_REQUEST",
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        "common_lb_config": balancing,
        # What the control plane says is gone gets nothing new, whether it still answers or not.
        "ignore_health_on_host_removal": True,
        "health_checks": [
            {
                "timeout": f"{HEALTH_TIMEOUT_S}s",
                "interval": f"{HEALTH_INTERVAL_S}s",
                "no_traffic_interval": f"{HEALTH_INTERVAL_S}s",
                "initial_jitter": "0.2s",
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
                "http_health_check": {"path": "/readyz", "host": PEER_NAME},
            }
        ],
        "outlier_detection": {
            # An error that a gateway makes up its mind to send is none of its connection's.
            "consecutive_5xx": 1000,
            "consecutive_gateway_failure": 5,
            # That it cannot be connected to is seen long before its health is looked at again.
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": 2,
            "interval": "2s",
            "base_ejection_time": "5s",
            "max_ejection_percent": 50,
        },
        "circuit_breakers": {
            "thresholds": [
                {
                    **{f"max_{what}": 10_000 for what in ("connections", "pending_requests", "requests")},
                    "retry_budget": {"budget_percent": {"value": 20}, "min_retry_concurrency": 10},
                }
            ]
        },
        "typed_extension_protocol_options": {
            f"envoy.{http}": {
                "@type": TYPE + http,
                "common_http_protocol_options": {"idle_timeout": f"{UPSTREAM_IDLE_S}s"},
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
    }
    if settings.inside_certificate:
        made["transport_socket"] = inside_tls(settings.inside_certificate, settings.inside_authority, "http/1.1")
    return made


def inside_tls(certificate: str, authority: str, protocol: str) -> Document:
    """Mutual TLS with a process of the platform, out of SDS files in Envoy's own file system."""

    def file(name: str, path: str) -> Document:
        source = {"path_config_source": {"path": path}, "resource_api_version": "V3"}
        return {"name": name, "sds_config": source}

    return typed(
        "tls",
        "extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        sni=PEER_NAME,
        common_tls_context={
            "alpn_protocols": [protocol],
            "tls_certificate_sds_secret_configs": [file(INSIDE, certificate)],
            "validation_context_sds_secret_config": file(AUTHORITY, authority),
        },
    )


def grpc_cluster(name: str, host: str, port: int) -> dict[str, Any]:
    """Of one server that is looked up by its name and speaks HTTP/2."""
    http = "extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        "name": name,
        "type": "STRICT_DNS",
        "connect_timeout": "2s",
        "typed_extension_protocol_options": {
            f"envoy.{http}": {"@type": TYPE + http, "explicit_http_config": {"http2_protocol_options": {}}}
        },
        "load_assignment": assignment(name, [{"lb_endpoints": [{"endpoint": {"address": _address(host, port)}}]}]),
    }


def endpoints(name: str, members: Iterable[Gateway]) -> Document:
    """By zone, in an order of their own."""

    def endpoint(member: Gateway) -> Document:
        made: dict[str, Any] = {"endpoint": {"address": _address(member.address, member.port)}}
        if member.draining:
            made["health_status"] = "DRAINING"
        return made

    by_zone = groupby(sorted(members, key=lambda member: (member.zone, member)), lambda member: member.zone)
    return assignment(
        name,
        [{"locality": {"zone": zone}, "lb_endpoints": [endpoint(member) for member in some]} for zone, some in by_zone],
    )


def assignment(name: str, localities: list[Document]) -> Document:
    return {"cluster_name": name, "endpoints": localities}


def secrets(certificate: Pair | None) -> list[Document]:
    """The certificate that clients are shown."""
    if certificate is None:
        return []
    chain, key = ({"inline_string": text.decode()} for text in certificate)
    return [{"name": CERTIFICATE, "tls_certificate": {"certificate_chain": chain, "private_key": key}}]


def _address(host: str, port: int) -> Document:
    return {"socket_address": {"address": host, "port_value": port}}


def _grpc(cluster: str) -> Document:
    return {"envoy_grpc": {"cluster_name": cluster}, "timeout": "2s"}


def _header(key: str, value: str) -> Document:
    return {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
