"""MembersService, over both wirings, on a real PostgreSQL: invites, also when many answer them at once."""

import pytest

from modelplane.admin.v1.admin_pb2 import Page
from modelplane.members.v1 import members_pb2 as pb
from modelplane.members.v1.members_api import MembersService
from services.faults import InvalidRequest, NotFound
from services.members.service import INVITE_S
from services.storage import Database
from tests.contract.conftest import Wire
from tests.contract.people import (
    ACTOR,
    NOW_S,
    ONE,
    TWO,
    Clock,
    accept,
    add,
    at_once,
    events,
    invite,
    put_in,
    refusal,
    serve,
)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def members(database: Database, wire: Wire, clock: Clock) -> MembersService:
    return await serve(database, wire, clock)


async def test_the_life_of_an_invite(members: MembersService, clock: Clock, database: Database) -> None:
    projects = [
        pb.ProjectRole(project_id="proj-b", role="owner"),
        pb.ProjectRole(project_id="proj-a", role="member"),
    ]
    sent = await invite(members, "New@example.com", role="owner", projects=projects)
    assert sent == pb.Invite(
        id=sent.id,
        email="New@example.com",
        role="owner",
        status="pending",
        created_at=int(NOW_S),
        expires_at=int(NOW_S) + INVITE_S,
        projects=projects,
    )
    assert sent.id.startswith("invite-")
    named = pb.GetInviteRequest(**ONE, invite_id=sent.id)
    assert (await members.get_invite(named)).invite == sent
    clock.now_s += 60
    user = await accept(members, sent.id, name="New")
    assert (user.email, user.name, user.role) == ("New@example.com", "New", "owner")
    assert [(one.project_id, one.role) for one in user.projects] == [("proj-a", "member"), ("proj-b", "owner")]
    found = (await members.get_invite(named)).invite
    assert (found.status, found.accepted_at) == ("accepted", int(NOW_S) + 60)
    clock.now_s += 2 * INVITE_S
    assert (await members.get_invite(named)).invite == found
    assert await refusal(accept(members, sent.id)) == "invite_accepted"
    delete = pb.DeleteInviteRequest(**ONE, invite_id=sent.id, actor=ACTOR)
    assert await refusal(members.delete_invite(delete)) == "invite_accepted"
    assert await events(database) == [
        ("invite.sent", "", {"id": sent.id, "data": {"email": "New@example.com", "role": "owner"}}),
        ("invite.accepted", "", {"id": sent.id}),
        ("user.added", "", {"id": user.id, "data": {"role": "owner"}}),
        ("user.added", "proj-b", {"id": user.id, "data": {"role": "owner"}}),
        ("user.added", "proj-a", {"id": user.id, "data": {"role": "member"}}),
    ]


async def test_invites_expire_and_may_be_sent_again(members: MembersService, clock: Clock) -> None:
    sent = await invite(members)
    clock.now_s = sent.expires_at - 0.5
    assert await refusal(invite(members, "NEW@example.com")) == "invite_exists"
    clock.now_s = sent.expires_at
    assert (await members.get_invite(pb.GetInviteRequest(**ONE, invite_id=sent.id))).invite.status == "expired"
    assert await refusal(accept(members, sent.id)) == "invite_expired"
    again = await invite(members)
    await members.delete_invite(pb.DeleteInviteRequest(**ONE, invite_id=sent.id, actor=ACTOR))
    assert (await accept(members, again.id)).email == "new@example.com"
    assert await refusal(invite(members)) == "already_member"


async def test_a_withdrawn_invite_is_gone(members: MembersService, database: Database) -> None:
    sent = await invite(members)
    delete = pb.DeleteInviteRequest(**ONE, invite_id=sent.id, actor=ACTOR)
    await members.delete_invite(delete)
    assert await refusal(members.delete_invite(delete)) == "invite_not_found"
    assert await refusal(accept(members, sent.id)) == "invite_not_found"
    assert [kind for kind, _, _ in await events(database)] == ["invite.sent", "invite.deleted"]


async def test_organisations_invite_the_same_address(members: MembersService) -> None:
    mine, other = await invite(members), await invite(members, "NEW@example.com", **TWO)
    first, second = await accept(members, mine.id, name="New"), await accept(members, other.id, **TWO)
    assert (second.id, second.email, second.name) == (first.id, "new@example.com", "New")


async def test_invites_of_others_are_not_there(members: MembersService) -> None:
    foreign = await invite(members, **TWO)
    for invite_id in (foreign.id, "invite-none", "\0"):
        named = {**ONE, "invite_id": invite_id}
        assert await refusal(members.get_invite(pb.GetInviteRequest(**named))) == "invite_not_found"
        assert await refusal(members.delete_invite(pb.DeleteInviteRequest(**named))) == "invite_not_found"
        assert await refusal(accept(members, invite_id)) == "invite_not_found"
    assert list((await members.list_invites(pb.ListInvitesRequest(**ONE, page=Page(limit=1)))).invites) == []


async def test_invites_are_listed_by_pages(members: MembersService, clock: Clock) -> None:
    ids = []
    for number in range(3):
        # Within one second.
        clock.now_s += 0.1
        ids.append((await invite(members, f"u{number}@example.com")).id)
    page = await members.list_invites(pb.ListInvitesRequest(**ONE, page=Page(limit=2)))
    assert ([one.id for one in page.invites], page.has_more) == ([ids[2], ids[1]], True)
    assert [one.status for one in page.invites] == ["pending"] * 2
    page = await members.list_invites(pb.ListInvitesRequest(**ONE, page=Page(limit=2, after=ids[1])))
    assert ([one.id for one in page.invites], page.has_more) == ([ids[0]], False)
    for cursor in ("\0", "invite-none"):
        asked = pb.ListInvitesRequest(**ONE, page=Page(limit=1, before=cursor))
        assert await refusal(members.list_invites(asked)) == "invalid_value"
    await members.delete_invite(pb.DeleteInviteRequest(**ONE, invite_id=ids[1], actor=ACTOR))
    page = await members.list_invites(pb.ListInvitesRequest(**ONE, page=Page(limit=2, after=ids[1])))
    assert ([one.id for one in page.invites], page.has_more) == ([ids[0]], False)


@pytest.mark.parametrize(
    ("projects", "reason"),
    [
        ([("proj-a", "member"), ("proj-other", "member")], "project_not_found"),
        ([("\0", "member")], "project_not_found"),
        ([("proj-old", "member")], "project_archived"),
        ([("proj-a", "reader")], "invalid_value"),
        ([("proj-a", "member"), ("proj-a", "owner")], "invalid_value"),
    ],
)
async def test_projects_that_nobody_is_invited_to(
    members: MembersService, projects: list[tuple[str, str]], reason: str
) -> None:
    roles = [pb.ProjectRole(project_id=project_id, role=role) for project_id, role in projects]
    with pytest.raises((NotFound, InvalidRequest)) as raised:
        await invite(members, projects=roles)
    assert (raised.value.reason, raised.value.param) == (reason, "projects")


async def test_invites_of_nobody_are_refused(members: MembersService) -> None:
    await add(members, "Ann@example.com")
    assert await refusal(invite(members, "ann@example.com")) == "already_member"
    assert await refusal(invite(members, "ann@")) == "invalid_value"
    assert await refusal(invite(members, role="member")) == "invalid_value"
    assert await refusal(invite(members, organization_id="org-none")) == "organization_not_found"


async def test_what_changed_since_the_invite_stands(members: MembersService, database: Database) -> None:
    projects = [pb.ProjectRole(project_id=project_id, role="owner") for project_id in ("proj-a", "proj-b")]
    sent = await invite(members, "a@example.com", role="owner", projects=projects)
    user = await add(members, "a@example.com", "viewer")
    await put_in(members, user.id, "proj-a", "viewer")
    async with database.connection() as connection:
        await connection.execute("UPDATE projects SET archived_at = now() WHERE id = 'proj-b'")
    accepted = await accept(members, sent.id)
    assert (accepted.id, accepted.role) == (user.id, "viewer")
    assert [(one.project_id, one.role) for one in accepted.projects] == [("proj-a", "viewer")]


async def test_an_invite_accepted_ten_times_at_once_makes_one_member(
    members: MembersService, database: Database
) -> None:
    sent = await invite(members, projects=[pb.ProjectRole(project_id="proj-a", role="member")])
    answers, reasons = await at_once(accept(members, sent.id) for _ in range(10))
    assert (len(answers), reasons) == (1, ["invite_accepted"] * 9)
    async with database.connection() as connection:
        rows = await connection.execute(
            "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM organization_members), "
            "(SELECT count(*) FROM project_members)"
        )
        assert await rows.fetchone() == (1, 1, 1)
    kinds = [kind for kind, _, _ in await events(database)]
    assert kinds == ["invite.sent", "invite.accepted", "user.added", "user.added"]


async def test_organisations_that_make_a_user_at_once_make_one(members: MembersService) -> None:
    sent = [await invite(members), await invite(members, **TWO)]
    calls = [accept(members, one.id, **owner) for one, owner in zip(sent, (ONE, TWO), strict=True)]
    answers, reasons = await at_once(calls)
    assert reasons == []
    assert len({user.id for user in answers}) == 1


async def test_an_invite_is_accepted_or_withdrawn(members: MembersService) -> None:
    for number in range(5):
        sent = await invite(members, f"u{number}@example.com")
        withdrawn = members.delete_invite(pb.DeleteInviteRequest(**ONE, invite_id=sent.id, actor=ACTOR))
        answers, reasons = await at_once([accept(members, sent.id), withdrawn])
        assert (len(answers), len(reasons)) == (1, 1)
        assert reasons[0] in ("invite_accepted", "invite_not_found")


async def test_an_address_is_invited_once_at_a_time(members: MembersService) -> None:
    answers, reasons = await at_once(invite(members) for _ in range(8))
    assert (len(answers), reasons) == (1, ["invite_exists"] * 7)
