"""`modelplane users` and `modelplane invites`: who belongs to an organisation, and who was asked to."""

import argparse
from typing import Final

from modelplane.admin.v1.admin_pb2 import Page
from modelplane.members.v1.members_pb2 import (
    AcceptInviteRequest,
    AddUserRequest,
    CreateInviteRequest,
    Invite,
    ListInvitesRequest,
    ListUsersRequest,
    ProjectRole,
    User,
)
from services.cli.output import Answer, Row, moment
from services.cli.platform import ACTOR, Noun, Platform, Subcommands, everything

ROLES: Final = ("owner", "reader", "viewer")


def add_commands(subcommands: Subcommands) -> None:
    """`modelplane users` and `modelplane invites`, and their verbs."""
    users = Noun(subcommands, "users", "the members of an organization")
    users.verb("list", "show the members", list_users)
    user = users.verb("add", "make somebody a member without an invite", add_user)
    user.add_argument("--name", default="")
    invites = Noun(subcommands, "invites", "invites to an organization")
    invites.verb("list", "show the invites", list_invites)
    invite = invites.verb("add", "invite somebody", add_invite)
    invite.add_argument("--projects", nargs="*", default=[], metavar="ID", help="of which it makes a member")
    for parser in (user, invite):
        parser.add_argument("email")
        parser.add_argument("--role", default="reader", choices=ROLES, help="in the organization; default: reader")
    accept = invites.verb("accept", "make the invited a member", accept_invite)
    accept.add_argument("invite_id")
    accept.add_argument("--name", default="")


async def list_users(platform: Platform, options: argparse.Namespace) -> Answer:
    organization_id = await platform.organization(options)

    async def fetch(page: Page) -> tuple[list[User], bool]:
        found = await platform.members.list_users(ListUsersRequest(organization_id=organization_id, page=page))
        return list(found.users), found.has_more

    return [user_row(user) for user in await everything(fetch, lambda user: user.id)]


async def add_user(platform: Platform, options: argparse.Namespace) -> Answer:
    request = AddUserRequest(
        organization_id=await platform.organization(options),
        email=options.email,
        name=options.name,
        role=options.role,
        actor=ACTOR,
    )
    return user_row((await platform.members.add_user(request)).user)


async def list_invites(platform: Platform, options: argparse.Namespace) -> Answer:
    organization_id = await platform.organization(options)

    async def fetch(page: Page) -> tuple[list[Invite], bool]:
        found = await platform.members.list_invites(ListInvitesRequest(organization_id=organization_id, page=page))
        return list(found.invites), found.has_more

    return [invite_row(invite) for invite in await everything(fetch, lambda invite: invite.id)]


async def add_invite(platform: Platform, options: argparse.Namespace) -> Answer:
    request = CreateInviteRequest(
        organization_id=await platform.organization(options),
        email=options.email,
        role=options.role,
        projects=[ProjectRole(project_id=project_id, role="member") for project_id in options.projects],
        actor=ACTOR,
    )
    return invite_row((await platform.members.create_invite(request)).invite)


async def accept_invite(platform: Platform, options: argparse.Namespace) -> Answer:
    request = AcceptInviteRequest(
        organization_id=await platform.organization(options),
        invite_id=options.invite_id,
        name=options.name,
        actor=ACTOR,
    )
    return user_row((await platform.members.accept_invite(request)).user)


def user_row(user: User) -> Row:
    return {
        "id": user.id,
        "email": user.email,
        "name": user.name,
        "role": user.role,
        "projects": [project.project_id for project in user.projects],
        "added": moment(user.added_at),
    }


def invite_row(invite: Invite) -> Row:
    return {
        "id": invite.id,
        "email": invite.email,
        "role": invite.role,
        "status": invite.status,
        "projects": [project.project_id for project in invite.projects],
        "expires": moment(invite.expires_at),
    }
