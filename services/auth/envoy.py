"""Envoy's ext_authz protocol: may this request of somebody else's Envoy pass?

What passes goes on without its key and with who it is: as headers for the upstream, which no client can forge, and as
dynamic metadata, from which the same Envoy can make descriptors for the rate limiter (`services.ratelimit.envoy`).
Which scope a request needs only its route knows: it says so as `scope` in its context extensions.

Keeps true: every request gets an answer, also while the keys cannot be asked. An error would leave the decision to
Envoy's `failure_mode_allow`, and whoever guesses keys can bring about that they are not asked for a moment.
"""

from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from envoy.service.auth.v3.attribute_context_pb2 import AttributeContext
from envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse
from google.protobuf.struct_pb2 import Struct
from prometheus_client import Counter

from modelplane.auth.v1.auth_pb2 import AuthenticateRequest, AuthenticateResponse, Principal
from modelplane.ratelimit.v1.ratelimit_pb2 import DescribeLimitsRequest
from services import telemetry
from services.faults import Fault, Internal
from services.http_faults import error_body, error_headers
from services.networks import check_address, network
from services.scopes import SCOPES, check

Authenticate = Callable[[AuthenticateRequest], Awaitable[AuthenticateResponse]]

# What a route may say of itself.
SCOPE: Final = "scope"
AUTHORIZATION: Final = "authorization"
KEEP: Final = "keep"
DEFAULT_SCOPE: Final = "model.request"

PREFIX: Final = "x-modelplane-"
# google.rpc.Code
OK: Final = 0
PERMISSION_DENIED: Final = 7
UNAUTHENTICATED: Final = 16

log = telemetry.logger(__name__)

CHECKS = Counter(
    "modelplane_envoy_checks",
    "Requests that other Envoys asked about, by outcome: allowed or the fault.",
    ("outcome",),
)


async def answer(authenticate: Authenticate, request: CheckRequest) -> CheckResponse:
    """Whether the request passes, and with which headers; else the status, headers and body to refuse it with."""
    extensions = request.attributes.context_extensions
    try:
        principal = await _principal(authenticate, request.attributes)
    except Fault as fault:
        CHECKS.labels(fault.reason).inc()
        return _denied(fault)
    CHECKS.labels("allowed").inc()
    return _allowed(principal, keep_key=extensions.get(AUTHORIZATION) == KEEP)


async def _principal(authenticate: Authenticate, attributes: AttributeContext) -> Principal:
    """Raises the fault that the request is refused with."""
    headers = headers_of(attributes.request.http)
    scheme, _, key = headers.get("authorization", "").partition(" ")
    address = attributes.source.address.socket_address.address
    asked = AuthenticateRequest(
        key=key.strip() if scheme.lower() == "bearer" else "",
        organization=headers.get("openai-organization", ""),
        project=headers.get("openai-project", ""),
        address=address,
    )
    principal = (await authenticate(asked)).principal
    if principal.ip_ranges:
        check_address(address, [network(block) for block in principal.ip_ranges])
    scope = attributes.context_extensions.get(SCOPE) or DEFAULT_SCOPE
    if scope not in SCOPES:
        log.error("a route of another Envoy names a scope that does not exist", scope=scope)
        raise Internal("internal", "The server is not configured to decide about this request.")
    check(principal, scope)
    return principal


def headers_of(http: AttributeContext.HttpRequest) -> Mapping[str, str]:
    """The request's headers by their names in lower case, in whichever of its two forms Envoy sends them."""
    if not http.header_map.headers:
        return dict(http.headers)
    return {
        header.key.lower(): header.value or header.raw_value.decode("utf-8", "replace")
        for header in http.header_map.headers
    }


def _allowed(principal: Principal, *, keep_key: bool) -> CheckResponse:
    facts = {
        "organization": principal.organization_id,
        "project": principal.project_id,
        "key-id": principal.key_id,
        "user": principal.owner_id,
    }
    response = CheckResponse()
    response.status.code = OK
    allowed = response.ok_response
    for name, value in facts.items():
        if value:
            allowed.headers.append(_header(PREFIX + name, value))
        else:
            # What the client sent under this name.
            allowed.headers_to_remove.append(PREFIX + name)
    if not keep_key:
        allowed.headers_to_remove.append("authorization")
    response.dynamic_metadata.CopyFrom(_metadata(principal))
    return response


def _metadata(principal: Principal) -> Struct:
    """What descriptors are made from: texts, because Envoy makes descriptors of nothing else."""
    limits = DescribeLimitsRequest(overrides=principal.limits).SerializeToString()
    metadata = Struct()
    metadata.update(
        {
            "organization": principal.organization_id,
            "project": principal.project_id,
            "key_id": principal.key_id,
            "user": principal.owner_id,
            "usage_tier": str(principal.usage_tier),
            "limits": urlsafe_b64encode(limits).decode(),
        }
    )
    return metadata


def _denied(fault: Fault) -> CheckResponse:
    response = CheckResponse()
    response.status.code = UNAUTHENTICATED if fault.rule.grpc_code == "UNAUTHENTICATED" else PERMISSION_DENIED
    response.status.message = fault.reason
    denied = response.denied_response
    denied.status.code = fault.rule.status
    denied.body = error_body(fault).decode()
    denied.headers.append(_header("content-type", "application/json"))
    for name, value in error_headers(fault):
        denied.headers.append(_header(name.decode("latin-1"), value.decode("latin-1")))
    return response


def _header(name: str, value: str) -> HeaderValueOption:
    """Replaces what is there of the name."""
    return HeaderValueOption(
        header=HeaderValue(key=name, value=value),
        append_action=HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
    )
