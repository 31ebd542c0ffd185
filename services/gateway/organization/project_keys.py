"""/v1/organization/projects/{project_id}/api_keys: the keys of a project, which are made elsewhere."""

from typing import Any, Final

import msgspec

from modelplane.auth.v1.auth_pb2 import KEY_KIND_SERVICE_ACCOUNT
from modelplane.keys.v1.keys_api import KeysService
from modelplane.keys.v1.keys_pb2 import (
    OWNER_ACCESS_ACTIVE,
    OWNER_ACCESS_INACTIVE,
    OWNER_ACCESS_UNSPECIFIED,
    GetKeyRequest,
    Key,
    ListKeysRequest,
    RevokeKeyRequest,
)
from services.gateway.calls import Call
from services.gateway.organization.actors import ActorOf
from services.gateway.organization.paging import listed, parse_listing
from services.gateway.organization.places import project_of
from services.gateway.requests.values import one_of

ANY: Final = "any"
OWNER_ACCESS: Final = {"active": OWNER_ACCESS_ACTIVE, "inactive": OWNER_ACCESS_INACTIVE, ANY: OWNER_ACCESS_UNSPECIFIED}
_owner_access = one_of(*OWNER_ACCESS)


class ProjectKeys:
    """The endpoints. `actor_of` says who makes a call, for the audit log."""

    def __init__(self, keys: KeysService, actor_of: ActorOf) -> None:
        self._keys = keys
        self._actor_of = actor_of

    async def list_all(self, call: Call) -> None:
        """A page, the newest first; only those whose owners may or may not use the project, when asked for."""
        listing = parse_listing(call.query, own={"owner_project_access": _owner_access})
        access = OWNER_ACCESS[listing.values.get("owner_project_access", ANY)]
        found = await self._keys.list_keys(ListKeysRequest(**project_of(call), page=listing.page, owner_access=access))
        await call.respond(200, listed([key_object(key) for key in found.keys], found.has_more))

    async def get(self, call: Call) -> None:
        found = await self._keys.get_key(GetKeyRequest(**project_of(call), key_id=call.parameters["api_key_id"]))
        await call.respond(200, msgspec.json.encode(key_object(found.key)))

    async def delete(self, call: Call) -> None:
        key_id = call.parameters["api_key_id"]
        await self._keys.revoke_key(RevokeKeyRequest(**project_of(call), key_id=key_id, actor=self._actor_of(call)))
        gone = {"object": "organization.project.api_key.deleted", "id": key_id, "deleted": True}
        await call.respond(200, msgspec.json.encode(gone))


def owner_access(key: Key) -> str:
    """A key that nobody owns works for the project itself."""
    return "active" if key.owner_role or not key.owner_id else "inactive"


def key_object(key: Key) -> dict[str, Any]:
    """As OpenAI's API shows the key of a project."""
    return {
        "object": "organization.project.api_key",
        "id": key.id,
        "name": key.name,
        "redacted_value": key.redacted,
        "created_at": key.created_at,
        "last_used_at": key.last_used_at or None,
        "owner_project_access": owner_access(key),
        "owner": _owner(key),
    }


def _owner(key: Key) -> dict[str, Any]:
    if not key.owner_id:
        return {}
    owner = {
        "id": key.owner_id,
        "name": key.owner_name,
        "created_at": key.owner_created_at,
        "role": key.owner_role,
    }
    if key.kind == KEY_KIND_SERVICE_ACCOUNT:
        return {"type": "service_account", "service_account": owner}
    return {"type": "user", "user": {**owner, "email": key.owner_email}}
