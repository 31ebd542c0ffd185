"""Settings of Envoy's control plane."""

from pathlib import Path
from typing import ClassVar

from services.settings import Group


class XdsSettings(Group, frozen=True, kw_only=True):
    """What the Envoys at the edge do. They ask for it over gRPC, and go on with what they have while nobody answers."""

    group: ClassVar[str] = "xds"

    gateways: tuple[str, ...] = ()
    """`address:port` of each gateway, by commas; addresses are IP addresses. Default: the gateway of this process."""

    gateway_service: str = ""
    """`namespace/name` of a Kubernetes Service, whose pods are followed in place of `gateways`. Needs the right to list
    and watch the namespace's EndpointSlices."""

    gateway_port_name: str = "http"
    """What that Service calls the port of the HTTP API."""

    edge_service: str = ""
    """`namespace/name` of the Service of the Envoys themselves. With it requests stay in their zone as far as the
    gateways there can take them. Default: zones do not count."""

    edge_port_name: str = "http"
    """What that Service calls a port of theirs; any will do."""

    host: str = "0.0.0.0"  # noqa: S104 - an edge is there to be reached
    """Address that the Envoys listen on."""

    http_port: int = 8080
    """Port without TLS; 0: none. Where there is TLS, it sends clients there and does nothing else."""

    https_port: int = 8443
    """Port with TLS, which exists when `certificate_folder` is set; 0: none."""

    certificate_folder: Path | None = None
    """Folder with `tls.crt` and `tls.key` for the name that clients call. Renewed files are given to the Envoys
    without ending a connection. Default: no TLS."""

    certificate_poll_s: float = 2.0
    """Seconds between two looks at these files."""

    inside_certificate: str = ""
    """File with the SDS secret `inside`, in the Envoys' own file system: the certificate that they show to gateways
    (MODELPLANE_GATEWAY_TLS). Default: gateways are called without TLS."""

    inside_authority: str = ""
    """File with the SDS secret `authority`, likewise: whom gateways' certificates must be from."""

    trusted_hops: int = 0
    """Proxies in front of the Envoys whose X-Forwarded-For is believed, from the right. 0: the connection's address is
    the client's."""

    idle_s: int = 600
    """Seconds that a stream or a connection to a gateway may be silent before it is ended. Streams get a comment every
    few seconds (MODELPLANE_GATEWAY_KEEP_ALIVE_COMMENT_S), an answer in one piece nothing until it is there."""

    max_body_bytes: int = 32 * 1024 * 1024
    """Largest body that a request may announce; more is refused with 413 before any of it is read. A body of unknown
    length is counted by the gateway (MODELPLANE_GATEWAY_MAX_BODY_BYTES). Nothing is buffered for this."""

    max_connections: int = 0
    """Connections that one port of one Envoy takes; those above it are closed at once. 0: any number."""

    requests_per_s: int = 0
    """Requests per second that one client address (an IPv6 /64) may send to one Envoy, after which it gets 429. It
    protects the platform from a single source; what a customer may do is decided by its limits. 0: any number."""

    burst: int = 0
    """Requests that an address may send at once. Default: what it may send in two seconds."""

    max_addresses: int = 10_000
    """Addresses that are remembered at a time; the one that was silent the longest is forgotten, and starts anew."""

    access_log: bool = True
    """Whether the Envoys log each request."""

    access_log_collector: str = ""
    """`host:port` of an OTLP collector (gRPC) for access logs. Default: they are JSON lines of Envoy's output."""

    trace_collector: str = ""
    """`host:port` of an OTLP collector (gRPC) for Envoy's spans, as which gateways' spans have their parents. Default:
    no spans."""

    trace_percent: float = 100.0
    """How many of the requests that come without a trace start one."""
