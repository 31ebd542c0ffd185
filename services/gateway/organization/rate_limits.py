"""/v1/organization/projects/{project_id}/rate_limits: the limits in force in a project, model by model.

A project may have less than its organisation and never more: there is no more.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from modelplane.limits.v1 import limits_pb2
from modelplane.limits.v1.limits_pb2 import Override
from modelplane.ratelimit.v1.ratelimit_api import RateLimitService
from modelplane.ratelimit.v1.ratelimit_pb2 import DescribeLimitsRequest, ModelLimits
from modelplane.tenants.v1.tenants_api import TenantsService
from modelplane.tenants.v1.tenants_pb2 import GetLimitsRequest, SetLimitsRequest
from services.faults import NotFound
from services.gateway.calls import Call
from services.gateway.organization.actors import ActorOf
from services.gateway.organization.paging import MOST_BODY_BYTES, listed, parse_listing, within_page
from services.gateway.organization.places import project_of
from services.gateway.requests.values import integer, parse_fields, within

PREFIX: Final = "rl-"
# The API must show a number also where there is no limit: the greatest that every JSON parser can hold.
UNLIMITED: Final = 2**53 - 1
# OpenAI's words; it has none for the tokens of a day.
FIELDS: Final[Mapping[str, limits_pb2.Dimension]] = {
    "max_requests_per_1_minute": limits_pb2.DIMENSION_REQUESTS_PER_MINUTE,
    "max_tokens_per_1_minute": limits_pb2.DIMENSION_TOKENS_PER_MINUTE,
    "max_images_per_1_minute": limits_pb2.DIMENSION_IMAGES_PER_MINUTE,
    "max_audio_megabytes_per_1_minute": limits_pb2.DIMENSION_AUDIO_MEGABYTES_PER_MINUTE,
    "max_requests_per_1_day": limits_pb2.DIMENSION_REQUESTS_PER_DAY,
    "batch_1_day_max_input_tokens": limits_pb2.DIMENSION_BATCH_TOKENS_PER_DAY,
}
ALWAYS: Final = ("max_requests_per_1_minute", "max_tokens_per_1_minute")
BUILT: Final = dict.fromkeys(FIELDS, integer(0, UNLIMITED))


class RateLimits:
    """The endpoints. `actor_of` says who makes a call, for the audit log."""

    def __init__(self, tenants: TenantsService, ratelimit: RateLimitService, actor_of: ActorOf) -> None:
        self._tenants = tenants
        self._ratelimit = ratelimit
        self._actor_of = actor_of

    async def list_all(self, call: Call) -> None:
        """A page, by the names of the models."""
        page = parse_listing(call.query, limit=100, ascending=True).page
        objects, has_more = within_page([limit_object(limits) for limits in await self._limits(call)], page)
        await call.respond(200, listed(objects, has_more))

    async def update(self, call: Call) -> None:
        """Of the model's group, when it shares its limits with other models."""
        _, values = parse_fields(await call.body(MOST_BODY_BYTES), BUILT, {}, (), ())
        model = call.parameters["model"]
        before = _of_model(model, await self._limits(call))
        allowed = _in_force(before, limits_pb2.SCOPE_ORGANIZATION)
        for name, value in values.items():
            within(name, "integer", value, 0, allowed.get(FIELDS[name], UNLIMITED))
        if values:
            overrides = [
                Override(scope=limits_pb2.SCOPE_PROJECT, model=before.group, dimension=FIELDS[name], limit=value)
                for name, value in values.items()
            ]
            await self._tenants.set_limits(
                SetLimitsRequest(**project_of(call), overrides=overrides, actor=self._actor_of(call))
            )
        after = _of_model(model, await self._limits(call))
        await call.respond(200, msgspec.json.encode(limit_object(after)))

    async def _limits(self, call: Call) -> list[ModelLimits]:
        found = await self._tenants.get_limits(GetLimitsRequest(**project_of(call)))
        described = await self._ratelimit.describe_limits(
            DescribeLimitsRequest(usage_tier=found.usage_tier, overrides=found.overrides)
        )
        return list(described.models)


def _of_model(model: str, limits: list[ModelLimits]) -> ModelLimits:
    for candidate in limits:
        if candidate.model == model:
            return candidate
    raise NotFound("rate_limit_not_found", f"No such rate limit: '{PREFIX}{model}'.")


def _in_force(limits: ModelLimits, scope: limits_pb2.Scope) -> dict[limits_pb2.Dimension, int]:
    return {limit.dimension: limit.limit for limit in limits.limits if limit.scope == scope}


def limit_object(limits: ModelLimits) -> dict[str, Any]:
    """As OpenAI's API shows the limits of a project for a model."""
    own = _in_force(limits, limits_pb2.SCOPE_PROJECT)
    shown = {name: own[dimension] for name, dimension in FIELDS.items() if dimension in own}
    return {
        "object": "project.rate_limit",
        "id": f"{PREFIX}{limits.model}",
        "model": limits.model,
        **dict.fromkeys(ALWAYS, UNLIMITED),
        **shown,
    }
