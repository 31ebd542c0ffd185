"""Usage records for tests."""

from uuid import uuid4

from modelplane.billing.v1 import billing_pb2
from modelplane.usage.v1 import usage_pb2


def usage(request_id: str = "", output_tokens: int = 7) -> usage_pb2.Usage:
    """A record with every field set; without an id it gets one of its own."""
    return usage_pb2.Usage(
        request_id=request_id or f"req_{uuid4().hex}",
        attribution=usage_pb2.Attribution(
            organization_id="org-1", project_id="proj_1", key_id="key_1", user_id="user\t\\é"
        ),
        model="smollm2-135m-instruct",
        service_tier="default",
        input_tokens=30,
        cached_input_tokens=16,
        output_tokens=output_tokens,
        reasoning_tokens=2,
        outcome=usage_pb2.OUTCOME_COMPLETED,
        started_at_ms=1_700_000_000_000,
        finished_at_ms=1_700_000_001_234,
        operation="chat.completions",
    )


def recording(*usages: usage_pb2.Usage) -> billing_pb2.RecordRequest:
    return billing_pb2.RecordRequest(usages=usages)


def asking(request_id: str, organization_id: str = "org-1") -> billing_pb2.GetUsageRequest:
    return billing_pb2.GetUsageRequest(organization_id=organization_id, request_id=request_id)
