"""/v1/organization/spend_limit and the same of a project: what may be spent in a month."""

from typing import Any, Final

import msgspec

from modelplane.tenants.v1.tenants_api import TenantsService
from modelplane.tenants.v1.tenants_pb2 import (
    DeleteSpendLimitRequest,
    GetSpendLimitRequest,
    SetSpendLimitRequest,
    SpendLimit,
)
from services.asked import MOST_CENTS
from services.faults import NotFound
from services.gateway.calls import Call
from services.gateway.organization.actors import ActorOf
from services.gateway.organization.paging import MOST_BODY_BYTES
from services.gateway.organization.places import project_of
from services.gateway.requests.values import integer, one_of, parse_fields

CURRENCY: Final = "USD"
INTERVAL: Final = "month"
BUILT: Final = {"threshold_amount": integer(1, MOST_CENTS), "currency": one_of(CURRENCY), "interval": one_of(INTERVAL)}


class SpendLimits:
    """The endpoints, of the organisation where the path names no project. `actor_of` says who makes a call, for the
    audit log."""

    def __init__(self, tenants: TenantsService, actor_of: ActorOf) -> None:
        self._tenants = tenants
        self._actor_of = actor_of

    async def get(self, call: Call) -> None:
        found = await self._tenants.get_spend_limit(GetSpendLimitRequest(**project_of(call)))
        if not found.HasField("spend_limit"):
            raise NotFound("spend_limit_not_found", "There is no spend limit.")
        await call.respond(200, msgspec.json.encode(_shown(call, found.spend_limit)))

    async def update(self, call: Call) -> None:
        _, values = parse_fields(await call.body(MOST_BODY_BYTES), BUILT, {}, (), tuple(BUILT))
        limit = SpendLimit(threshold_cents=values["threshold_amount"])
        updated = await self._tenants.set_spend_limit(
            SetSpendLimitRequest(**project_of(call), spend_limit=limit, actor=self._actor_of(call))
        )
        await call.respond(200, msgspec.json.encode(_shown(call, updated.spend_limit)))

    async def delete(self, call: Call) -> None:
        await self._tenants.delete_spend_limit(DeleteSpendLimitRequest(**project_of(call), actor=self._actor_of(call)))
        gone = {"object": f"{owner_kind(call)}.spend_limit.deleted", "deleted": True}
        await call.respond(200, msgspec.json.encode(gone))


def owner_kind(call: Call) -> str:
    """Whose the limits and alerts are that a call is about, as names of objects begin."""
    return "project" if "project_id" in call.parameters else "organization"


def _shown(call: Call, limit: SpendLimit) -> dict[str, Any]:
    """As OpenAI's API shows a limit: it is enforcing when it is what refuses requests."""
    return {
        "object": f"{owner_kind(call)}.spend_limit",
        "threshold_amount": limit.threshold_cents,
        "currency": CURRENCY,
        "interval": INTERVAL,
        "enforcement": {"status": "enforcing" if limit.enforcing else "inactive"},
    }
