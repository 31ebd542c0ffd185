"""/v1/organization/projects/{project_id}/model_permissions: which models a project may use."""

from typing import Any, Final

import msgspec

from modelplane.auth.v1.auth_pb2 import ModelPolicy
from modelplane.tenants.v1.tenants_api import TenantsService
from modelplane.tenants.v1.tenants_pb2 import GetProjectRequest, SetModelPolicyRequest
from services.gateway.calls import Call
from services.gateway.organization.actors import ActorOf
from services.gateway.organization.paging import MOST_BODY_BYTES
from services.gateway.organization.places import project_of
from services.gateway.requests.values import one_of, parse_fields, strings

MODES: Final = {"allow_list": ModelPolicy.MODE_ALLOW_LIST, "deny_list": ModelPolicy.MODE_DENY_LIST}
NAMES: Final = {mode: name for name, mode in MODES.items()}
MOST_MODELS: Final = 1000
BUILT: Final = {"mode": one_of(*MODES), "model_ids": strings(MOST_MODELS)}


class ModelPermissions:
    """The endpoints. `actor_of` says who makes a call, for the audit log."""

    def __init__(self, tenants: TenantsService, actor_of: ActorOf) -> None:
        self._tenants = tenants
        self._actor_of = actor_of

    async def get(self, call: Call) -> None:
        found = await self._tenants.get_project(GetProjectRequest(**project_of(call)))
        await call.respond(200, msgspec.json.encode(permissions_object(found.project.models)))

    async def update(self, call: Call) -> None:
        _, values = parse_fields(await call.body(MOST_BODY_BYTES), BUILT, {}, (), ("mode", "model_ids"))
        models = ModelPolicy(mode=MODES[values["mode"]], models=values["model_ids"])
        request = SetModelPolicyRequest(**project_of(call), models=models, actor=self._actor_of(call))
        updated = await self._tenants.set_model_policy(request)
        await call.respond(200, msgspec.json.encode(permissions_object(updated.project.models)))

    async def delete(self, call: Call) -> None:
        """From now on the project may use every model."""
        request = SetModelPolicyRequest(**project_of(call), actor=self._actor_of(call))
        await self._tenants.set_model_policy(request)
        gone = {"object": "project.model_permissions.deleted", "deleted": True}
        await call.respond(200, msgspec.json.encode(gone))


def permissions_object(models: ModelPolicy) -> dict[str, Any]:
    """As OpenAI's API shows them; it has no word for no restriction, which is to deny nothing."""
    return {
        "object": "project.model_permissions",
        "mode": NAMES.get(models.mode, "deny_list"),
        "model_ids": list(models.models),
    }
