"""/v1/organization/users: the members of the organisation that the key belongs to."""

from typing import Any, Final

import msgspec

from modelplane.members.v1.members_api import MembersService
from modelplane.members.v1.members_pb2 import (
    GetUserRequest,
    ListUsersRequest,
    RemoveUserRequest,
    UpdateUserRequest,
    User,
)
from services.gateway.calls import Call
from services.gateway.organization.actors import ActorOf
from services.gateway.organization.paging import MOST_BODY_BYTES, listed, parse_listing
from services.gateway.requests.values import one_of, parse_fields

# OpenAI's two, and `viewer`, which sees even less than a reader.
ROLES: Final = ("owner", "reader", "viewer")
BUILT: Final = {"role": one_of(*ROLES)}
NOT_BUILT: Final = ("role_id", "technical_level", "developer_persona")


class Users:
    """The endpoints. `actor_of` says who makes a call, for the audit log."""

    def __init__(self, members: MembersService, actor_of: ActorOf) -> None:
        self._members = members
        self._actor_of = actor_of

    async def list_all(self, call: Call) -> None:
        """A page, the newest members first; of those with `emails` only, when there are any."""
        listing = parse_listing(call.query, arrays=("emails",))
        request = ListUsersRequest(
            organization_id=call.caller.organization_id, page=listing.page, emails=listing.arrays["emails"]
        )
        found = await self._members.list_users(request)
        await call.respond(200, listed([user_object(user) for user in found.users], found.has_more))

    async def get(self, call: Call) -> None:
        request = GetUserRequest(organization_id=call.caller.organization_id, user_id=call.parameters["user_id"])
        found = await self._members.get_user(request)
        await call.respond(200, msgspec.json.encode(user_object(found.user)))

    async def update(self, call: Call) -> None:
        _, values = parse_fields(await call.body(MOST_BODY_BYTES), BUILT, {}, NOT_BUILT, ("role",))
        request = UpdateUserRequest(
            organization_id=call.caller.organization_id,
            user_id=call.parameters["user_id"],
            role=values["role"],
            actor=self._actor_of(call),
        )
        updated = await self._members.update_user(request)
        await call.respond(200, msgspec.json.encode(user_object(updated.user)))

    async def delete(self, call: Call) -> None:
        user_id = call.parameters["user_id"]
        request = RemoveUserRequest(
            organization_id=call.caller.organization_id, user_id=user_id, actor=self._actor_of(call)
        )
        await self._members.remove_user(request)
        gone = {"object": "organization.user.deleted", "id": user_id, "deleted": True}
        await call.respond(200, msgspec.json.encode(gone))


def user_object(user: User) -> dict[str, Any]:
    """As OpenAI's API shows a user, without what nobody keeps here."""
    projects = [{"id": one.project_id, "name": one.project_name, "role": one.role} for one in user.projects]
    person = {"id": user.id, "email": user.email, "name": user.name or None}
    return {
        "object": "organization.user",
        **person,
        "role": user.role,
        "added_at": user.added_at,
        "created": user.created_at,
        "user": {"object": "user", **person},
        "is_service_account": False,
        "api_key_last_used_at": user.key_last_used_at or None,
        "projects": {"object": "list", "data": projects},
    }
