"""Envoy's rate limit protocol: the same limits for requests that pass somebody else's Envoy and not our gateway.

A descriptor of the domain `modelplane` names `organization` and `model`, and may name `project`, `usage_tier` (Free
without), `limits` (what was set in place of the tier's, as `services.auth.envoy` writes it) and `unit`. As in Envoy's
reference service, what nobody has limits for is let through: another domain, or a descriptor that names no
organisation or no model.

Keeps true: the descriptors of a call are taken all or none; nothing stays open after the answer, so that nobody has to
settle it.
"""

import binascii
from base64 import b64decode
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from envoy.config.core.v3.base_pb2 import HeaderValue
from envoy.extensions.common.ratelimit.v3.ratelimit_pb2 import RateLimitDescriptor
from envoy.service.ratelimit.v3.rls_pb2 import RateLimitRequest, RateLimitResponse
from google.protobuf.message import DecodeError
from prometheus_client import Counter

from modelplane.ratelimit.v1.ratelimit_pb2 import BucketState, DescribeLimitsRequest, ReserveRequest
from services import telemetry
from services.faults import RateLimited
from services.http_faults import error_body, error_headers
from services.rate_headers import rate_headers
from services.ratelimit.buckets import Buckets, Correction, Level, Need, Short, Taken
from services.ratelimit.limits import DAILY, DIMENSIONS, Plan, tightest
from services.ratelimit.refusals import refusal, state

DOMAIN: Final = "modelplane"

# What a descriptor's hits are.
REQUESTS: Final = "requests"
TOKENS: Final = "tokens"
# Counted whatever is left, because it was used already: for Envoy's `apply_on_stream_done`.
TOKENS_USED: Final = "tokens_used"
UNITS: Final = (REQUESTS, TOKENS, TOKENS_USED)

_MOST_UINT32: Final = 2**32 - 1
_WORDS: Final = {dimension: word for word, dimension in DIMENSIONS.items()}

Plans = Callable[[ReserveRequest], Plan]
Status = Any  # RateLimitResponse.DescriptorStatus; the package has no types

log = telemetry.logger(__name__)

DESCRIPTORS = Counter(
    "modelplane_envoy_descriptors",
    "Descriptors that other Envoys asked about, by outcome: granted, unknown or the fault.",
    ("outcome",),
)


class Asked(NamedTuple):
    """A descriptor of ours."""

    request: ReserveRequest
    unit: str
    hits: int


async def answer(buckets: Buckets, plans: Plans, request: RateLimitRequest) -> RateLimitResponse:
    """One status for each descriptor, in their order, and the headers and body for the client."""
    response = RateLimitResponse(overall_code=RateLimitResponse.OK)
    taken: list[Correction] = []
    levels: dict[str, list[Level]] = {REQUESTS: [], TOKENS: []}
    for descriptor in request.descriptors:
        status = response.statuses.add(code=RateLimitResponse.OK)
        asked = read(descriptor, request.hits_addend or 1) if request.domain == DOMAIN else None
        if asked is None:
            DESCRIPTORS.labels("unknown").inc()
            continue
        needs = _needs(plans(asked.request), asked)
        if asked.unit == TOKENS_USED:
            await buckets.extend(needs)
            DESCRIPTORS.labels("granted").inc()
            continue
        decision = await buckets.take(needs)
        _describe(status, needs, decision.levels)
        if isinstance(decision, Short):
            # What was taken for the descriptors before it.
            await buckets.settle(taken)
            fault = refusal(asked.request.model, needs, decision)
            DESCRIPTORS.labels(fault.reason).inc()
            return _refused(response, status, fault, len(request.descriptors))
        DESCRIPTORS.labels("granted").inc()
        back = _back(needs, decision)
        if asked.hits:
            taken += back
        else:
            # It was only asked whether there is anything left.
            await buckets.settle(back)
        levels[asked.unit] += decision.levels
    states = (BucketState(**state(tightest(levels[unit]))) for unit in (REQUESTS, TOKENS))
    for name, value in rate_headers(*states).items():
        response.response_headers_to_add.append(HeaderValue(key=name, value=value))
    return response


def read(descriptor: RateLimitDescriptor, hits: int) -> Asked | None:
    """What it asks for, with the call's `hits` unless it has its own; None when it is none of ours."""
    named = {entry.key: entry.value for entry in descriptor.entries}
    unit = named.get("unit") or REQUESTS
    if not named.get("organization") or not named.get("model") or unit not in UNITS:
        return None
    try:
        tier = int(named.get("usage_tier") or 0)
        limits = DescribeLimitsRequest.FromString(b64decode(named.get("limits", ""), b"-_", validate=True))
        request = ReserveRequest(
            organization_id=named["organization"],
            project_id=named.get("project", ""),
            model=named["model"],
            usage_tier=tier,
            overrides=limits.overrides,
        )
    except (ValueError, binascii.Error, DecodeError) as error:
        log.warning("a descriptor of another Envoy cannot be read", error=str(error), keys=sorted(named))
        return None
    if descriptor.HasField("hits_addend"):
        hits = descriptor.hits_addend.value
    return Asked(request, unit, hits)


def _needs(plan: Plan, asked: Asked) -> list[Need]:
    # Nothing is asked for with one, which is given back: so a bucket that is used up says so, and for how long.
    hits = asked.hits if asked.unit == TOKENS_USED else max(1, asked.hits)
    requests = [Need(key, rate, hits) for key, rate, _ in plan.requests]
    # Who names no project is bound by what the organisation has alone.
    return [need for need in (requests if asked.unit == REQUESTS else plan.token_needs(hits)) if need.key.owner_id]


def _back(needs: Sequence[Need], taken: Taken) -> list[Correction]:
    return [Correction(key, rate, claim, 0) for (key, rate, _), claim in zip(needs, taken.claims, strict=True)]


def _describe(status: Status, needs: Sequence[Need], levels: Sequence[Level]) -> None:
    """The tightest of the buckets; nothing when nothing is limited."""
    if (level := tightest(levels)) is None:
        return
    dimension = needs[levels.index(level)].key.dimension
    unit = RateLimitResponse.RateLimit.DAY if dimension in DAILY else RateLimitResponse.RateLimit.MINUTE
    status.current_limit.name = _WORDS[dimension]
    status.current_limit.unit = unit
    status.current_limit.requests_per_unit = min(level.limit, _MOST_UINT32)
    status.limit_remaining = min(level.remaining, _MOST_UINT32)
    status.duration_until_reset.FromNanoseconds(level.until_full_ns)


def _refused(response: RateLimitResponse, status: Status, fault: RateLimited, descriptors: int) -> RateLimitResponse:
    response.overall_code = status.code = RateLimitResponse.OVER_LIMIT
    # Of those that were not asked about any more.
    for _ in range(descriptors - len(response.statuses)):
        response.statuses.add(code=RateLimitResponse.OK)
    headers = [("content-type", "application/json")]
    headers += [(name.decode("latin-1"), value.decode("latin-1")) for name, value in error_headers(fault)]
    for name, value in headers:
        response.response_headers_to_add.append(HeaderValue(key=name, value=value))
    response.raw_body = error_body(fault)
    return response
