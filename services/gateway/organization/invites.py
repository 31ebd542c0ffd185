"""/v1/organization/invites: the addresses that were asked to join the organisation, and whether they have."""

from typing import Any, Final

import msgspec

from modelplane.admin.v1.admin_pb2 import Page
from modelplane.members.v1.members_api import MembersService
from modelplane.members.v1.members_pb2 import (
    CreateInviteRequest,
    DeleteInviteRequest,
    GetInviteRequest,
    Invite,
    ListInvitesRequest,
    ProjectRole,
)
from modelplane.tenants.v1.tenants_api import TenantsService
from modelplane.tenants.v1.tenants_pb2 import ListProjectsRequest
from services.gateway.calls import Call
from services.gateway.organization import project_users, users
from services.gateway.organization.actors import ActorOf
from services.gateway.organization.paging import MOST_BODY_BYTES, listed, parse_listing
from services.gateway.requests.values import Json, members, one_of, parse_fields, string, too_long, wrong_type

MOST_PROJECTS: Final = 100
_PROJECT: Final = {"id": string, "role": one_of(*project_users.ROLES)}


class Invites:
    """The endpoints. `actor_of` says who makes a call, for the audit log."""

    def __init__(self, members: MembersService, tenants: TenantsService, actor_of: ActorOf) -> None:
        self._members = members
        self._tenants = tenants
        self._actor_of = actor_of

    async def list_all(self, call: Call) -> None:
        """A page, the newest first."""
        page = parse_listing(call.query).page
        request = ListInvitesRequest(organization_id=call.caller.organization_id, page=page)
        found = await self._members.list_invites(request)
        await call.respond(200, listed([invite_object(invite) for invite in found.invites], found.has_more))

    async def create(self, call: Call) -> None:
        """Without `projects`, to the organisation's oldest one; with an empty array, to none."""
        _, values = parse_fields(await call.body(MOST_BODY_BYTES), BUILT, {}, (), ("email", "role"))
        organization_id = call.caller.organization_id
        projects = values.pop("projects", None)
        if projects is None:
            projects = await self._default_projects(organization_id)
        request = CreateInviteRequest(
            organization_id=organization_id, **values, projects=projects, actor=self._actor_of(call)
        )
        created = await self._members.create_invite(request)
        await call.respond(200, msgspec.json.encode(invite_object(created.invite)))

    async def get(self, call: Call) -> None:
        request = GetInviteRequest(organization_id=call.caller.organization_id, invite_id=call.parameters["invite_id"])
        found = await self._members.get_invite(request)
        await call.respond(200, msgspec.json.encode(invite_object(found.invite)))

    async def delete(self, call: Call) -> None:
        invite_id = call.parameters["invite_id"]
        request = DeleteInviteRequest(
            organization_id=call.caller.organization_id, invite_id=invite_id, actor=self._actor_of(call)
        )
        await self._members.delete_invite(request)
        gone = {"object": "organization.invite.deleted", "id": invite_id, "deleted": True}
        await call.respond(200, msgspec.json.encode(gone))

    async def _default_projects(self, organization_id: str) -> list[ProjectRole]:
        oldest = Page(limit=1, ascending=True)
        found = await self._tenants.list_projects(ListProjectsRequest(organization_id=organization_id, page=oldest))
        return [ProjectRole(project_id=project.id, role="member") for project in found.projects]


def parse_projects(path: str, value: Json) -> list[ProjectRole]:
    """Projects and roles, perhaps none. Raises InvalidRequest."""
    if type(value) is not list:
        raise wrong_type(path, "an array of objects", value)
    if len(value) > MOST_PROJECTS:
        raise too_long(path, MOST_PROJECTS, len(value))
    parsed = [members(f"{path}[{index}]", item, _PROJECT, ("id", "role")) for index, item in enumerate(value)]
    return [ProjectRole(project_id=project["id"], role=project["role"]) for project in parsed]


BUILT: Final = {"email": string, "role": one_of(*users.ROLES), "projects": parse_projects}


def invite_object(invite: Invite) -> dict[str, Any]:
    """As OpenAI's API shows an invite."""
    return {
        "object": "organization.invite",
        "id": invite.id,
        "email": invite.email,
        "role": invite.role,
        "status": invite.status,
        "created_at": invite.created_at,
        "expires_at": invite.expires_at,
        "accepted_at": invite.accepted_at or None,
        "projects": [{"id": project.project_id, "role": project.role} for project in invite.projects],
    }
