"""Keeps who is in which organisation and project, and brings people in by invites.

Keeps true: every organisation that has an owner keeps one, whatever happens at the same time; an invite makes one
member once; every change is in the audit log or did not happen.
"""

import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Final, Protocol

from modelplane.admin.v1.admin_pb2 import Actor
from modelplane.members.v1 import members_pb2 as pb
from services import asked
from services.compose import Context
from services.faults import Fault, InvalidRequest, NotFound
from services.identifiers import new_id
from services.members.changes import Change, no_user
from services.members.store import MembersStore, Records

ROLES: Final = ("owner", "reader", "viewer")
PROJECT_ROLES: Final = ("owner", "member", "viewer")
INVITE_S: Final = 7 * 24 * 3600


class Changing(Protocol):
    """What every request for a change says."""

    @property
    def organization_id(self) -> str: ...

    @property
    def actor(self) -> Actor: ...


class Members:
    """The contract MembersService. `clock` gives seconds of the epoch."""

    def __init__(self, store: MembersStore, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock

    # ------------------------------------------------------------------------------------- organisations

    async def add_user(self, request: pb.AddUserRequest, /) -> pb.AddUserResponse:
        _check_address(request.email)
        asked.line(request.name, "name")
        _check_role(request.role, ROLES)
        async with self._changing(request) as change:
            user_id = await change.records.identify(request.email, request.name, new_id("user-"))
            if not await change.join(user_id, request.role):
                await change.set_role(user_id, request.role)
            return pb.AddUserResponse(user=await change.records.user(request.organization_id, user_id))

    async def get_user(self, request: pb.GetUserRequest, /) -> pb.GetUserResponse:
        _check_user(request.user_id)
        async with self._store.transaction() as records:
            user = await records.user(request.organization_id, request.user_id)
        if user is None:
            raise no_user(request.user_id)
        return pb.GetUserResponse(user=user)

    async def list_users(self, request: pb.ListUsersRequest, /) -> pb.ListUsersResponse:
        asked.page(request.page)
        # Nobody has an address with NUL, and the database cannot be asked for one.
        emails = [email for email in request.emails if not asked.has_nul(email)] if request.emails else None
        async with self._store.transaction() as records:
            users, has_more = await records.users(request.organization_id, request.page, emails)
        return pb.ListUsersResponse(users=users, has_more=has_more)

    async def update_user(self, request: pb.UpdateUserRequest, /) -> pb.UpdateUserResponse:
        _check_role(request.role, ROLES)
        _check_user(request.user_id)
        async with self._changing(request) as change:
            await change.set_role(request.user_id, request.role)
            return pb.UpdateUserResponse(user=await change.records.user(request.organization_id, request.user_id))

    async def remove_user(self, request: pb.RemoveUserRequest, /) -> pb.RemoveUserResponse:
        _check_user(request.user_id)
        async with self._changing(request) as change:
            await change.leave(request.user_id)
        return pb.RemoveUserResponse()

    # ------------------------------------------------------------------------------------------ projects

    async def add_project_user(self, request: pb.AddProjectUserRequest, /) -> pb.AddProjectUserResponse:
        if not request.user_id and not request.email:
            raise InvalidRequest(
                "missing_required_parameter", "Name the user by 'user_id' or 'email'.", param="user_id"
            )
        if request.user_id and request.email:
            raise InvalidRequest(
                "invalid_parameter", "Name the user by 'user_id' or by 'email', not both.", param="email"
            )
        _check_role(request.role, PROJECT_ROLES)
        _check_user(request.user_id or request.email)
        organization_id, project_id = request.organization_id, request.project_id
        async with self._changing(request) as change:
            await _check_projects(change.records, organization_id, [project_id])
            if request.email:
                user_id = await change.records.member(organization_id, request.email)
            else:
                user_id = request.user_id if await change.records.role(organization_id, request.user_id) else None
            if user_id is None:
                raise no_user(request.user_id or request.email)
            if not await change.join_project(project_id, user_id, request.role):
                raise InvalidRequest("already_member", f"The user '{user_id}' is in the project already.")
            user = await change.records.project_user(organization_id, project_id, user_id)
        return pb.AddProjectUserResponse(user=user)

    async def get_project_user(self, request: pb.GetProjectUserRequest, /) -> pb.GetProjectUserResponse:
        async with self._store.transaction() as records:
            await _check_projects(records, request.organization_id, [request.project_id], hold=False)
            user = await _project_user(records, request)
        return pb.GetProjectUserResponse(user=user)

    async def list_project_users(self, request: pb.ListProjectUsersRequest, /) -> pb.ListProjectUsersResponse:
        asked.page(request.page)
        async with self._store.transaction() as records:
            await _check_projects(records, request.organization_id, [request.project_id], hold=False)
            users, has_more = await records.project_users(request.organization_id, request.project_id, request.page)
        return pb.ListProjectUsersResponse(users=users, has_more=has_more)

    async def update_project_user(self, request: pb.UpdateProjectUserRequest, /) -> pb.UpdateProjectUserResponse:
        _check_role(request.role, PROJECT_ROLES)
        async with self._changing(request) as change:
            await _check_projects(change.records, request.organization_id, [request.project_id])
            user = await _project_user(change.records, request)
            if user.role != request.role:
                await change.set_project_role(request.project_id, request.user_id, request.role)
                user.role = request.role
        return pb.UpdateProjectUserResponse(user=user)

    async def remove_project_user(self, request: pb.RemoveProjectUserRequest, /) -> pb.RemoveProjectUserResponse:
        _check_user(request.user_id)
        async with self._changing(request) as change:
            await _check_projects(change.records, request.organization_id, [request.project_id])
            await change.leave_project(request.project_id, request.user_id)
        return pb.RemoveProjectUserResponse()

    # ------------------------------------------------------------------------------------------- invites

    async def create_invite(self, request: pb.CreateInviteRequest, /) -> pb.CreateInviteResponse:
        _check_address(request.email)
        _check_role(request.role, ROLES)
        for project in request.projects:
            _check_role(project.role, PROJECT_ROLES, "projects")
        project_ids = [project.project_id for project in request.projects]
        if len(set(project_ids)) < len(project_ids):
            raise InvalidRequest("invalid_value", "An invite names a project once.", param="projects")
        async with self._changing(request) as change:
            records, organization_id, now_s = change.records, request.organization_id, self._clock()
            await _check_projects(records, organization_id, project_ids, "projects")
            if await records.member(organization_id, request.email) is not None:
                raise InvalidRequest(
                    "already_member", f"'{request.email}' is a member of the organization already.", param="email"
                )
            if await records.is_invited(organization_id, request.email, now_s):
                raise InvalidRequest(
                    "invite_exists",
                    f"'{request.email}' has an invite already. Delete it to send another one.",
                    param="email",
                )
            invite = pb.Invite(
                id=new_id("invite-"),
                email=request.email,
                role=request.role,
                created_at=int(now_s),
                expires_at=int(now_s) + INVITE_S,
                projects=[pb.ProjectRole(project_id=one.project_id, role=one.role) for one in request.projects],
            )
            await records.add_invite(organization_id, invite, now_s)
            await change.note("invite.sent", invite.id, data={"email": invite.email, "role": invite.role})
        return pb.CreateInviteResponse(invite=_with_status(invite, now_s))

    async def get_invite(self, request: pb.GetInviteRequest, /) -> pb.GetInviteResponse:
        async with self._store.transaction() as records:
            invite = await _invite(records, request)
        return pb.GetInviteResponse(invite=_with_status(invite, self._clock()))

    async def list_invites(self, request: pb.ListInvitesRequest, /) -> pb.ListInvitesResponse:
        asked.page(request.page)
        now_s = self._clock()
        async with self._store.transaction() as records:
            invites, has_more = await records.invites(request.organization_id, request.page)
        return pb.ListInvitesResponse(invites=[_with_status(invite, now_s) for invite in invites], has_more=has_more)

    async def delete_invite(self, request: pb.DeleteInviteRequest, /) -> pb.DeleteInviteResponse:
        async with self._changing(request) as change:
            invite = await _invite(change.records, request)
            if invite.accepted_at:
                raise _accepted(invite)
            await change.records.delete_invite(request.organization_id, invite.id)
            await change.note("invite.deleted", invite.id)
        return pb.DeleteInviteResponse()

    async def accept_invite(self, request: pb.AcceptInviteRequest, /) -> pb.AcceptInviteResponse:
        asked.line(request.name, "name")
        async with self._changing(request) as change:
            records, organization_id, now_s = change.records, request.organization_id, self._clock()
            invite = _with_status(await _invite(records, request), now_s)
            if invite.status == "accepted":
                raise _accepted(invite)
            if invite.status == "expired":
                raise InvalidRequest("invite_expired", f"The invite '{invite.id}' has expired.")
            await records.accept_invite(organization_id, invite.id, now_s)
            user_id = await records.identify(invite.email, request.name, new_id("user-"))
            project_ids = [project.project_id for project in invite.projects]
            archived = await records.archived(organization_id, project_ids, hold=True)
            await change.note("invite.accepted", invite.id)
            # Who has come in by another way since keeps the roles that were given there.
            await change.join(user_id, invite.role)
            for project in invite.projects:
                if not archived.get(project.project_id, True):
                    await change.join_project(project.project_id, user_id, project.role)
            return pb.AcceptInviteResponse(user=await records.user(organization_id, user_id))

    @asynccontextmanager
    async def _changing(self, request: Changing) -> AsyncIterator[Change]:
        """One change of an organisation's people at a time, all of it or nothing."""
        async with self._store.transaction() as records:
            if not await records.lock(request.organization_id):
                raise NotFound("organization_not_found", f"No such organization: '{request.organization_id}'.")
            yield Change(records, request.organization_id, request.actor)


async def _check_projects(
    records: Records,
    organization_id: str,
    project_ids: Collection[str],
    param: str | None = None,
    *,
    hold: bool = True,
) -> None:
    """Raises NotFound or InvalidRequest for a project that is not the organisation's or is archived."""
    known = [project_id for project_id in project_ids if not asked.has_nul(project_id)]
    archived = await records.archived(organization_id, known, hold=hold) if known else {}
    for project_id in project_ids:
        if project_id not in archived:
            raise NotFound("project_not_found", f"No such project: '{project_id}'.", param=param)
        if archived[project_id]:
            raise InvalidRequest("project_archived", f"The project '{project_id}' is archived.", param=param)


async def _project_user(
    records: Records, request: pb.GetProjectUserRequest | pb.UpdateProjectUserRequest
) -> pb.ProjectUser:
    _check_user(request.user_id)
    found = await records.project_user(request.organization_id, request.project_id, request.user_id)
    if found is None:
        raise no_user(request.user_id)
    return found


async def _invite(
    records: Records, request: pb.GetInviteRequest | pb.DeleteInviteRequest | pb.AcceptInviteRequest
) -> pb.Invite:
    found = None
    if not asked.has_nul(request.invite_id):
        found = await records.invite(request.organization_id, request.invite_id)
    if found is None:
        raise NotFound("invite_not_found", f"No such invite: '{request.invite_id}'.")
    return found


# ------------------------------------------------------------------------------------------------------ checks


def _check_address(email: str) -> None:
    if not asked.is_address(email):
        raise InvalidRequest("invalid_value", f"Invalid 'email': '{email}' is no e-mail address.", param="email")


def _check_user(name: str) -> None:
    """Raises NotFound for an id or address that nobody can have."""
    if asked.has_nul(name):
        raise no_user(name)


def _check_role(role: str, roles: Collection[str], param: str = "role") -> None:
    if role not in roles:
        raise InvalidRequest(
            "invalid_value", f"Invalid value: '{role}'. Supported values are: {', '.join(roles)}.", param=param
        )


def _with_status(invite: pb.Invite, now_s: float) -> pb.Invite:
    if invite.accepted_at:
        invite.status = "accepted"
    else:
        invite.status = "pending" if now_s < invite.expires_at else "expired"
    return invite


def _accepted(invite: pb.Invite) -> Fault:
    return InvalidRequest("invite_accepted", f"The invite '{invite.id}' was accepted already.")


@asynccontextmanager
async def build(context: Context) -> AsyncIterator[Members]:
    yield Members(MembersStore(context.database()))
