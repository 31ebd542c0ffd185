"""/v1/organization/admin_api_keys: the keys that administer the organisation, the caller's own among them."""

import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from modelplane.auth.v1.auth_pb2 import KEY_KIND_ADMIN
from modelplane.keys.v1.keys_api import KeysService
from modelplane.keys.v1.keys_pb2 import CreateKeyRequest, GetKeyRequest, Key, ListKeysRequest, RevokeKeyRequest
from services.gateway.calls import Call
from services.gateway.organization.actors import ActorOf
from services.gateway.organization.paging import MOST_BODY_BYTES, listed, parse_listing
from services.gateway.requests.values import integer, parse_fields, string

YEAR_S: Final = 365 * 24 * 60 * 60
BUILT: Final = {"name": string, "expires_in_seconds": integer(1, YEAR_S)}


class AdminKeys:
    """The endpoints. `actor_of` says who makes a call, for the audit log; `clock` gives seconds of the epoch."""

    def __init__(self, keys: KeysService, actor_of: ActorOf, clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._actor_of = actor_of
        self._clock = clock

    async def list_all(self, call: Call) -> None:
        """A page, the oldest first."""
        page = parse_listing(call.query, ascending=True).page
        found = await self._keys.list_keys(ListKeysRequest(organization_id=call.caller.organization_id, page=page))
        await call.respond(200, listed([key_object(key) for key in found.keys], found.has_more))

    async def create(self, call: Call) -> None:
        """For whom the calling key belongs to, and for no more than that may do. The secret is in this answer
        alone."""
        _, values = parse_fields(await call.body(MOST_BODY_BYTES), BUILT, {}, (), ("name",))
        lifetime_s = values.get("expires_in_seconds", 0)
        created = await self._keys.create_key(
            CreateKeyRequest(
                organization_id=call.caller.organization_id,
                kind=KEY_KIND_ADMIN,
                name=values["name"],
                owner_id=call.caller.owner_id,
                access=call.caller.access,
                scopes=call.caller.scopes,
                expires_at=int(self._clock()) + lifetime_s if lifetime_s else 0,
                actor=self._actor_of(call),
            )
        )
        await call.respond(200, msgspec.json.encode({**key_object(created.key), "value": created.secret}))

    async def get(self, call: Call) -> None:
        found = await self._keys.get_key(GetKeyRequest(**_named(call)))
        await call.respond(200, msgspec.json.encode(key_object(found.key)))

    async def delete(self, call: Call) -> None:
        """From then on the key does not work, even while the database is down."""
        named = _named(call)
        await self._keys.revoke_key(RevokeKeyRequest(**named, kind=KEY_KIND_ADMIN, actor=self._actor_of(call)))
        gone = {"object": "organization.admin_api_key.deleted", "id": named["key_id"], "deleted": True}
        await call.respond(200, msgspec.json.encode(gone))


def key_object(key: Key) -> dict[str, Any]:
    """As OpenAI's API shows an admin key."""
    owner = {
        "type": "user",
        "object": "organization.user",
        "id": key.owner_id,
        "name": key.owner_name,
        "created_at": key.owner_created_at,
        "role": key.owner_role,
    }
    return {
        "object": "organization.admin_api_key",
        "id": key.id,
        "name": key.name,
        "redacted_value": key.redacted,
        "created_at": key.created_at,
        "last_used_at": key.last_used_at or None,
        "expires_at": key.expires_at or None,
        "owner": owner if key.owner_id else {},
    }


def _named(call: Call) -> Any:
    return {"organization_id": call.caller.organization_id, "key_id": call.parameters["key_id"]}
