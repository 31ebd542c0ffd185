"""Everything that Envoys are given at one time, as messages with a version for each kind. Pure.

What it keeps true: the version is what the contents are, so that a control plane that starts anew, or another one
beside it, gives the same name to the same thing; and nothing is served that `check` has not followed through: a
listener without its routes would be waited for, a cluster without its endpoints too.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, Final, NamedTuple

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message

from services.xds import documents
from services.xds.certificate import Pair
from services.xds.documents import Document
from services.xds.fleet import Gateway
from services.xds.settings import XdsSettings

# What is named inside of the documents must be known before they are read.
_EXTENSIONS: Final = (
    "envoy.config.trace.v3.opentelemetry_pb2",
    "envoy.extensions.access_loggers.open_telemetry.v3.logs_service_pb2",
    "envoy.extensions.access_loggers.stream.v3.stream_pb2",
    "envoy.extensions.filters.http.local_ratelimit.v3.local_rate_limit_pb2",
    "envoy.extensions.filters.http.router.v3.router_pb2",
    "envoy.extensions.filters.network.connection_limit.v3.connection_limit_pb2",
    "envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2",
    "envoy.extensions.retry.host.previous_hosts.v3.previous_hosts_pb2",
    "envoy.extensions.transport_sockets.tls.v3.tls_pb2",
    "envoy.extensions.upstreams.http.v3.http_protocol_options_pb2",
)

KINDS: Final[Mapping[str, type[Message]]] = {
    "clusters": Cluster,
    "endpoints": ClusterLoadAssignment,
    "listeners": Listener,
    "routes": RouteConfiguration,
    "secrets": Secret,
}
"""In the order in which they are given: what others refer to comes before them, or is asked for because of them."""

TYPE_URLS: Final[Mapping[str, str]] = {
    kind: f"type.googleapis.com/{message.DESCRIPTOR.full_name}" for kind, message in KINDS.items()
}


class InconsistentError(Exception):
    """A snapshot that must not be served."""


class Resources(NamedTuple):
    """All of one kind. `version` is the same for the same contents."""

    messages: Sequence[Message]
    packed: Mapping[str, Packed]
    version: str


class Snapshot(NamedTuple):
    """All kinds, in the order of KINDS."""

    clusters: Resources
    endpoints: Resources
    listeners: Resources
    routes: Resources
    secrets: Resources

    def of(self, kind: str) -> Resources:
        resources: Resources = getattr(self, kind)
        return resources


def snapshot(
    shape: XdsSettings,
    gateways: Iterable[Gateway],
    certificate: Pair | None,
    edges: Iterable[Gateway] = (),
) -> Snapshot:
    """Of an edge in front of these gateways; with a certificate it speaks TLS. `edges` are the Envoys themselves, for
    keeping requests in their zone."""
    for extension in _EXTENSIONS:
        import_module(extension)
    tls = certificate is not None
    members = {documents.GATEWAY: gateways, documents.EDGE: edges}
    return Snapshot(
        clusters=resources("clusters", documents.clusters(shape)),
        endpoints=resources("endpoints", [documents.endpoints(name, some) for name, some in members.items()]),
        listeners=resources("listeners", documents.listeners(shape, tls=tls)),
        routes=resources("routes", documents.routes(shape, tls=tls)),
        secrets=resources("secrets", documents.secrets(certificate)),
    )


def resources(kind: str, made: Iterable[Document]) -> Resources:
    """Raises google.protobuf.json_format.ParseError for what Envoy has no field for."""
    messages = [ParseDict(dict(document), KINDS[kind]()) for document in made]
    packed, digest = {}, hashlib.sha256()
    for message in sorted(messages, key=name_of):
        content = message.SerializeToString(deterministic=True)
        packed[name_of(message)] = Packed(type_url=TYPE_URLS[kind], value=content)
        digest.update(len(content).to_bytes(8, "big") + content)
    return Resources(messages, packed, digest.hexdigest()[:16])


def name_of(message: Any) -> str:
    name: str = message.cluster_name if isinstance(message, ClusterLoadAssignment) else message.name
    return name


def check(made: Snapshot) -> None:
    """Raises InconsistentError for what refers to something that is not there, and for what is there twice."""
    for kind in KINDS:
        if doubled := _doubled([name_of(message) for message in made.of(kind).messages]):
            raise InconsistentError(f"{kind}: {', '.join(doubled)} is there twice")
    for message in (*made.listeners.messages, *made.routes.messages, *made.clusters.messages):
        for kind, name in references(MessageToDict(message, preserving_proto_field_name=True)):
            if name not in made.of(kind).packed:
                raise InconsistentError(f"{name_of(message)} refers to {name}, which is none of the {kind}")
    listening = [str(message.address) for message in made.listeners.messages]  # type: ignore[attr-defined]
    if _doubled(listening):
        raise InconsistentError("two listeners have one address")
    for message in made.endpoints.messages:
        localities = message.endpoints  # type: ignore[attr-defined]
        members = [str(one.endpoint.address) for locality in localities for one in locality.lb_endpoints]
        if _doubled(members):
            raise InconsistentError(f"{name_of(message)} has an endpoint twice")


def references(document: Any) -> Iterator[tuple[str, str]]:
    """The kind and name of what a document says is somewhere else in the snapshot."""
    if isinstance(document, Sequence) and not isinstance(document, str):
        for one in document:
            yield from references(one)
    if not isinstance(document, Mapping):
        return
    if document.get("type") == "EDS":
        yield "endpoints", document["name"]
    if "ads" in document.get("sds_config", ()):
        yield "secrets", document["name"]
    for key, value in document.items():
        match key:
            case "route_config_name":
                yield "routes", value
            case "cluster" if isinstance(value, str):
                yield "clusters", value
            case "envoy_grpc":
                yield "clusters", value["cluster_name"]
        yield from references(value)


def _doubled(names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})
