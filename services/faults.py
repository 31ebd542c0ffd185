"""Every way in which a request can fail: the exception tree and the one table that says how a failure looks.

A service raises a `Fault` with a `reason`; the reason's row says which gRPC code carries it between services and
which HTTP status, error type and error code the client sees. Nothing else in the project knows statuses or
codes, so a failure looks the same from whichever service it comes and over whichever wiring.
"""

from collections.abc import Mapping
from typing import NamedTuple

from modelplane.fault.v1 import fault_pb2

# A fault travels in metadata, which has room for two texts of this length.
QUOTE_CHARACTERS = 4000


class FaultRule(NamedTuple):
    """How one reason is shown. `grpc_code` is the name of a gRPC status code."""

    grpc_code: str
    status: int
    type: str
    code: str | None
    # False tells OpenAI's SDKs, which would repeat a 429 or a 5xx, that repeating cannot help.
    retryable: bool = False


class Fault(Exception):
    """A failure with a reason from `FAULTS` and a message that the client may read.

    `param` names the request field at fault. Both may quote what a client sent: what is longer than
    `QUOTE_CHARACTERS` is cut. `retry_after_ms` is 0 when no wait was computed; `headers` go into the HTTP response
    (the x-ratelimit-* of a 429).
    """

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        param: str | None = None,
        retry_after_ms: int = 0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(reason, _cut(message))
        self.reason = reason
        self.message = _cut(message)
        self.param = None if param is None else _cut(param)
        self.retry_after_ms = retry_after_ms
        self.headers = dict(headers or {})

    @property
    def rule(self) -> FaultRule:
        return FAULTS.get(self.reason, FAULTS["internal"])

    def to_proto(self) -> fault_pb2.Fault:
        return fault_pb2.Fault(
            reason=self.reason,
            message=self.message,
            param=self.param or "",
            retry_after_ms=self.retry_after_ms,
            headers=self.headers,
        )

    @staticmethod
    def from_proto(proto: fault_pb2.Fault) -> "Fault":
        """The fault that another process raised, as the same class of the tree."""
        rule = FAULTS.get(proto.reason, FAULTS["internal"])
        return _CLASSES.get(rule.grpc_code, Internal)(
            proto.reason,
            proto.message,
            param=proto.param or None,
            retry_after_ms=proto.retry_after_ms,
            headers=proto.headers,
        )


def _cut(text: str) -> str:
    return text if len(text) <= QUOTE_CHARACTERS else text[: QUOTE_CHARACTERS - 1] + "…"


class InvalidRequest(Fault):
    """The request can never succeed as it is."""


class Unauthenticated(Fault):
    """No key, or one that does not (or no longer) count."""


class PermissionDenied(Fault):
    """A good key that may not do this."""


class NotFound(Fault):
    """No such object, or none that the caller may know of."""


class Conflict(Fault):
    """The object is in a state that does not admit the call."""


class RateLimited(Fault):
    """A limit or a quota is used up."""


class Unavailable(Fault):
    """Nothing is wrong with the request; the platform cannot serve it now."""


class DeadlineExceeded(Fault):
    """The call took longer than its deadline."""


class Cancelled(Fault):
    """The caller went away."""


class Internal(Fault):
    """A defect of the platform."""


_CLASSES: Mapping[str, type[Fault]] = {
    "INVALID_ARGUMENT": InvalidRequest,
    "UNAUTHENTICATED": Unauthenticated,
    "PERMISSION_DENIED": PermissionDenied,
    "NOT_FOUND": NotFound,
    "FAILED_PRECONDITION": Conflict,
    "RESOURCE_EXHAUSTED": RateLimited,
    "UNAVAILABLE": Unavailable,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "CANCELLED": Cancelled,
    "INTERNAL": Internal,
}

_REQUEST = "invalid_request_error"


def _invalid(code: str | None, status: int = 400) -> FaultRule:
    return FaultRule("INVALID_ARGUMENT", status, _REQUEST, code)


def _missing(code: str) -> FaultRule:
    return FaultRule("NOT_FOUND", 404, _REQUEST, code)


def _unavailable(code: str) -> FaultRule:
    return FaultRule("UNAVAILABLE", 503, "server_error", code, retryable=True)


FAULTS: Mapping[str, FaultRule] = {
    # The body and its fields
    "invalid_json": _invalid(None),
    "invalid_type": _invalid("invalid_type"),
    "invalid_value": _invalid("invalid_value"),
    "missing_required_parameter": _invalid("missing_required_parameter"),
    # Fields that do not go together, or messages that do not follow one another.
    "invalid_parameter": _invalid(None),
    "unsupported_parameter": _invalid("unsupported_parameter"),
    "unsupported_value": _invalid("unsupported_value"),
    "unknown_parameter": _invalid("unknown_parameter"),
    "invalid_json_schema": _invalid(None),
    # What the engine cannot hold an answer to
    "invalid_schema": _invalid("invalid_schema"),
    "invalid_function_parameters": _invalid("invalid_function_parameters"),
    "empty_array": _invalid("empty_array"),
    "empty_string": _invalid("empty_string"),
    "array_above_max_length": _invalid("array_above_max_length"),
    "string_above_max_length": _invalid("string_above_max_length"),
    "object_above_max_properties": _invalid("object_above_max_properties"),
    "integer_below_min_value": _invalid("integer_below_min_value"),
    "integer_above_max_value": _invalid("integer_above_max_value"),
    "decimal_below_min_value": _invalid("decimal_below_min_value"),
    "decimal_above_max_value": _invalid("decimal_above_max_value"),
    "context_length_exceeded": _invalid("context_length_exceeded"),
    # Images that it brings or names
    "invalid_image_url": _invalid("invalid_image_url"),
    "invalid_base64_image": _invalid("invalid_base64_image"),
    "unsupported_image_media_type": _invalid("unsupported_image_media_type"),
    "image_file_too_large": _invalid("image_file_too_large"),
    "empty_image_file": _invalid("empty_image_file"),
    "invalid_image_format": _invalid("invalid_image_format"),
    "image_parse_error": _invalid("image_parse_error"),
    "image_too_large": _invalid("image_too_large"),
    "body_too_large": _invalid("request_too_large", status=413),
    # More than is kept for later
    "object_too_large": _invalid("object_too_large"),
    # Idempotency keys
    "idempotency_key_reused": _invalid("idempotency_key_reused"),
    "idempotency_key_in_use": FaultRule("FAILED_PRECONDITION", 409, _REQUEST, "idempotency_key_in_use", True),
    # Who calls
    "missing_api_key": FaultRule("UNAUTHENTICATED", 401, _REQUEST, None),
    "invalid_api_key": FaultRule("UNAUTHENTICATED", 401, _REQUEST, "invalid_api_key"),
    "mismatched_organization": FaultRule("UNAUTHENTICATED", 401, _REQUEST, "mismatched_organization"),
    "mismatched_project": FaultRule("UNAUTHENTICATED", 401, _REQUEST, "mismatched_project"),
    "expired_api_key": FaultRule("UNAUTHENTICATED", 401, _REQUEST, "expired_api_key"),
    "ip_not_authorized": FaultRule("UNAUTHENTICATED", 401, _REQUEST, "ip_not_authorized"),
    "invalid_webhook_signature": FaultRule("UNAUTHENTICATED", 401, _REQUEST, "invalid_webhook_signature"),
    "invalid_service_token": FaultRule("UNAUTHENTICATED", 401, _REQUEST, "invalid_service_token"),
    "insufficient_permissions": FaultRule("PERMISSION_DENIED", 403, _REQUEST, "insufficient_permissions"),
    "missing_scope": FaultRule("PERMISSION_DENIED", 403, _REQUEST, "missing_scope"),
    # What is not there
    "unknown_url": FaultRule("NOT_FOUND", 404, _REQUEST, None),
    "method_not_allowed": FaultRule("INVALID_ARGUMENT", 405, _REQUEST, "method_not_allowed"),
    "model_not_found": _missing("model_not_found"),
    "key_not_found": _missing("key_not_found"),
    "organization_not_found": _missing("organization_not_found"),
    "project_not_found": _missing("project_not_found"),
    "user_not_found": _missing("user_not_found"),
    "service_account_not_found": _missing("service_account_not_found"),
    "invite_not_found": _missing("invite_not_found"),
    "rate_limit_not_found": _missing("rate_limit_not_found"),
    "spend_limit_not_found": _missing("spend_limit_not_found"),
    "spend_alert_not_found": _missing("spend_alert_not_found"),
    "usage_not_found": _missing("usage_not_found"),
    "invoice_not_found": _missing("invoice_not_found"),
    "completion_not_found": _missing("completion_not_found"),
    # Tenants in a state that does not admit the change
    "project_archived": _invalid("project_archived"),
    "last_owner": _invalid("last_owner"),
    "already_member": _invalid("already_member"),
    "invite_exists": _invalid("invite_exists"),
    "invite_accepted": _invalid("invite_accepted"),
    "invite_expired": _invalid("invite_expired"),
    # Limits
    "rate_limit_requests": FaultRule("RESOURCE_EXHAUSTED", 429, "requests", "rate_limit_exceeded", True),
    "rate_limit_tokens": FaultRule("RESOURCE_EXHAUSTED", 429, "tokens", "rate_limit_exceeded", True),
    "rate_limit_images": FaultRule("RESOURCE_EXHAUSTED", 429, "images", "rate_limit_exceeded", True),
    "rate_limit_audio": FaultRule("RESOURCE_EXHAUSTED", 429, "audio", "rate_limit_exceeded", True),
    "rate_limit_batch_tokens": FaultRule("RESOURCE_EXHAUSTED", 429, "tokens", "rate_limit_exceeded", True),
    "request_too_large": FaultRule("RESOURCE_EXHAUSTED", 429, "tokens", "rate_limit_exceeded"),
    "insufficient_quota": FaultRule("RESOURCE_EXHAUSTED", 429, "insufficient_quota", "insufficient_quota"),
    # The model must not be served: repeating helps only when its operator has given it a price.
    "model_not_priced": FaultRule("UNAVAILABLE", 503, "server_error", "model_not_priced"),
    # The platform
    "overloaded": _unavailable("overloaded"),
    # Its own class: a schema that keeps one replica busy would keep the next one busy too.
    "grammar_not_ready": FaultRule("DEADLINE_EXCEEDED", 503, "server_error", "overloaded", retryable=True),
    "no_replica": _unavailable("no_replica"),
    "replica_lost": _unavailable("replica_lost"),
    "not_ready": _unavailable("not_ready"),
    "shutting_down": _unavailable("shutting_down"),
    "service_unavailable": _unavailable("service_unavailable"),
    "database_unavailable": _unavailable("database_unavailable"),
    "spool_full": _unavailable("spool_full"),
    "spool_unwritable": _unavailable("spool_unwritable"),
    "duplicate_request": FaultRule("FAILED_PRECONDITION", 409, _REQUEST, "duplicate_request"),
    "timeout": FaultRule("DEADLINE_EXCEEDED", 504, "server_error", "timeout", retryable=True),
    "slow_client": FaultRule("CANCELLED", 499, _REQUEST, "slow_client"),
    "cancelled": FaultRule("CANCELLED", 499, _REQUEST, "cancelled"),
    "not_implemented": FaultRule("INTERNAL", 501, "server_error", "not_implemented"),
    "engine_failed": FaultRule("INTERNAL", 500, "server_error", "engine_failed", retryable=True),
    "internal": FaultRule("INTERNAL", 500, "server_error", "internal_error", retryable=True),
}
