"""The control services as the gateway meets them, small enough to see through."""

import asyncio

from modelplane.auth.v1 import auth_pb2
from modelplane.billing.v1 import billing_pb2
from modelplane.ratelimit.v1 import ratelimit_pb2
from modelplane.tokenizer.v1 import tokenizer_pb2
from modelplane.usage.v1 import usage_pb2
from services.faults import Fault, InvalidRequest, NotFound, RateLimited, Unauthenticated

KEY = "sk-proj-good"
ADMIN_KEY = "sk-admin-good"


class FakeAuth:
    """Knows one project key and one admin key, and where it was last asked from."""

    def __init__(self) -> None:
        self.address = ""
        self.principals = {
            KEY: auth_pb2.Principal(
                organization_id="org-1", project_id="proj-1", key_id="key-1", kind=auth_pb2.KEY_KIND_PROJECT
            ),
            ADMIN_KEY: auth_pb2.Principal(organization_id="org-1", key_id="key-2", kind=auth_pb2.KEY_KIND_ADMIN),
        }

    async def authenticate(self, request: auth_pb2.AuthenticateRequest, /) -> auth_pb2.AuthenticateResponse:
        self.address = request.address
        if not request.key:
            raise Unauthenticated("missing_api_key", "You didn't provide an API key.")
        principal = self.principals.get(request.key)
        if principal is None:
            raise Unauthenticated("invalid_api_key", "Incorrect API key provided.")
        if request.organization not in ("", principal.organization_id):
            raise Unauthenticated("mismatched_organization", "The organization does not match the key.")
        return auth_pb2.AuthenticateResponse(principal=principal)


class FakeTokenizer:
    """A token per word, ten per image; `alias` is another name of `model`."""

    def __init__(self, model: str, alias: str, context_tokens: int = 1000) -> None:
        self.model = model
        self.alias = alias
        self.context_tokens = context_tokens
        self.rendered: list[tokenizer_pb2.RenderRequest] = []

    async def render(self, request: tokenizer_pb2.RenderRequest, /) -> tokenizer_pb2.RenderResponse:
        self.rendered.append(request)
        if request.model not in (self.model, self.alias):
            raise NotFound("model_not_found", f"The model '{request.model}' does not exist.", param="model")
        count = sum(len(message.content.split()) for message in request.messages)
        count += len(request.text.split()) + len(request.token_ids)
        parts = [part for message in request.messages for part in message.parts]
        images = sum(part.HasField("image") for part in parts)
        count += sum(len(part.text.split()) for part in parts) + images
        left = self.context_tokens - count - 9 * images
        if left <= 0 or request.max_output_tokens > left:
            raise InvalidRequest("context_length_exceeded", "Too long.", param="messages")
        prompt = tokenizer_pb2.Prompt(
            token_ids=range(count),
            model=self.model,
            max_output_tokens=request.max_output_tokens or left,
            image_tokens=9 * images,
            tool_format="hermes" if request.tools else "",
        )
        return tokenizer_pb2.RenderResponse(prompt=prompt)


class FakeRateLimit:
    """Admits everything, or refuses everything with `refusal`; keeps what was reserved, topped up and settled.

    Takes `output_estimate` output tokens for each request, or as many as it may have; a top-up takes as many again.
    """

    def __init__(self) -> None:
        self.refusal: Fault | None = None
        self.output_estimate: int | None = None
        # What every call to `top_up` waits for, and what it then fails with.
        self.top_up_gate = asyncio.Event()
        self.top_up_gate.set()
        self.top_up_failure: Fault | None = None
        self.reserved: dict[str, ratelimit_pb2.ReserveRequest] = {}
        self.taken: dict[str, int] = {}
        self.top_ups: list[ratelimit_pb2.TopUpRequest] = []
        self.settled: dict[str, int] = {}

    async def reserve(self, request: ratelimit_pb2.ReserveRequest, /) -> ratelimit_pb2.ReserveResponse:
        if self.refusal:
            raise self.refusal
        self.reserved[request.request_id] = request
        estimate = request.max_output_tokens if self.output_estimate is None else self.output_estimate
        self.taken[request.request_id] = request.input_tokens + estimate
        return ratelimit_pb2.ReserveResponse(
            reservation=ratelimit_pb2.Reservation(
                request_id=request.request_id,
                tokens=self.taken[request.request_id],
                requests_state=ratelimit_pb2.BucketState(limit=60, remaining=59, reset_ms=1000),
                tokens_state=ratelimit_pb2.BucketState(limit=1000, remaining=900, reset_ms=6000),
            )
        )

    async def top_up(self, request: ratelimit_pb2.TopUpRequest, /) -> ratelimit_pb2.TopUpResponse:
        self.top_ups.append(request)
        await self.top_up_gate.wait()
        if self.top_up_failure:
            raise self.top_up_failure
        taken = max(self.taken[request.request_id], request.tokens + (self.output_estimate or 0))
        self.taken[request.request_id] = taken
        return ratelimit_pb2.TopUpResponse(tokens=taken)

    async def settle(self, request: ratelimit_pb2.SettleRequest, /) -> ratelimit_pb2.SettleResponse:
        self.settled.setdefault(request.request_id, request.tokens)
        return ratelimit_pb2.SettleResponse()


class FakeBilling:
    """Keeps records in memory; the first `failures` calls to `record` fail.

    Holds everything, or refuses everything with `refusal`; with `steps` it holds so many output tokens at a time, and
    no more of them once `steps` are used up.
    """

    def __init__(self) -> None:
        self.failure: Fault | None = None
        self.failures = 0
        self.refusal: Fault | None = None
        self.steps: list[int] | None = None
        self.held: dict[str, billing_pb2.HoldRequest] = {}
        self.extended: list[billing_pb2.ExtendRequest] = []
        self.released: list[str] = []
        self.checkpoints: list[usage_pb2.Usage] = []
        self.usages: dict[str, usage_pb2.Usage] = {}

    async def hold(self, request: billing_pb2.HoldRequest, /) -> billing_pb2.HoldResponse:
        if self.refusal:
            raise self.refusal
        self.held[request.request_id] = request
        return billing_pb2.HoldResponse(
            output_tokens=request.max_output_tokens if self.steps is None else self.steps.pop(0)
        )

    async def extend(self, request: billing_pb2.ExtendRequest, /) -> billing_pb2.ExtendResponse:
        self.extended.append(request)
        if not self.steps:
            raise RateLimited("insufficient_quota", "You exceeded your current quota.")
        return billing_pb2.ExtendResponse(output_tokens=self.steps.pop(0))

    async def release(self, request: billing_pb2.ReleaseRequest, /) -> billing_pb2.ReleaseResponse:
        self.released.append(request.request_id)
        return billing_pb2.ReleaseResponse()

    async def checkpoint(self, request: billing_pb2.CheckpointRequest, /) -> billing_pb2.CheckpointResponse:
        self.checkpoints += request.usages
        return billing_pb2.CheckpointResponse()

    async def record(self, request: billing_pb2.RecordRequest, /) -> billing_pb2.RecordResponse:
        if self.failure and self.failures > 0:
            self.failures -= 1
            raise self.failure
        for usage in request.usages:
            self.usages.setdefault(usage.request_id, usage)
        return billing_pb2.RecordResponse()

    async def get_usage(self, request: billing_pb2.GetUsageRequest, /) -> billing_pb2.GetUsageResponse:
        if request.request_id not in self.usages:
            raise NotFound("usage_not_found", "No such usage.")
        return billing_pb2.GetUsageResponse(usage=self.usages[request.request_id])
