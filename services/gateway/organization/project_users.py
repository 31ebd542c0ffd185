"""/v1/organization/projects/{project_id}/users: which members of the organisation work in a project."""

from typing import Any, Final

import msgspec

from modelplane.members.v1.members_api import MembersService
from modelplane.members.v1.members_pb2 import (
    AddProjectUserRequest,
    GetProjectUserRequest,
    ListProjectUsersRequest,
    ProjectUser,
    RemoveProjectUserRequest,
    UpdateProjectUserRequest,
)
from services.gateway.calls import Call
from services.gateway.organization.actors import ActorOf
from services.gateway.organization.paging import MOST_BODY_BYTES, listed, parse_listing
from services.gateway.organization.places import project_of
from services.gateway.requests.values import one_of, parse_fields, string

# OpenAI's two, and `viewer`, which changes nothing.
ROLES: Final = ("owner", "member", "viewer")
ROLE: Final = {"role": one_of(*ROLES)}
BUILT: Final = {"user_id": string, "email": string, **ROLE}


class ProjectUsers:
    """The endpoints. `actor_of` says who makes a call, for the audit log."""

    def __init__(self, members: MembersService, actor_of: ActorOf) -> None:
        self._members = members
        self._actor_of = actor_of

    async def list_all(self, call: Call) -> None:
        """A page, the newest first."""
        page = parse_listing(call.query).page
        found = await self._members.list_project_users(ListProjectUsersRequest(**project_of(call), page=page))
        await call.respond(200, listed([user_object(user) for user in found.users], found.has_more))

    async def create(self, call: Call) -> None:
        _, values = parse_fields(await call.body(MOST_BODY_BYTES), BUILT, {}, (), ("role",))
        added = await self._members.add_project_user(
            AddProjectUserRequest(**project_of(call), **values, actor=self._actor_of(call))
        )
        await call.respond(200, msgspec.json.encode(user_object(added.user)))

    async def get(self, call: Call) -> None:
        found = await self._members.get_project_user(GetProjectUserRequest(**_named(call)))
        await call.respond(200, msgspec.json.encode(user_object(found.user)))

    async def update(self, call: Call) -> None:
        _, values = parse_fields(await call.body(MOST_BODY_BYTES), ROLE, {}, (), ("role",))
        updated = await self._members.update_project_user(
            UpdateProjectUserRequest(**_named(call), **values, actor=self._actor_of(call))
        )
        await call.respond(200, msgspec.json.encode(user_object(updated.user)))

    async def delete(self, call: Call) -> None:
        named = _named(call)
        await self._members.remove_project_user(RemoveProjectUserRequest(**named, actor=self._actor_of(call)))
        gone = {"object": "organization.project.user.deleted", "id": named["user_id"], "deleted": True}
        await call.respond(200, msgspec.json.encode(gone))


def user_object(user: ProjectUser) -> dict[str, Any]:
    """As OpenAI's API shows a user of a project."""
    return {
        "object": "organization.project.user",
        "id": user.id,
        "name": user.name or None,
        "email": user.email,
        "role": user.role,
        "added_at": user.added_at,
    }


def _named(call: Call) -> Any:
    return {**project_of(call), "user_id": call.parameters["user_id"]}
