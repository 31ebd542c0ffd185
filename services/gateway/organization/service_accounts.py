"""/v1/organization/projects/{project_id}/service_accounts: the owners of keys who are no people."""

from typing import Any, Final

import msgspec

from modelplane.auth.v1.auth_pb2 import ACCESS_ALL, ACCESS_RESTRICTED, KEY_KIND_SERVICE_ACCOUNT
from modelplane.keys.v1.keys_api import KeysService
from modelplane.keys.v1.keys_pb2 import (
    CreateKeyRequest,
    CreateServiceAccountRequest,
    DeleteServiceAccountRequest,
    GetServiceAccountRequest,
    Key,
    ListServiceAccountsRequest,
    ServiceAccount,
    UpdateServiceAccountRequest,
)
from services.gateway.calls import Call
from services.gateway.organization.actors import ActorOf
from services.gateway.organization.paging import MOST_BODY_BYTES, listed, parse_listing
from services.gateway.organization.places import project_of
from services.gateway.requests.values import boolean, one_of, parse_fields, string, strings

MOST_SCOPES: Final = 100
KEY_NAME: Final = "Secret Key"
CREATED: Final = {"name": string, "create_service_account_only": boolean}
UPDATED: Final = {"name": string, "role": one_of("member", "owner")}
KEY_CREATED: Final = {"name": string, "scopes": strings(MOST_SCOPES)}


class ServiceAccounts:
    """The endpoints. `actor_of` says who makes a call, for the audit log."""

    def __init__(self, keys: KeysService, actor_of: ActorOf) -> None:
        self._keys = keys
        self._actor_of = actor_of

    async def list_all(self, call: Call) -> None:
        """A page, the newest first."""
        request = ListServiceAccountsRequest(**project_of(call), page=parse_listing(call.query).page)
        found = await self._keys.list_service_accounts(request)
        await call.respond(200, listed([account_object(one) for one in found.service_accounts], found.has_more))

    async def create(self, call: Call) -> None:
        """A member with a key, whose secret is in this answer alone; or neither a role nor a key."""
        _, values = parse_fields(await call.body(MOST_BODY_BYTES), CREATED, {}, (), ("name",))
        is_alone = values.get("create_service_account_only", False)
        created = await self._keys.create_service_account(
            CreateServiceAccountRequest(
                **project_of(call),
                name=values["name"],
                role="none" if is_alone else "member",
                with_key=not is_alone,
                actor=self._actor_of(call),
            )
        )
        key = None if is_alone else secret_object(created.key, created.secret)
        await call.respond(200, msgspec.json.encode({**account_object(created.service_account), "api_key": key}))

    async def get(self, call: Call) -> None:
        found = await self._keys.get_service_account(GetServiceAccountRequest(**_named(call)))
        await call.respond(200, msgspec.json.encode(account_object(found.service_account)))

    async def update(self, call: Call) -> None:
        _, values = parse_fields(await call.body(MOST_BODY_BYTES), UPDATED, {}, (), ())
        request = UpdateServiceAccountRequest(**_named(call), **values, actor=self._actor_of(call))
        updated = await self._keys.update_service_account(request)
        await call.respond(200, msgspec.json.encode(account_object(updated.service_account)))

    async def delete(self, call: Call) -> None:
        """Its keys stop working too."""
        named = _named(call)
        await self._keys.delete_service_account(DeleteServiceAccountRequest(**named, actor=self._actor_of(call)))
        gone = {
            "object": "organization.project.service_account.deleted",
            "id": named["service_account_id"],
            "deleted": True,
        }
        await call.respond(200, msgspec.json.encode(gone))

    async def create_key(self, call: Call) -> None:
        """One more key; restricted when `scopes` are given. The secret is in this answer alone."""
        body = await call.body(MOST_BODY_BYTES)
        _, values = parse_fields(body or b"{}", KEY_CREATED, {}, (), ())
        created = await self._keys.create_key(
            CreateKeyRequest(
                **project_of(call),
                kind=KEY_KIND_SERVICE_ACCOUNT,
                owner_id=call.parameters["service_account_id"],
                name=values.get("name", KEY_NAME),
                access=ACCESS_RESTRICTED if "scopes" in values else ACCESS_ALL,
                scopes=values.get("scopes", ()),
                actor=self._actor_of(call),
            )
        )
        await call.respond(200, msgspec.json.encode(secret_object(created.key, created.secret)))


def account_object(account: ServiceAccount) -> dict[str, Any]:
    """As OpenAI's API shows a service account."""
    return {
        "object": "organization.project.service_account",
        "id": account.id,
        "name": account.name,
        "role": account.role,
        "created_at": account.created_at,
    }


def secret_object(key: Key, secret: str) -> dict[str, Any]:
    """As OpenAI's API shows the key of a service account when it is made."""
    return {
        "object": "organization.project.service_account.api_key",
        "id": key.id,
        "name": key.name,
        "created_at": key.created_at,
        "value": secret,
    }


def _named(call: Call) -> Any:
    return {**project_of(call), "service_account_id": call.parameters["service_account_id"]}
