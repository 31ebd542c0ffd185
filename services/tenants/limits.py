"""Sets and shows the limits that take the place of the usage tier's."""

from collections.abc import Mapping
from itertools import groupby

from modelplane.limits.v1 import limits_pb2
from modelplane.tenants.v1 import tenants_pb2 as pb
from services.tenants import checks, lookups
from services.tenants.store import TenantsStore

# As the API calls them; it has no name for the tokens of a day.
FIELDS: Mapping[int, str] = {
    limits_pb2.DIMENSION_REQUESTS_PER_MINUTE: "max_requests_per_1_minute",
    limits_pb2.DIMENSION_REQUESTS_PER_DAY: "max_requests_per_1_day",
    limits_pb2.DIMENSION_TOKENS_PER_MINUTE: "max_tokens_per_1_minute",
    limits_pb2.DIMENSION_TOKENS_PER_DAY: "max_tokens_per_1_day",
    limits_pb2.DIMENSION_IMAGES_PER_MINUTE: "max_images_per_1_minute",
    limits_pb2.DIMENSION_AUDIO_MEGABYTES_PER_MINUTE: "max_audio_megabytes_per_1_minute",
    limits_pb2.DIMENSION_BATCH_TOKENS_PER_DAY: "batch_1_day_max_input_tokens",
}


class Limits:
    """The contract's part about limits."""

    def __init__(self, store: TenantsStore) -> None:
        self._store = store

    async def get_limits(self, request: pb.GetLimitsRequest, /) -> pb.GetLimitsResponse:
        async with self._store.transaction() as records:
            organization = await lookups.organization(records, request.organization_id)
            if request.project_id:
                await lookups.project(records, request.organization_id, request.project_id)
            overrides = await records.limits.all(request.organization_id, request.project_id)
        return pb.GetLimitsResponse(usage_tier=organization.usage_tier, overrides=overrides)

    async def set_limits(self, request: pb.SetLimitsRequest, /) -> pb.SetLimitsResponse:
        """In the audit log each model's limits are one event."""
        organization_id, project_id = request.organization_id, request.project_id
        scope = limits_pb2.SCOPE_PROJECT if project_id else limits_pb2.SCOPE_ORGANIZATION
        changed = checks.overrides(request.overrides, scope)
        async with self._store.transaction() as records:
            await lookups.active_owner(records, organization_id, project_id)
            if request.clear:
                changed = await records.limits.clear(organization_id, project_id, changed)
            else:
                await records.limits.set(organization_id, project_id, changed)
            changed.sort(key=lambda override: (override.model, override.dimension))
            for model, group in groupby(changed, key=lambda override: override.model):
                limits = {FIELDS[override.dimension]: override.limit for override in group}
                await records.audit(
                    "rate_limit.deleted" if request.clear else "rate_limit.updated",
                    organization_id,
                    request.actor,
                    f"rl-{model}",
                    project_id=project_id,
                    **({"data": limits} if request.clear else {"changes_requested": limits}),
                )
        return pb.SetLimitsResponse()
